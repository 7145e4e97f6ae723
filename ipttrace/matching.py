"""Would this rule's criteria match this packet?  Yes, no and which criterion, or not judged.

Only what is known of the packet at one hop is judged: its headers and interfaces, and its marks,
conntrack state and kinds of address where something told them; each with `!`.  Any other criterion
is never guessed at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from ipttrace.criteria import Criterion, criteria
from ipttrace.netfilter import PacketFamily
from ipttrace.nft_criteria import nft_criteria
from ipttrace.packet import PacketSummary

__all__ = ["Criterion", "Failure", "Judgement", "PacketFacts", "criteria", "judge", "judge_any"]


@dataclass(frozen=True, slots=True)
class PacketFacts:
    """A packet as it is at one hop, and what else is known of it there."""

    packet: PacketSummary
    in_interface: str | None = None
    out_interface: str | None = None
    unknown: frozenset[str] = frozenset()
    """Options that are not judged because what they ask is not known: `-o`."""
    mark: int | None = None
    connmark: int | None = None
    ct_state: str | None = None
    """`NEW ESTABLISHED RELATED INVALID UNTRACKED`."""
    local: Mapping[str, bool] = field(default_factory=dict)
    """Whether an address is one of this namespace, as far as that is known."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A criterion that does not hold, and what the packet has in its place."""

    criterion: Criterion
    actual: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is known of a rule and a packet; `matches` is None where it was not judged."""

    matches: bool | None
    held: tuple[Criterion, ...] = ()
    failures: tuple[Failure, ...] = ()
    not_judged: tuple[Criterion, ...] = ()


NOT_TRANSPORT = frozenset({"-s", "-d", "-i", "-o", "-m"})
"""Options that can be judged of a packet whose transport protocol the kernel did not show."""

SILENT_MODULES = frozenset(
    {"tcp", "udp", "udplite", "sctp", "multiport", "comment", "mark", "connmark", "conntrack"}
    | {"state", "icmp", "icmp6", "icmpv6", "iprange", "addrtype"}
)
"""Modules that match by their options alone."""


def judge(rule: str, facts: PacketFacts) -> Judgement:
    """Return whether an iptables rule's criteria match; nothing is judged in any other text."""
    try:
        wanted = criteria(rule)
    except ValueError:
        return Judgement(None)
    return _judged(wanted, facts)


def judge_any(rule: str, facts: PacketFacts) -> Judgement:
    """Return whether a rule's criteria match, be it iptables' or as `nft -a list` writes it."""
    return judge(rule, facts) if rule.startswith("-A ") else _judged(nft_criteria(rule), facts)


def _judged(wanted: Iterable[Criterion], facts: PacketFacts) -> Judgement:
    """Return whether all criteria hold: one that fails is enough to say no."""
    held: list[Criterion] = []
    failures: list[Failure] = []
    unsaid: list[Criterion] = []
    for each in wanted:
        verdict = _holds(each, facts)
        if verdict is None:
            unsaid.append(each)
        elif verdict != each.negated:
            held.append(each)
        else:
            failures.append(Failure(each, _actual(each, facts)))
    matches = False if failures else None if unsaid else True
    return Judgement(matches, tuple(held), tuple(failures), tuple(unsaid))


def _holds(criterion: Criterion, facts: PacketFacts) -> bool | None:
    if criterion.option in facts.unknown or (
        facts.packet.partial and criterion.option not in NOT_TRANSPORT
    ):
        return None
    if criterion.option == "-m":
        return True if criterion.value in SILENT_MODULES else None
    test = _connmark if criterion.module == "connmark" else TESTS.get(criterion.option)
    try:
        return test(criterion.value, facts) if test else None
    except ValueError:
        return None


def _actual(criterion: Criterion, facts: PacketFacts) -> str:
    packet = facts.packet
    icmp = f"{packet.icmp.type}/{packet.icmp.code}" if packet.icmp else None
    values = {
        "-p": packet.protocol,
        "-s": packet.src,
        "-d": packet.dst,
        "--src-range": packet.src,
        "--dst-range": packet.dst,
        "--src-type": _kind_in_words(packet.src, facts),
        "--dst-type": _kind_in_words(packet.dst, facts),
        "-i": facts.in_interface,
        "-o": facts.out_interface,
        "--ports": f"{packet.sport} and {packet.dport}",
        "--mark": _number(facts.connmark if criterion.module == "connmark" else facts.mark),
        "--ctstate": facts.ct_state,
        "--tcp-flags": ",".join(packet.tcp_flags),
        "--syn": ",".join(packet.tcp_flags),
        "--icmp-type": icmp,
        "--icmpv6-type": icmp,
    }
    if criterion.option in values:
        return str(values[criterion.option] or "none")
    return str(packet.sport if criterion.option.startswith("--sport") else packet.dport)


def _number(mark: int | None) -> str | None:
    return None if mark is None else f"{mark:#x}"


def _kind_in_words(address: str, facts: PacketFacts) -> str:
    return f"{address}, {'' if _is_local(address, facts) else 'not '}an address of this host"


PROTOCOLS = {
    "ipv6-icmp": "icmp6",
    "icmpv6": "icmp6",
    "1": "icmp",
    "6": "tcp",
    "17": "udp",
    "58": "icmp6",
    "132": "sctp",
}
"""Other names of the protocols that a PacketSummary names."""

ANY_PROTOCOL = frozenset({"all", "0", "ip"})


def _protocol(value: str, facts: PacketFacts) -> bool:
    return value in ANY_PROTOCOL or PROTOCOLS.get(value, value) == facts.packet.protocol


def _address(value: str, address: str) -> bool:
    network = ip_network(value, strict=False)
    return ip_address(address) in network


def _range(value: str, address: str) -> bool:
    low, _, high = value.partition("-")
    return int(ip_address(low)) <= int(ip_address(address)) <= int(ip_address(high or low))


def _interface(value: str, name: str | None) -> bool:
    if value.endswith("+"):
        return (name or "").startswith(value[:-1])
    return name == value


def _port(value: str, *ports: int | None) -> bool | None:
    """Say whether any port is in a list such as `80,443,8000:8100`; None without ports."""
    if all(port is None for port in ports):
        return None
    for part in value.split(","):
        low, colon, high = part.partition(":")
        first = int(low or 0)
        last = int(high or 65535) if colon else first
        if any(port is not None and first <= port <= last for port in ports):
            return True
    return False


def _mark(value: str, mark: int | None) -> bool | None:
    if mark is None:
        return None
    wanted, _, mask = value.partition("/")
    return mark & (int(mask, 0) if mask else 0xFFFFFFFF) == int(wanted, 0)


def _connmark(value: str, facts: PacketFacts) -> bool | None:
    return _mark(value, facts.connmark)


CT_STATES = frozenset({"NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED"})


def _ct_state(value: str, facts: PacketFacts) -> bool | None:
    """Say whether the state is in a list; None where it is not known, or SNAT or DNAT is listed."""
    wanted = set(value.split(","))
    if facts.ct_state is None or not wanted <= CT_STATES:
        return None
    return facts.ct_state in wanted


TCP_FLAGS = frozenset({"FIN", "SYN", "RST", "PSH", "ACK", "URG"})
"""What `ALL` means: six of the eight flags, tcp_flag_names in libxt_tcp.c."""
SYN_ONLY = "FIN,SYN,RST,ACK SYN"


def _tcp_flags(value: str, facts: PacketFacts) -> bool | None:
    if facts.packet.protocol != "tcp" or facts.packet.fragment_offset:
        return None
    mask, _, wanted = (value or SYN_ONLY).partition(" ")
    return set(facts.packet.tcp_flags) & _flags(mask) == _flags(wanted)


def _flags(text: str) -> frozenset[str]:
    if text in ("ALL", "NONE"):
        return TCP_FLAGS if text == "ALL" else frozenset()
    named = frozenset(text.split(","))
    if not named <= TCP_FLAGS:
        raise ValueError(text)
    return named


def _icmp_type(value: str, facts: PacketFacts) -> bool | None:
    """Say whether type and code are those of `8` or `3/1`; names are not known here."""
    if facts.packet.icmp is None:
        return None
    if value in ("any", "255"):
        return facts.packet.family is PacketFamily.IPV4 or None
    kind, slash, code = value.partition("/")
    return facts.packet.icmp.type == int(kind) and (
        not slash or facts.packet.icmp.code == int(code)
    )


def _address_type(value: str, address: str, facts: PacketFacts) -> bool | None:
    """Say whether an address is of a type, as far as LOCAL tells (xt_addrtype.c).

    The other types depend on routes; IPv6 asks for all of the types in a list, IPv4 for any.
    """
    local = _is_local(address, facts)
    if local is None or (value != "LOCAL" and facts.packet.family is PacketFamily.IPV6):
        return None
    wanted = value.split(",")
    if local:
        return "LOCAL" in wanted
    return False if wanted == ["LOCAL"] else None


def _is_local(address: str, facts: PacketFacts) -> bool | None:
    return True if ip_address(address).is_loopback else facts.local.get(address)


Test = Callable[[str, PacketFacts], bool | None]

TESTS: dict[str, Test] = {
    "-p": _protocol,
    "-s": lambda value, facts: _address(value, facts.packet.src),
    "-d": lambda value, facts: _address(value, facts.packet.dst),
    "--src-range": lambda value, facts: _range(value, facts.packet.src),
    "--dst-range": lambda value, facts: _range(value, facts.packet.dst),
    "--src-type": lambda value, facts: _address_type(value, facts.packet.src, facts),
    "--dst-type": lambda value, facts: _address_type(value, facts.packet.dst, facts),
    "-i": lambda value, facts: _interface(value, facts.in_interface),
    "-o": lambda value, facts: _interface(value, facts.out_interface),
    "--sport": lambda value, facts: _port(value, facts.packet.sport),
    "--sports": lambda value, facts: _port(value, facts.packet.sport),
    "--dport": lambda value, facts: _port(value, facts.packet.dport),
    "--dports": lambda value, facts: _port(value, facts.packet.dport),
    "--ports": lambda value, facts: _port(value, facts.packet.sport, facts.packet.dport),
    "--mark": lambda value, facts: _mark(value, facts.mark),
    "--ctstate": _ct_state,
    "--state": _ct_state,
    "--tcp-flags": _tcp_flags,
    "--syn": _tcp_flags,
    "--icmp-type": _icmp_type,
    "--icmpv6-type": _icmp_type,
    "--comment": lambda _value, _facts: True,
}
