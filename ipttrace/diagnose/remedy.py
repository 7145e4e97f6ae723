"""Commands that the user may judge and run; ipttrace never runs them.

Each is written for the program that owns the rule: iptables-legacy, iptables-nft or nft.
"""

from __future__ import annotations

import re
import shlex

from ipttrace.netfilter import (
    CONNTRACK_PRIORITY,
    Backend,
    ChainRef,
    Hook,
    RuleRef,
    TableFamily,
    builtin_priority,
)
from ipttrace.nft_criteria import without_counters
from ipttrace.packet import PacketSummary
from ipttrace.path import ChainHop

SOURCE = re.compile(
    r"\bsaddr\b|(?:^| )-s |--match-set \S+ src|--src"
    r"|-m (?:rpfilter|recent|iprange|geoip|connlimit) "
)
"""What a rule asks of where a packet comes from."""

PROGRAMS = {TableFamily.IP: "iptables", TableFamily.IP6: "ip6tables"}


def is_native(chain: ChainRef, rule: str | None = None) -> bool:
    """Return whether a chain is nft's own, not one that iptables-nft made.

    A rule's text tells; without one, only iptables-nft names its base chains like hooks.
    """
    if chain.backend is Backend.LEGACY:
        return False
    if rule is not None:
        return not rule.startswith("-A ")
    hook = next((hook for hook in Hook if hook.value == chain.chain), None)
    known = hook is not None and builtin_priority(chain.table, hook) is not None
    return not (known and chain.table_family in PROGRAMS)


def program(chain: ChainRef, native: bool) -> str:
    """Return the name of the program that edits a chain: `ip6tables-nft`, or `nft`."""
    if native or chain.table_family not in PROGRAMS:
        return "nft"
    return f"{PROGRAMS[chain.table_family]}-{chain.backend}"


def _iptables(chain: ChainRef) -> list[str]:
    table = [] if chain.table == "filter" else ["-t", chain.table]
    return [program(chain, native=False), *table]


def _nft(verb: str, chain: ChainRef) -> list[str]:
    return ["nft", verb, "rule", chain.table_family.value, chain.table, chain.chain]


def delete_rule(ref: RuleRef, native: bool) -> str:
    """Return the command that deletes a rule."""
    if native:
        return shlex.join([*_nft("delete", ref.chain), "handle", str(ref.handle)])
    return shlex.join([*_iptables(ref.chain), "-D", ref.chain.chain, str(ref.number)])


def let_pass(hop: ChainHop, packet: PacketSummary, *limits: str) -> str:
    """Return the command that accepts packets like this one just before `hop`.

    Where the rule of `hop` asks for the source, only packets from this one are accepted: a list of
    addresses that are shut out, or a check of the way back, is to hold for all others.
    `limits` are further iptables criteria, as words; native nft takes none.
    """
    chain = hop.chain
    native = is_native(chain, hop.rule)
    if native:
        place = ["handle", str(hop.handle)] if hop.handle is not None else []
        verb = "insert" if place else "add"
        words = [*_nft(verb, chain), *place, *_nft_criteria(hop, packet), "accept"]
    else:
        place = ["-A", chain.chain] if hop.number is None else ["-I", chain.chain, str(hop.number)]
        source = ["-s", packet.src] if _asks_for_source(hop) and "-s" not in limits else []
        wanted = [*limits, *source, *_iptables_criteria(hop, packet)]
        words = [*_iptables(chain), *place, *wanted, "-j", "ACCEPT"]
    return shlex.join(words)


def can_know_answers(hop: ChainHop) -> bool:
    """Return whether conntrack has been asked before `hop`: whether a rule can match its state."""
    return hop.priority is not None and hop.priority > CONNTRACK_PRIORITY


def let_answers_pass(hop: ChainHop) -> str:
    """Return the command that accepts packets of known connections just before `hop`."""
    chain = hop.chain
    if is_native(chain, hop.rule):
        place = ["handle", str(hop.handle)] if hop.handle is not None else []
        verb = "insert" if place else "add"
        match = ["ct", "state", "established,related"]
        return shlex.join([*_nft(verb, chain), *place, *match, "accept"])
    place = ["-A", chain.chain] if hop.number is None else ["-I", chain.chain, str(hop.number)]
    match = ["-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED"]
    return shlex.join([*_iptables(chain), *place, *match, "-j", "ACCEPT"])


def _iptables_criteria(hop: ChainHop, packet: PacketSummary) -> list[str]:
    words = [] if _for_this_host(hop) else ["-d", packet.dst]
    words += ["-p", "ipv6-icmp" if packet.protocol == "icmp6" else packet.protocol]
    return words if packet.dport is None else [*words, "--dport", str(packet.dport)]


def _nft_criteria(hop: ChainHop, packet: PacketSummary) -> list[str]:
    family = packet.family.table_family.value
    words = [family, "saddr", packet.src] if _asks_for_source(hop) else []
    words += [] if _for_this_host(hop) else [family, "daddr", packet.dst]
    if packet.dport is not None:
        return [*words, packet.protocol, "dport", str(packet.dport)]
    protocol = "ipv6-icmp" if packet.protocol == "icmp6" else packet.protocol
    return [*words, "meta", "l4proto", protocol]


def _asks_for_source(hop: ChainHop) -> bool:
    return hop.rule is not None and SOURCE.search(hop.rule) is not None


def _for_this_host(hop: ChainHop) -> bool:
    return hop.hook in (Hook.INPUT, Hook.PREROUTING)


def same_in_output(chain: ChainRef, rule: str, local: bool) -> str:
    """Return the command that adds a nat/PREROUTING rule's text for packets made on this host.

    `local`: only for packets that stay on it; without that, connections to other hosts change too.
    """
    if not rule.startswith("-A "):
        limit = 'oifname "lo" ' if local else ""
        table = f"{chain.table_family} {chain.table}"
        text = f"{limit}{without_counters(rule)}"
        base = "'{ type nat hook output priority -100; }'"
        command = shlex.join(["nft", "add", "rule", *table.split(), "local_nat", text])
        return f"nft add chain {table} local_nat {base} && {command}"
    text = rule.removeprefix(f"-A {chain.chain} ")
    limit = "-o lo " if local else ""
    return f"{shlex.join(_iptables(chain))} -A OUTPUT {limit}{text}"


def what_listens(packet: PacketSummary) -> str:
    """Return the command that shows the sockets on the packet's port."""
    letter = "u" if packet.protocol == "udp" else "t"
    return f"ss -{letter}lnp 'sport = :{packet.dport}'"
