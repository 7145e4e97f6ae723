"""Rules that a user would expect to match, and the one criterion that did not.

The kernel reports the rules that matched, so those before them in a chain are known not to have.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from ipttrace.diagnose.walk import made_here, packet_before
from ipttrace.event import TraceKind
from ipttrace.matching import Judgement, PacketFacts, judge
from ipttrace.netfilter import ChainRef, Hook
from ipttrace.path import ChainHop, PacketPath, Unmatched
from ipttrace.ruleset import Rule, Ruleset

MOST = 10
"""A long chain has thousands that did not match; the first few tell."""

PORTS = frozenset({"--dport", "--dports"})
PLACES = frozenset({"-s", "-d", "-i", "-o"})
REWRITING = frozenset({"DNAT", "REDIRECT"})


def unmatched(path: PacketPath, ruleset: Ruleset) -> tuple[Unmatched, ...]:
    """Return the rules that failed by one criterion only, in the order in which they were asked."""
    return tuple(islice(_near_misses(path, ruleset), MOST))


def _near_misses(path: PacketPath, ruleset: Ruleset) -> Iterator[Unmatched]:
    ports = _ports(path)
    for rule, hop in _passed_over(path, ruleset):
        judgement = judge(rule.text, facts_at(path, hop))
        if len(judgement.failures) == 1 and _expected(rule, judgement, ports):
            failure = judgement.failures[0]
            yield Unmatched(rule.ref, str(failure.criterion), failure.actual)


def _passed_over(path: PacketPath, ruleset: Ruleset) -> Iterator[tuple[Rule, ChainHop]]:
    """Yield each rule that was asked in vain, with the next hop of its chain.

    A walk goes on behind the last hop of its chain, also after a call of another chain.
    """
    asked: dict[tuple[ChainRef, Hook | None], int] = {}
    for hop in path.chain_hops:
        chain = ruleset.chains.get(hop.chain)
        rules = chain.user_rules if chain else ()
        first = asked.get((hop.chain, hop.hook), 0)
        last = len(rules) if hop.event is not TraceKind.RULE else (hop.number or 1) - 1
        yield from ((rule, hop) for rule in rules[first:last])
        asked[hop.chain, hop.hook] = last + 1


def facts_at(path: PacketPath, hop: ChainHop) -> PacketFacts:
    """Return the packet as it was when it met `hop`, with the interfaces that its hook has."""
    packet = packet_before(path, hop)
    if hop.hook in (Hook.PREROUTING, Hook.INPUT):
        return PacketFacts(packet, "lo" if made_here(path) else path.in_interface)
    if hop.hook is Hook.FORWARD:
        unknown = frozenset({"-o"}) if path.out_interface is None else frozenset[str]()
        return PacketFacts(packet, path.in_interface, path.out_interface, unknown)
    unknown = frozenset({"-i"}) | ({"-o"} if path.out_interface is None else set[str]())
    return PacketFacts(packet, None, path.out_interface, unknown)


def _ports(path: PacketPath) -> frozenset[str]:
    """Return every destination port that the packet had on its way."""
    changed = {c.new for hop in path.chain_hops for c in hop.changes if c.field == "dport"}
    return frozenset(str(port) for port in {path.packet.dport, *changed} if port is not None)


def _expected(rule: Rule, judgement: Judgement, ports: frozenset[str]) -> bool:
    """Say whether a user would expect the rule to match, but for the one criterion.

    It asks for a port that the packet had at another hop, or it rewrites another port of this
    address; or its port holds, and the address or interface does not.
    """
    wanted = judgement.failures[0].criterion
    if wanted.negated:
        return False
    if wanted.option in PORTS:
        return wanted.value in ports or rule.target in REWRITING
    return wanted.option in PLACES and any(each.option in PORTS for each in judgement.held)
