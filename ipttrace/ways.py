"""The ways of packets in one stream of reports: which reports are of one packet.

A simpler view than the correlator's, for `interleave`: it must hold for reports of one backend
alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ipttrace.event import Event, TraceEvent
from ipttrace.fingerprint import Fingerprint, fingerprint
from ipttrace.netfilter import (
    FATAL_VERDICTS,
    LOOPBACK_INDEX,
    RECEIVING_HOOKS,
    SENDING_HOOKS,
    Hook,
    TableFamily,
    Verdict,
    leads_to,
    nat_priority,
)
from ipttrace.packet import Flow, PacketSummary
from ipttrace.report import Base, Locator, Station
from ipttrace.targets import ADDRESS_FIELDS

_CLOSING = frozenset({Verdict.ACCEPT, Verdict.QUEUE, Verdict.STOLEN})
"""Verdicts of rules after which their base chain has no more to say."""

Place = tuple[Hook, int]
"""A hook and a priority."""


@dataclass(frozen=True, slots=True)
class Step:
    """One report and where it came from."""

    index: int
    """In its stream."""
    event: TraceEvent
    hook: Hook
    priority: int
    base: Base | None
    in_index: int | None
    out_index: int | None
    verdict: Verdict | None
    closes: bool
    """The end of a base chain."""
    copies: bool = False
    """A rule with the target TEE matched: ip_tables reports it before it acts."""
    ends: bool = False
    """No other chain of this hook and priority comes after."""


@dataclass(slots=True)
class Way:
    """The reports of one packet in one stream."""

    first: Flow
    last: Flow
    """NAT may have changed it."""
    parent: Way | None = None
    """The packet inside whose walk of a chain this one was born, if it is a copy."""
    over: bool = False
    """The packet that it copies has gone on."""
    steps: list[Step] = field(default_factory=list)
    ends: set[Place] = field(default_factory=set)
    """Where no other chain of the same place comes after."""

    @property
    def local(self) -> bool:
        """Whether the packet was made here, as far as its first report tells."""
        return self.steps[0].hook in SENDING_HOOKS

    def comes_back(self, step: Step) -> bool:
        """Tell whether this step would be the packet's first after it was sent over lo."""
        return self.steps[-1].hook in SENDING_HOOKS and step.hook in RECEIVING_HOOKS

    def can_take(self, step: Step) -> bool:
        """Tell whether the packet can have made this report next."""
        last = self.steps[-1]
        if last.verdict in FATAL_VERDICTS:
            return False
        if self.comes_back(step):
            left = last.out_index not in (None, LOOPBACK_INDEX)
            return not left and leads_to(last.hook, step.hook, step.in_index)
        if self.over:
            return False
        if step.hook is not last.hook:
            return _same_link(last, step) and leads_to(last.hook, step.hook, step.in_index)
        if (step.in_index, step.out_index) != (last.in_index, last.out_index):
            return False
        if step.priority != last.priority or step.base != last.base:
            return step.priority >= last.priority
        further = (step.event.number or 0) > (last.event.number or 0)
        closed = last.closes or last.verdict in _CLOSING
        return not closed and (step.event.chain != last.event.chain or further)


def _same_link(last: Step, step: Step) -> bool:
    """Tell whether a later hook names the interface by which the packet came in, if it names one.

    POSTROUTING does so since Linux 5.7 (ip_output), but not for bridges (br_nf_post_routing); a
    packet that was made here may be seen there with the interface that it was first sent to.
    """
    if last.hook is Hook.OUTPUT:
        return step.in_index in (None, last.out_index)
    bridged = last.in_index == last.out_index or step.event.table_family is TableFamily.BRIDGE
    return step.in_index == last.in_index or (bridged and step.in_index is None)


def ways_of(events: Sequence[Event], locator: Locator) -> dict[Fingerprint, list[Way]]:
    """Return the ways of the packets in one stream, oldest first."""
    ways: defaultdict[Fingerprint, list[Way]] = defaultdict(list)
    by_id: dict[int, Way] = {}
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
        if step.ends:
            way.ends.add((step.hook, step.priority))
        if event.trace_id is not None:
            by_id[event.trace_id] = way
    return ways


def _step(index: int, event: TraceEvent, station: Station, before: Step | None) -> Step | None:
    """Return the report with its place: where nft does not say it, that of the one before."""
    if station.hook is None or station.base is None:
        if before is None:
            return None
        verdict = event.verdict
        return replace(
            before,
            index=index,
            event=event,
            verdict=verdict,
            closes=False,
            copies=False,
            ends=verdict is Verdict.DROP,
        )
    links = (event.in_index, event.out_index)
    if event.packet is None and before is not None:
        links = (before.in_index, before.out_index)
    copies = station.rule is not None and station.rule.target == "TEE"
    place = (station.hook, station.priority, station.base)
    ends = (station.closes, copies, _ends(event, station))
    return Step(index, event, *place, *links, station.verdict, *ends)


def _ends(event: TraceEvent, station: Station) -> bool:
    """Tell whether an nft chain ended the walk of its priority."""
    if event.verdict is not Verdict.ACCEPT or station.hook is None:
        return event.verdict is Verdict.DROP
    translates = not station.changes.isdisjoint(ADDRESS_FIELDS)
    return translates and station.priority == nat_priority(station.hook)


def _way_of(
    step: Step,
    packet: PacketSummary,
    known: Way | None,
    ways: defaultdict[Fingerprint, list[Way]],
) -> Way:
    """Return the way that goes on with this step: that of its trace id, or of its flow, first."""
    alike = ways[fingerprint(packet)]
    possible = [way for way in reversed(alike) if way.can_take(step)]
    bound = [way for way in possible if way is known]
    same = [way for way in possible if way.last == packet.flow]
    if not possible:
        around = [way for way in alike if not way.over and way.steps[-1].copies]
        alike.append(Way(packet.flow, packet.flow, around[-1] if around else None))
    way = (bound or same or possible or alike[-1:])[0]
    way.last, way.over = packet.flow, False
    for other in alike:
        if other.parent is way:
            other.over, other.parent = True, None
    return way
