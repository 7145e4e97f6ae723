"""Commands that the user may judge and run; ipttrace never runs them.

Each is written for the program that owns the rule: iptables-legacy, iptables-nft or nft.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from ipttrace.ruleset import Rule

SOURCE = re.compile(
    r"\bsaddr\b|(?:^| )-s |--match-set \S+ src|--src"
    r"|-m (?:rpfilter|recent|iprange|geoip|connlimit) "
)
"""What a rule asks of where a packet comes from."""

COMMAND = ": "
"""Between what a remedy is good for and its command; words without a command do without it."""

PROGRAMS = {TableFamily.IP: "iptables", TableFamily.IP6: "ip6tables"}


def parted(remedy: str) -> tuple[str, str]:
    """Return what a remedy is good for, and its command (or options), empty if it has none."""
    words, _, command = remedy.partition(COMMAND)
    return words, command


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
    return ["nft", verb, "rule", *_names(chain)]


def _names(chain: ChainRef) -> list[str]:
    return [chain.table_family.value, chain.table, chain.chain]


def delete_rule(ref: RuleRef, native: bool) -> str:
    """Return the command that deletes a rule."""
    if native:
        return shlex.join([*_nft("delete", ref.chain), "handle", str(ref.handle)])
    return shlex.join([*_iptables(ref.chain), "-D", ref.chain.chain, str(ref.number)])


@dataclass(frozen=True, slots=True)
class Limits:
    """How narrow an exception is to be, beside the packet's protocol and port."""

    source: bool = False
    """Only for the packet's own source."""
    loopback: bool = False
    """Only for what comes in on lo."""
    here: bool = False
    """The destination is an address of this host, so that it need not be named."""
    answers: bool = False
    """For what comes from the packet's source and port: an answer's destination is another port
    each time."""


def let_pass(hop: ChainHop, packet: PacketSummary, limits: Limits = Limits()) -> str:
    """Return the command that accepts packets like this one just before `hop`.

    Where the rule of `hop` asks for the source, only packets from this one are accepted: a list of
    addresses that are shut out, or a check of the way back, is to hold for all others.
    """
    source = limits.source or asks_for_source(hop)
    limits = replace(limits, source=source, here=limits.here or hop.hook is Hook.INPUT)
    criteria = _nft_criteria if is_native(hop.chain, hop.rule) else _iptables_criteria
    return _insert(hop, criteria(packet, limits))


def can_know_answers(hop: ChainHop) -> bool:
    """Return whether conntrack has been asked before `hop`: whether a rule can match its state.

    Chains of devices know no connections: nft_ct refuses them.
    """
    if hop.chain.table_family is TableFamily.NETDEV or hop.hook in (Hook.INGRESS, Hook.EGRESS):
        return False
    return hop.priority is not None and hop.priority > CONNTRACK_PRIORITY


def let_answers_pass(hop: ChainHop) -> str:
    """Return the command that accepts packets of known connections just before `hop`."""
    if is_native(hop.chain, hop.rule):
        return _insert(hop, ["ct", "state", "established,related"])
    return _insert(hop, ["-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED"])


def _insert(hop: ChainHop, criteria: list[str]) -> str:
    """Return the command that accepts what meets the criteria just before `hop`."""
    chain = hop.chain
    if is_native(chain, hop.rule):
        place = ["handle", str(hop.handle)] if hop.handle is not None else []
        verb = "insert" if place else "add"
        return shlex.join([*_nft(verb, chain), *place, *criteria, "accept"])
    place = ["-A", chain.chain] if hop.number is None else ["-I", chain.chain, str(hop.number)]
    return shlex.join([*_iptables(chain), *place, *criteria, "-j", "ACCEPT"])


def _iptables_criteria(packet: PacketSummary, limits: Limits) -> list[str]:
    protocol = "ipv6-icmp" if packet.protocol == "icmp6" else packet.protocol
    words = ["-i", "lo"] if limits.loopback else []
    words += ["-s", packet.src] if limits.source or limits.answers else []
    words += [] if limits.here or limits.answers else ["-d", packet.dst]
    words += ["-p", protocol]
    end, port = _port(packet, limits)
    return words if port is None else [*words, f"--{end}", str(port)]


def _nft_criteria(packet: PacketSummary, limits: Limits) -> list[str]:
    family = packet.family.table_family.value
    words = ["iifname", "lo"] if limits.loopback else []
    words += [family, "saddr", packet.src] if limits.source or limits.answers else []
    words += [] if limits.here or limits.answers else [family, "daddr", packet.dst]
    end, port = _port(packet, limits)
    if port is not None:
        return [*words, packet.protocol, end, str(port)]
    protocol = "ipv6-icmp" if packet.protocol == "icmp6" else packet.protocol
    return [*words, "meta", "l4proto", protocol]


def _port(packet: PacketSummary, limits: Limits) -> tuple[str, int | None]:
    return ("sport", packet.sport) if limits.answers else ("dport", packet.dport)


def asks_for_source(hop: ChainHop) -> bool:
    """Return whether a rule asks where a packet comes from."""
    return hop.rule is not None and SOURCE.search(hop.rule) is not None


def show_chain(chain: ChainRef) -> str:
    """Return the command that shows the rules of a chain."""
    if is_native(chain):
        return shlex.join(["nft", "-a", "list", "chain", *_names(chain)])
    return shlex.join([*_iptables(chain), "-S", chain.chain])


def delete_element(chain: ChainRef, name: str, key: str) -> str:
    """Return the command that deletes an element of a named map."""
    place = [chain.table_family.value, chain.table, name]
    return shlex.join(["nft", "delete", "element", *place, f"{{ {key} }}"])


def put_into_zone(chain: ChainRef, native: bool, interface: str, zone: str) -> str:
    """Return the command that puts what comes in by an interface into a conntrack zone."""
    if native:
        match = ["iifname", interface, "ct", "zone", "set", zone]
        return shlex.join([*_nft("add", chain), *match])
    match = ["-i", interface, "-j", "CT", "--zone", zone]
    return shlex.join([*_iptables(chain), "-A", chain.chain, *match])


def let_discovery_in(chain: ChainRef, rules: Sequence[Rule] = ()) -> str:
    """Return the command that accepts IPv6's neighbour advertisements before all rules."""
    if is_native(chain, rules[0].text if rules else None):
        return shlex.join(
            [*_nft("insert", chain), *["icmpv6", "type", "nd-neighbor-advert", "accept"]]
        )
    kind = ["-p", "ipv6-icmp", "--icmpv6-type", "neighbour-advertisement"]
    return shlex.join([*_iptables(chain), "-I", chain.chain, "1", *kind, "-j", "ACCEPT"])


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
