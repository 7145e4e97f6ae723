"""Which element of a verdict map a packet met: the kernel reports the verdict alone.

Elements that lead elsewhere are out; among several with the verdict that was reported the packet's
own headers decide, where they can.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence

from ipttrace.netfilter import Verdict
from ipttrace.packet import PacketSummary
from ipttrace.ruleset import MapElement, Rule

ANY = "*"
"""The key of the element for whatever no other one is for."""

_KEYED = re.compile(r"(.+?) vmap ")


def matched_element(
    rule: Rule, verdict: Verdict | None, chain: str | None, packet: PacketSummary
) -> MapElement | None:
    """Return the element of the rule's map by which this packet got `verdict`, to `chain`."""
    led = f"{verdict} {chain}" if chain else str(verdict)
    reached = [each for each in rule.elements if _led(each) == led]
    keys = _selectors(rule.text)
    possible = [each for each in reached if each.key != ANY and _fits(each.key, keys, packet)]
    if not possible:
        possible = [each for each in reached if each.key == ANY]
    return possible[0] if len(possible) == 1 else None


def _led(element: MapElement) -> str:
    """Return an element's verdict as a report has it: `JUMP web`."""
    word, space, chain = element.verdict.partition(" ")
    return f"{word.upper()}{space}{chain}"


def _selectors(text: str) -> Sequence[str]:
    """Return what a rule looks up, each in its last two words: `ip saddr`, `tcp dport`."""
    match = _KEYED.match(text)
    parts = match[1].split(" . ") if match else []
    return [" ".join(part.split(" ")[-2:]) for part in parts]


def _fits(key: str, selectors: Sequence[str], packet: PacketSummary) -> bool:
    """Tell whether a packet can have met this key: what is not judged does not speak against it."""
    values = key.split(" . ")
    if len(values) != len(selectors):
        return True
    return all(
        _holds(value, FIELDS[selector](packet)) is not False
        for value, selector in zip(values, selectors, strict=True)
        if selector in FIELDS
    )


def _holds(key: str, value: str | int | None) -> bool | None:
    """Tell whether a value is in a key: one value, a range, a network; None if not judged."""
    if value is None:
        return None
    try:
        if isinstance(value, int):
            low, _, high = key.partition("-")
            return int(low, 0) <= value <= int(high or low, 0)
        return _has_address(key, value)
    except ValueError:
        return key == value


def _has_address(key: str, value: str) -> bool:
    address = int(ipaddress.ip_address(value))
    low, dash, high = key.partition("-")
    if dash:
        return int(ipaddress.ip_address(low)) <= address <= int(ipaddress.ip_address(high))
    return ipaddress.ip_address(value) in ipaddress.ip_network(key)


FIELDS: dict[str, Callable[[PacketSummary], str | int | None]] = {
    "ip saddr": lambda packet: packet.src,
    "ip daddr": lambda packet: packet.dst,
    "ip6 saddr": lambda packet: packet.src,
    "ip6 daddr": lambda packet: packet.dst,
    "ip protocol": lambda packet: packet.protocol,
    "meta l4proto": lambda packet: packet.protocol,
    **dict.fromkeys(
        ("tcp sport", "udp sport", "th sport", "sctp sport"), lambda packet: packet.sport
    ),
    **dict.fromkeys(
        ("tcp dport", "udp dport", "th dport", "sctp dport"), lambda packet: packet.dport
    ),
}
"""What nft can look up (nft(8), EXPRESSIONS) and a PacketSummary has."""
