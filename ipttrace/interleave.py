"""Legacy reports of the kernel log and nft reports of netlink, joined into one order.

Theory of operation
===================

Each stream keeps the kernel's order, but nothing ties one to the other: netlink messages carry no
time, and the log's clock is not that of the reader.  What ties them is the way of each packet: a
report of one stream comes before one of the other if its hook, or at the same hook its priority,
comes first on the packet's way (`netfilter.leads_to`).

1. Each stream is split into ways by fingerprint; within one fingerprint a report belongs to the
   youngest way that it can continue.  A TEE clone is born while the packet that it copies is inside
   a chain, and has ended once that one goes on.
2. Each way in the nft stream is paired with one in the log, and each of its reports is put behind
   the last of the log's that comes before it.  The log's own order is never changed.
3. What has no partner (a conntrack event, a packet that met no legacy table) stays behind all that
   was before it in its own stream; a new conntrack entry comes behind its packet's last legacy
   report.

Limits: a legacy and an nft chain of the same priority are taken in the order nft, legacy, or the
other way round where the nft chain dropped the packet.  Two equal packets in flight at once can be
taken for each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ipttrace.event import Event, FlowChange, FlowEvent, TraceEvent
from ipttrace.netfilter import (
    LOOPBACK_INDEX,
    RECEIVING_HOOKS,
    SENDING_HOOKS,
    Hook,
    Verdict,
    leads_to,
)
from ipttrace.packet import Flow, PacketSummary
from ipttrace.report import Base, Fingerprint, Locator, Station, fingerprint
from ipttrace.ruleset import Ruleset

LOGGED_PORTS = frozenset({"tcp", "udp", "136"})
"""The protocols whose ports the kernel log shows; 136 is UDP-Lite."""

Position = tuple[int, int]
"""An index in the log, and -1 before it, 0 it itself, 1 after it."""

_START: Position = (-1, 1)


@dataclass(frozen=True, slots=True)
class _Step:
    """One report and where it came from."""

    index: int
    """In its stream."""
    event: TraceEvent
    hook: Hook
    priority: int
    base: Base | None
    in_index: int | None
    closes: bool
    """The walk of this base chain is over."""
    copies: bool = False
    """A rule with the target TEE matched: ip_tables reports it before it acts."""


@dataclass(slots=True)
class _Way:
    """The reports of one packet in one stream."""

    first: Flow
    last: Flow
    """NAT may have changed it."""
    parent: _Way | None = None
    """The packet inside whose walk of a chain this one was born, if it is a copy."""
    over: bool = False
    steps: list[_Step] = field(default_factory=list)

    @property
    def local(self) -> bool:
        """Whether the packet was made here, as far as its first report tells."""
        return self.steps[0].hook in SENDING_HOOKS

    def can_take(self, step: _Step) -> bool:
        """Tell whether the packet can have made this report next."""
        last = self.steps[-1]
        if self.over:
            return False
        if step.hook is not last.hook:
            return leads_to(last.hook, step.hook, step.in_index)
        if step.priority != last.priority or step.base != last.base:
            return step.priority >= last.priority
        further = (step.event.number or 0) > (last.event.number or 0)
        return not last.closes and (step.event.chain != last.event.chain or further)


def interleave(
    logged: Sequence[Event], traced: Sequence[Event], ruleset: Ruleset
) -> Sequence[Event]:
    """Return both streams as one; all that waits in both must have been read.

    What was traced shows no more of its packets than what was logged: `as_logged`.
    """
    if not logged or not traced:
        return [*logged, *traced]
    locator = Locator(ruleset, frozenset())
    legacy = _ways(logged, locator)
    places = _places(traced, _pairs(legacy, _ways(traced, locator)), legacy)
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


def _ways(events: Sequence[Event], locator: Locator) -> dict[Fingerprint, list[_Way]]:
    """Return the ways of the packets in one stream, oldest first."""
    ways: defaultdict[Fingerprint, list[_Way]] = defaultdict(list)
    by_id: dict[int, _Way] = {}
    for index, event in enumerate(events):
        station = locator.locate(event) if isinstance(event, TraceEvent) else None
        if station is None or not isinstance(event, TraceEvent):
            continue
        known = by_id.get(event.trace_id) if event.trace_id is not None else None
        step = _step(index, event, station, known.steps[-1] if known else None)
        way = known
        if step is not None and event.packet is not None:
            way = _way_of(step, event.packet, known, ways)
        if step is None or way is None:
            continue
        way.steps.append(step)
        if event.trace_id is not None:
            by_id[event.trace_id] = way
    return ways


def _step(index: int, event: TraceEvent, station: Station, before: _Step | None) -> _Step | None:
    """Return the report with its place: where nft does not say it, that of the one before."""
    if station.hook is None or station.base is None:
        if before is None:
            return None
        return replace(before, index=index, event=event, closes=False, copies=False)
    in_index = event.in_index
    if event.packet is None and before is not None:
        in_index = before.in_index
    copies = station.rule is not None and station.rule.target == "TEE"
    place = (station.hook, station.priority, station.base)
    return _Step(index, event, *place, in_index, station.closes, copies)


def _way_of(
    step: _Step,
    packet: PacketSummary,
    known: _Way | None,
    ways: defaultdict[Fingerprint, list[_Way]],
) -> _Way:
    """Return the way that goes on with this step: that of its trace id, or of its flow, first."""
    alike = ways[fingerprint(packet)]
    possible = [way for way in reversed(alike) if way.can_take(step)]
    bound = [way for way in possible if way is known]
    same = [way for way in possible if way.last == packet.flow]
    if not possible:
        around = [way for way in alike if not way.over and way.steps[-1].copies]
        alike.append(_Way(packet.flow, packet.flow, around[-1] if around else None))
    way = (bound or same or possible or alike[-1:])[0]
    way.last = packet.flow
    for other in alike:
        other.over = other.over or other.parent is way
    return way


def _pairs(
    legacy: dict[Fingerprint, list[_Way]], nft: dict[Fingerprint, list[_Way]]
) -> Iterator[tuple[_Way, _Way]]:
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
    pairs: Iterator[tuple[_Way, _Way]],
    legacy: dict[Fingerprint, list[_Way]],
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


def _anchors(way: _Way, partner: _Way) -> Iterator[tuple[int, Position]]:
    done = 0
    for step in way.steps:
        while done < len(partner.steps) and _precedes(partner.steps[done], step, way):
            done += 1
        place = (partner.steps[done - 1].index, 1) if done else (partner.steps[0].index, -1)
        yield step.index, place


def _precedes(logged: _Step, step: _Step, way: _Way) -> bool:
    """Tell whether a packet made the legacy report before the nft report `step` of `way`."""
    if logged.hook is step.hook:
        if logged.priority != step.priority:
            return logged.priority < step.priority
        last = way.steps[-1]
        dropped = last.event.verdict is Verdict.DROP
        return dropped and (last.hook, last.priority) == (step.hook, step.priority)
    if logged.hook in RECEIVING_HOOKS and step.hook in SENDING_HOOKS:
        came_back = logged.in_index == LOOPBACK_INDEX
        return not came_back and leads_to(logged.hook, step.hook, step.in_index)
    return leads_to(logged.hook, step.hook, step.in_index)
