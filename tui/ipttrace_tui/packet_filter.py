"""The filter line: words that a packet must all meet, by its outcome, cause, address and so on.

A word is `key:value`, or a value alone where it can mean one thing only.  `!` before a word turns
it round.  Quotes hold words together: `rule:"-j DROP"`.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from ipttrace.decode.text import clean_text
from ipttrace.diagnose.catalogue import Cause
from ipttrace.errors import UsageError
from ipttrace.path import Outcome, Role
from ipttrace_tui.packet_log import Entry

CAUSES = tuple(Cause)
Test = Callable[[Entry], bool]

PROTOCOLS = ("tcp", "udp", "icmp", "icmp6", "sctp", "udplite", "dccp", "esp", "ah", "gre", "igmp")
KEYS = ("outcome", "cause", "addr", "src", "dst", "port", "sport", "dport", "proto", "netns")
TEXT_KEYS = ("rule", "role", "id")
ALIASES = {
    "host": "addr",
    "address": "addr",
    "protocol": "proto",
    "ns": "netns",
    "is": "outcome",
    "why": "cause",
}
HINT = "dropped  cause:mark-drop  203.0.113.0/24  :8443  tcp  netns:web  rule:DROP  !word"
ADDRESS = re.compile(r"[0-9a-fA-F]*[.:][0-9a-fA-F:.]*(/\d+)?")
MOST_PORT = 65535


@dataclass(frozen=True, slots=True)
class PacketFilter:
    """What the words of a filter line ask for; without words every packet passes."""

    text: str = ""
    tests: tuple[Test, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.tests)

    def passes(self, entry: Entry) -> bool:
        """Tell whether a packet meets all words."""
        return all(test(entry) for test in self.tests)


@dataclass(frozen=True, slots=True)
class Known:
    """Words that packets have brought with them."""

    protocols: Collection[str] = field(default_factory=tuple)
    namespaces: Collection[str] = field(default_factory=tuple)


def parse_filter(text: str, known: Known | None = None) -> PacketFilter:
    """Return the filter that a line describes; UsageError names a word that means nothing."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError("a quote is not closed") from error
    return PacketFilter(text.strip(), tuple(_test(word, known or Known()) for word in words))


def _test(word: str, known: Known) -> Test:
    turned = word.removeprefix("!")
    test = _plain_test(turned, known)
    return test if turned == word else lambda entry: not test(entry)


def _plain_test(word: str, known: Known) -> Test:
    key, colon, value = word.partition(":")
    key = ALIASES.get(key.lower(), key.lower())
    if colon and key in (*KEYS, *TEXT_KEYS):
        return _keyed(key, value)
    if colon and not key:
        return _keyed("port", value)
    if found := _bare(word, known):
        return _keyed(found, word)
    if colon and not ADDRESS.fullmatch(word):
        raise _bad(word, "has an unknown key", key, (*KEYS, *TEXT_KEYS))
    if ADDRESS.fullmatch(word):
        return _keyed("addr", word)
    choices = (*Outcome, *CAUSES, *known.protocols, *known.namespaces, *PROTOCOLS)
    hint = f"For text of rules: rule:{clean_text(word)}"
    raise _bad(word, "means nothing here", word, choices, hint)


def _bare(word: str, known: Known) -> str | None:
    """Return the key of a word that stands alone."""
    lower = word.lower()
    if lower in set(Outcome):
        return "outcome"
    if lower in CAUSES:
        return "cause"
    if lower in PROTOCOLS or lower in known.protocols:
        return "proto"
    if word in known.namespaces:
        return "netns"
    return "port" if word.isdigit() else None


def _keyed(key: str, value: str) -> Test:
    if not value:
        raise UsageError(f"{key}: has no value")
    match key:
        case "outcome" | "cause" | "role":
            return _named(key, value.lower())
        case "addr" | "src" | "dst":
            return _address_test(key, value)
        case "port" | "sport" | "dport" | "id":
            return _number_test(key, value)
        case "rule":
            return _rule_test(value.lower())
        case "netns":
            return lambda entry: (entry.netns or "") == value
    wanted = value.lower()
    return lambda entry: entry.protocol == wanted


def _named(key: str, value: str) -> Test:
    choices: tuple[str, ...] = {
        "outcome": tuple(Outcome),
        "role": tuple(Role),
        "cause": tuple(CAUSES),
    }[key]
    if value not in choices:
        raise _bad(value, f"is no {key}", value, choices)
    return lambda entry: getattr(entry, key) == value


def _address_test(key: str, value: str) -> Test:
    try:
        network = ip_network(value, strict=False)
    except ValueError as error:
        raise UsageError(f"{_shown(value)} is no address or network") from error
    whole = network.num_addresses == 1
    wanted = str(network.network_address)
    inside: dict[str, bool] = {}

    def is_inside(address: str) -> bool:
        if whole:
            return address == wanted
        if address not in inside:
            inside[address] = _in(address, network)
        return inside[address]

    if key == "addr":
        return lambda entry: is_inside(entry.src) or is_inside(entry.dst)
    return (lambda entry: is_inside(entry.src)) if key == "src" else lambda e: is_inside(e.dst)


def _in(address: str, network: object) -> bool:
    try:
        return ip_address(address) in network  # type: ignore[operator]
    except (ValueError, TypeError):
        return False


def _number_test(key: str, value: str) -> Test:
    number = int(value) if value.isdecimal() and value.isascii() else -1
    if key == "id":
        if number < 0:
            raise UsageError(f"{_shown(value)} is no packet number")
        return lambda entry: entry.id == number
    if not 0 <= number <= MOST_PORT:
        raise UsageError(f"{_shown(value)} is no port: these are 0 to {MOST_PORT}")
    match key:
        case "sport":
            return lambda entry: entry.sport == number
        case "dport":
            return lambda entry: entry.dport == number
    return lambda entry: number in (entry.sport, entry.dport)


def _rule_test(text: str) -> Test:
    found: dict[tuple[str, ...], bool] = {}

    def test(entry: Entry) -> bool:
        known = found.get(entry.rules)
        if known is None:
            known = found[entry.rules] = any(text in rule.lower() for rule in entry.rules)
        return known

    return test


def _bad(word: str, reason: str, near: str, choices: Collection[str], hint: str = "") -> UsageError:
    close = difflib.get_close_matches(near.lower(), [str(each) for each in choices], 1)
    meant = f"Did you mean {close[0]}?" if close else ""
    return UsageError(f"{_shown(word)} {reason}", meant or hint)


def _shown(word: str) -> str:
    return f"'{clean_text(word)}'"
