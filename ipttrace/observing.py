"""What the reports of our own chains prove of a packet: where it was handed on, and as what."""

from __future__ import annotations

from ipttrace.accounts import Interfaces
from ipttrace.copies import may_be_group
from ipttrace.ends import Ends
from ipttrace.event import TraceEvent
from ipttrace.netfilter import LOOPBACK_INDEX, Hook, Verdict
from ipttrace.own_table import OBSERVERS
from ipttrace.packet import PacketSummary
from ipttrace.path import Outcome, WireHop
from ipttrace.report import Station
from ipttrace.walk import Walk


def pass_observer(
    walk: Walk,
    event: TraceEvent,
    station: Station,
    before: PacketSummary,
    interfaces: Interfaces,
    ends: Ends,
) -> None:
    """Take what our own chain proves: `before` is the packet as it was last seen."""
    if event.chain not in OBSERVERS:
        return
    if station.hook is Hook.INPUT:
        walk.note_source(before, event.time)
        walk.leave(Outcome.DELIVERED)
    elif station.hook is Hook.POSTROUTING:
        if not station.bridged:
            walk.note_source(before, event.time)
        _leave_by_wire(walk, event, station, interfaces, ends)


def _leave_by_wire(
    walk: Walk, event: TraceEvent, station: Station, interfaces: Interfaces, ends: Ends
) -> None:
    outcome = Outcome.SENT if walk.local else Outcome.FORWARDED
    index = event.out_index if station.bridged else walk.out_index
    if event.verdict is Verdict.DROP:
        walk.leave(outcome, WireHop(event.time, "contained", interfaces.name(index)))
    elif index != LOOPBACK_INDEX:
        copies = walk.local and may_be_group(walk.packet.dst)
        goes_on = _goes_on(walk, station, interfaces)
        walk.leave(outcome, open_end=copies or ends.egress or goes_on)


def _goes_on(walk: Walk, station: Station, interfaces: Interfaces) -> bool:
    """Tell whether a packet that leaves here may meet a bridge's chains yet, or IP's in it.

    One that is sent by a bridge meets the bridge's POSTROUTING after its own; a frame that is
    bridged meets its own, if at all, inside the bridge's (br_nf_post_routing).
    """
    if not station.bridged:
        return walk.out_index in interfaces.bridge_of.values()
    return (Hook.POSTROUTING, False) not in walk.reached
