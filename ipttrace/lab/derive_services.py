"""The services of a host, as its rules let them in."""

from __future__ import annotations

from collections.abc import Iterable

from ipttrace.lab.derived_host import Derived, address_of
from ipttrace.lab.host_state import ListenerState
from ipttrace.lab.rule_facts import Facts

MOST_LISTENERS = 300
SHOWN = 40
"""Listeners that are named one by one."""


def listeners_of(derived: Derived, facts: Iterable[Facts]) -> list[ListenerState]:
    """Return a listener for each port that rules let in, or lead to, on this host."""
    found: dict[tuple[str, str, int], ListenerState] = {}
    places: list[str] = []
    for fact in facts:
        offered = (
            fact.table == "filter"
            and "INPUT" in fact.hooks
            and (fact.target == "ACCEPT" or fact.to_chain)
        )
        ports = fact.ports if offered else _local_ports(derived, fact)
        for protocol in [fact.protocol] if ports and fact.protocol in ("tcp", "udp") else ():
            address = "::" if fact.version == 6 else "0.0.0.0"  # noqa: S104
            for port in ports:
                key = (protocol, address, port)
                if key not in found:
                    found[key] = ListenerState(protocol, address, port)
                    places.append(f"{protocol}/{port} (line {fact.line})")
        if offered and fact.odd_ports:
            odd = ", ".join(fact.odd_ports)
            derived.notes.append(f"{fact.place}: of {odd} only the ends, if any, have a listener")
    if places:
        more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
        derived.notes.append(f"listens on {', '.join(places[:SHOWN])}{more}")
    if len(found) > MOST_LISTENERS:
        derived.notes.append(f"of {len(found)} listeners the first {MOST_LISTENERS} are there")
    return list(found.values())[:MOST_LISTENERS]


def _local_ports(derived: Derived, fact: Facts) -> tuple[int, ...]:
    """Return the ports of this host that REDIRECT, or DNAT to an address of its own, leads to."""
    if fact.to is None:
        return fact.ports if fact.target == "REDIRECT" else ()
    text = fact.to
    if fact.target == "DNAT":
        address = address_of(text)
        if address is None or not (derived.holds(address) or address.is_loopback):
            return ()
        text = text.rpartition("]")[2].rpartition(":")[2] if ":" in text else ""
        if not text:
            return fact.ports
    elif fact.target != "REDIRECT":
        return ()
    first = text.partition("-")[0]
    return (int(first),) if first.isdecimal() and 1 <= int(first) <= 65535 else ()
