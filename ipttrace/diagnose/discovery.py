"""Which chains of this host keep IPv6's neighbour discovery from hearing an answer.

Neighbour advertisements cross INPUT like any packet, and conntrack does not track them
(nf_conntrack_icmpv6_error in net/netfilter/nf_conntrack_proto_icmpv6.c).
"""

from __future__ import annotations

from collections.abc import Iterator

from ipttrace.diagnose.case import Case
from ipttrace.matching import PacketFacts, judge_any
from ipttrace.netfilter import Hook, PacketFamily, TableFamily, Verdict
from ipttrace.packet import IcmpHeader, PacketSummary
from ipttrace.ruleset import Chain

FAMILIES = frozenset({TableFamily.IP6, TableFamily.INET})
WAY_IN = frozenset({Hook.PREROUTING, Hook.INPUT})
ADVERTISEMENT = 136


def deaf_chains(case: Case, address: str, interface: str | None) -> Iterator[Chain]:
    """Yield the chains whose policy drops what no rule of theirs lets in, an answer to us."""
    if case.packet.family is not PacketFamily.IPV6:
        return
    answer = PacketSummary(
        PacketFamily.IPV6, "icmp6", address, "::", icmp=IcmpHeader(ADVERTISEMENT, 0)
    )
    facts = PacketFacts(answer, interface, unknown=frozenset({"-d"}), ct_state="UNTRACKED")
    for ref, chain in case.ruleset.chains.items():
        shut = chain.policy is Verdict.DROP and chain.hook in WAY_IN
        if not shut or ref.table_family not in FAMILIES:
            continue
        if all(judge_any(rule.text, facts).matches is False for rule in chain.user_rules):
            yield chain
