"""Legacy reports of the kernel log and nft reports of netlink, joined into one order.

Theory of operation
===================

Each stream keeps the kernel's order, but nothing ties one to the other: netlink messages carry no
time, and the log's clock is not that of the reader.  What ties them is the way of each packet: a
report of one stream comes before one of the other if its hook, or at the same hook its priority,
comes first on the packet's way (`netfilter.leads_to`).

1. Each stream is split into ways by fingerprint; within one fingerprint a report belongs to the
   youngest way that it can continue.  A TEE clone is born while the packet that it copies is inside
   a chain, and has left once that one goes on; over lo it may still come back.
2. Each way in the nft stream is paired with one in the log, and each of its reports is put between
   the log's that come before and after it.  The log's own order is never changed.
3. What has no partner (a conntrack event, a packet that met no legacy table) stays behind all that
   was before it in its own stream; a new conntrack entry comes behind its packet's last legacy
   report.

Limits: a legacy and an nft chain of the same priority are taken in the order nft, legacy, or the
other way round where the nft chain ended the walk of that priority: it dropped the packet, or
translated its address (nf_nat_inet_fn asks no further chain).  Two equal packets in flight at once
can be taken for each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ipttrace.event import Event, FlowChange, FlowEvent, TraceEvent
from ipttrace.fingerprint import Fingerprint
from ipttrace.netfilter import (
    LOOPBACK_INDEX,
    RECEIVING_HOOKS,
    SENDING_HOOKS,
    leads_to,
)
from ipttrace.packet import PacketSummary
from ipttrace.report import Locator
from ipttrace.ruleset import Ruleset
from ipttrace.ways import Step, Way, ways_of

LOGGED_PORTS = frozenset({"tcp", "udp", "136"})
"""The protocols whose ports the kernel log shows; 136 is UDP-Lite."""

Position = tuple[int, int]
"""An index in the log, and -1 before it, 0 it itself, 1 after it."""

_START: Position = (-1, 1)


def interleave(
    logged: Sequence[Event], traced: Sequence[Event], ruleset: Ruleset
) -> Sequence[Event]:
    """Return both streams as one; all that waits in both must have been read.

    What was traced shows no more of its packets than what was logged: `as_logged`.
    """
    if not logged or not traced:
        return [*logged, *traced]
    locator = Locator(ruleset, frozenset())
    legacy = ways_of(logged, locator)
    places = _places(traced, _pairs(legacy, ways_of(traced, locator)), legacy)
    placed = [((index, 0), 0, event) for index, event in enumerate(logged)]
    placed += [
        (place, index, event)
        for index, (place, event) in enumerate(zip(places, traced, strict=True))
    ]
    return list(_never_back(event for *_, event in sorted(placed, key=lambda each: each[:2])))


def _never_back(events: Iterator[Event]) -> Iterator[Event]:
    """Yield events whose times do not fall: one stream was read before the other."""
    latest = float("-inf")
    for event in events:
        if event.time < latest:
            yield replace(event, time=latest)
        else:
            latest = event.time
            yield event


def as_logged(event: Event) -> Event:
    """Return an nft report with no more of its packet than the kernel log shows."""
    if not isinstance(event, TraceEvent) or event.packet is None:
        return event
    return replace(event, packet=_shown(event.packet))


def _shown(packet: PacketSummary) -> PacketSummary:
    packet = replace(packet, payload=b"", extended=b"" if packet.extended is not None else None)
    if packet.protocol in LOGGED_PORTS:
        return packet
    return replace(packet, sport=None, dport=None)


def _pairs(
    legacy: dict[Fingerprint, list[Way]], nft: dict[Fingerprint, list[Way]]
) -> Iterator[tuple[Way, Way]]:
    """Yield each way in the nft stream with its partner in the log."""
    for key, ways in nft.items():
        free = list(legacy.get(key, ()))
        for way in ways:
            alike = [other for other in free if other.local is way.local]
            same = [other for other in alike if other.first == way.first]
            for partner in (same or alike or free)[:1]:
                free = [other for other in free if other is not partner]
                yield way, partner


def _places(
    traced: Sequence[Event],
    pairs: Iterator[tuple[Way, Way]],
    legacy: dict[Fingerprint, list[Way]],
) -> list[Position]:
    """Return where in the log each event of the nft stream belongs."""
    known: dict[int, Position] = {}
    for way, partner in pairs:
        known.update(_anchors(way, partner))
    ends = {way.first: way.steps[-1].index for ways in legacy.values() for way in ways}
    places: list[Position] = []
    latest = _START
    for index, event in enumerate(traced):
        place = known.get(index)
        if place is None and isinstance(event, FlowEvent) and event.change is FlowChange.NEW:
            place = (ends[event.original], 1) if event.original in ends else None
        places.append(place or latest)
        latest = max(latest, places[-1])
    return places


def _anchors(way: Way, partner: Way) -> Iterator[tuple[int, Position]]:
    done = 0
    for step in way.steps:
        while done < len(partner.steps) and _precedes(partner.steps[done], step, way):
            done += 1
        yield step.index, _between(partner.steps[:done], partner.steps[done:], step)


def _between(before: Sequence[Step], after: Sequence[Step], step: Step) -> Position:
    """Return the place next to the legacy report at the same hook: others may lie in between."""
    with_next = after and after[0].hook is step.hook
    if before and (before[-1].hook is step.hook or not with_next):
        return before[-1].index, 1
    return after[0].index, -1


def _precedes(logged: Step, step: Step, way: Way) -> bool:
    """Tell whether a packet made the legacy report before the nft report `step` of `way`."""
    if logged.hook is step.hook:
        if logged.priority != step.priority:
            return logged.priority < step.priority
        return (step.hook, step.priority) in way.ends
    if logged.hook in RECEIVING_HOOKS and step.hook in SENDING_HOOKS:
        came_back = logged.in_index == LOOPBACK_INDEX
        return not came_back and leads_to(logged.hook, step.hook, step.in_index)
    return leads_to(logged.hook, step.hook, step.in_index)
