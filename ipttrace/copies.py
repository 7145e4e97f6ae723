"""Copies of multicast and broadcast packets that the kernel gives back to the host that made them.

ip_mc_output and ip6_finish_output2 pass a copy through POSTROUTING, of IPv4 before the packet and
of IPv6 after it; dev_loopback_xmit then has it received on the interface that the packet leaves by.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import lru_cache

from ipttrace.event import TraceEvent
from ipttrace.netfilter import Hook
from ipttrace.packet import PacketSummary
from ipttrace.report import Station, Step
from ipttrace.walk import Walk


@lru_cache(maxsize=1024)
def may_be_group(address: str) -> bool:
    """Tell whether an address may be that of several hosts; a network's own is not known here."""
    if ":" in address:
        return address.startswith("ff")
    first, _, rest = address.partition(".")
    return 224 <= int(first) < 240 or rest.endswith("255")


def is_copied_at(station: Station, walks: Sequence[Walk]) -> bool:
    """Tell whether a packet that reports at POSTROUTING is a copy of one that left there."""
    return (
        station.hook is Hook.POSTROUTING
        and not station.bridged
        and any(walk.local and _has_left(walk) for walk in walks)
    )


def returning(event: TraceEvent, station: Station, walks: Sequence[Walk]) -> Walk | None:
    """Return the packet, or one whose copy it is, that is received where it was sent; or None.

    Where it went by two ways, it is the one that is a copy for sure.
    """
    if station.hook is not Hook.PREROUTING or station.bridged or event.packet is None:
        return None
    sent = [
        walk
        for walk in walks
        if walk.local
        and _has_left(walk)
        and walk.out_index == event.in_index
        and may_be_group(walk.packet.dst)
        and _is_untouched(walk.packet, event.packet)
    ]
    return next((walk for walk in sent if walk.copied), sent[-1] if sent else None)


def _is_untouched(sent: PacketSummary, received: PacketSummary) -> bool:
    """Tell whether a received packet is as it was sent: no router and no NAT was in between."""
    shown = min(len(sent.payload), len(received.payload))
    same = sent.payload[:shown] == received.payload[:shown]
    return same and (sent.flow, sent.ttl) == (received.flow, received.ttl)


def _has_left(walk: Walk) -> bool:
    return walk.hook is Hook.POSTROUTING and not walk.base_open


def split(walk: Walk, number: int) -> Walk:
    """Return a copy that what passed POSTROUTING was; the packet itself is still behind OUTPUT."""
    made = [hop for hop in walk.hops if isinstance(hop, Step) and hop.hook is Hook.OUTPUT]
    other = copy(walk)
    other.id, other.copied = number, True
    other.hops = [hop for hop in walk.hops if hop not in made]
    other.flows, other.visited, other.reports = list(walk.flows), set(walk.visited), []
    other.first_mark = _mark_after(made, walk.first_mark)
    if other.hops:
        other.time = other.hops[0].time
    other.headers_from = other.mark_from = len(other.hops)
    walk.back_behind_output(made, other.first_mark)
    return other


def _mark_after(steps: Sequence[Step], mark: int) -> int:
    marks = [change.new for step in steps for change in step.changes if change.field == "mark"]
    return int(marks[-1] or 0) if marks else mark
