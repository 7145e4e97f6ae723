"""Would this rule's criteria match this packet?  Yes, no and which criterion, or not judged.

Only what the headers and interfaces alone decide is judged: -p -s -d -i -o --sport --dport and
multiport, each with `!`.  Any other criterion is never guessed at.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ipttrace.packet import PacketSummary


@dataclass(frozen=True, slots=True)
class PacketFacts:
    """A packet as it is at one hop."""

    packet: PacketSummary
    in_interface: str | None = None
    out_interface: str | None = None
    unknown: frozenset[str] = frozenset()
    """Options that are not judged because what they ask is not known: `-o`."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """One option of a rule, as iptables-save writes it: `! --dport 80`."""

    option: str
    value: str = ""
    negated: bool = False

    def __str__(self) -> str:
        words = (["!"] if self.negated else []) + [self.option]
        return " ".join([*words, self.value] if self.value else words)


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

SILENT_MODULES = frozenset({"tcp", "udp", "udplite", "sctp", "multiport", "comment"})
"""Modules that match by their options alone."""

LONG_NAMES = {
    "--protocol": "-p",
    "--source": "-s",
    "--destination": "-d",
    "--in-interface": "-i",
    "--out-interface": "-o",
    "--source-port": "--sport",
    "--destination-port": "--dport",
    "--source-ports": "--sports",
    "--destination-ports": "--dports",
}

FLAGS = re.compile(r"--?[A-Za-z]")


def criteria(rule: str) -> tuple[Criterion, ...]:
    """Return what `-A CHAIN ...` asks of a packet, in the order written; -m is kept.

    Raises ValueError if the text is not a rule as iptables-save writes it.
    """
    words = shlex.split(rule)
    if words[:1] != ["-A"]:
        raise ValueError("not an iptables rule")
    return tuple(_criteria(iter(words[2:])))


def _criteria(words: Iterator[str]) -> Iterator[Criterion]:
    option, values, negated, negate_next = "", list[str](), False, False
    for word in words:
        if option == "--comment" and not values:
            values.append(word)
        elif word == "!":
            negate_next = True
        elif FLAGS.match(word):
            if option:
                yield Criterion(option, " ".join(values), negated)
            if word in ("-j", "-g", "--jump", "--goto"):
                return
            option, values = LONG_NAMES.get(word, word), []
            negated, negate_next = negate_next, False
        else:
            values.append(word)
    if option:
        yield Criterion(option, " ".join(values), negated)


def judge(rule: str, facts: PacketFacts) -> Judgement:
    """Return whether an iptables rule's criteria match; nothing is judged in any other text.

    One criterion that fails is enough to say no, whatever the others are.
    """
    try:
        wanted = criteria(rule)
    except ValueError:
        return Judgement(None)
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
    test = TESTS.get(criterion.option)
    try:
        return test(criterion.value, facts) if test else None
    except ValueError:
        return None


def _actual(criterion: Criterion, facts: PacketFacts) -> str:
    packet = facts.packet
    values = {
        "-p": packet.protocol,
        "-s": packet.src,
        "-d": packet.dst,
        "-i": facts.in_interface,
        "-o": facts.out_interface,
        "--ports": f"{packet.sport} and {packet.dport}",
    }
    if criterion.option in values:
        return str(values[criterion.option] or "none")
    return str(packet.sport if criterion.option.startswith("--sport") else packet.dport)


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
    network = ipaddress.ip_network(value, strict=False)
    return ipaddress.ip_address(address) in network


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


TESTS: dict[str, Callable[[str, PacketFacts], bool | None]] = {
    "-p": _protocol,
    "-s": lambda value, facts: _address(value, facts.packet.src),
    "-d": lambda value, facts: _address(value, facts.packet.dst),
    "-i": lambda value, facts: _interface(value, facts.in_interface),
    "-o": lambda value, facts: _interface(value, facts.out_interface),
    "--sport": lambda value, facts: _port(value, facts.packet.sport),
    "--sports": lambda value, facts: _port(value, facts.packet.sport),
    "--dport": lambda value, facts: _port(value, facts.packet.dport),
    "--dports": lambda value, facts: _port(value, facts.packet.dport),
    "--ports": lambda value, facts: _port(value, facts.packet.sport, facts.packet.dport),
    "--comment": lambda _value, _facts: True,
}
