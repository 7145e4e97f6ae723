"""Where a packet was, as far as its hops prove it: a hook in which no chain stands reports nothing.

A packet was at every place of its way up to the last one that a chain, a routing decision, the
wire, a socket or its outcome proves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ipttrace.netfilter import INET_HOOKS, Hook
from ipttrace.path import (
    LEFT,
    ChainHop,
    Decision,
    Outcome,
    PacketPath,
    RouteHop,
    SocketHop,
    WireHop,
)


class Place(StrEnum):
    """What lies between the hooks; a packet's way ends there if no chain ended it."""

    WIRE_IN = "wire in"
    BEHIND_INGRESS = "behind ingress"
    ROUTE = "route"
    SOCKET = "socket"
    ROUTE_OUT = "route out"
    WIRE_OUT = "wire out"
    STATION = "station"


Spot = Hook | Place | None
"""A hook, a place between hooks, or a hook that is not known."""

_INTO = (Place.WIRE_IN, Hook.INGRESS, Hook.PREROUTING, Place.ROUTE)
_UP = (Hook.INPUT, Place.SOCKET)
_OUT = (Hook.POSTROUTING, Hook.EGRESS, Place.WIRE_OUT)
FOR_HERE = (*_INTO, *_UP)
THROUGH = (*_INTO, Hook.FORWARD, *_OUT)
FROM_HERE = (Place.ROUTE_OUT, Hook.OUTPUT, *_OUT)
OVER_LO = (*FROM_HERE, *FOR_HERE)
RECEIVING = frozenset({Hook.INGRESS, Hook.PREROUTING, Place.ROUTE, *_UP})
SENDING = frozenset({Hook.FORWARD, *_OUT})


@dataclass(frozen=True, slots=True)
class Waypoints:
    """The places that a packet was at."""

    order: tuple[Spot, ...]
    """Its way, up to the last place that is proven."""
    loops: bool
    """It left by lo and came in again."""
    made_here: bool
    hops: Mapping[Spot, tuple[int, ...]]
    """Indexes of the hops that are no chains, by the place at which they are."""

    @property
    def last(self) -> Spot:
        """The last place that is proven; STATION where none is."""
        return self.order[-1] if self.order else Place.STATION


def waypoints(path: PacketPath) -> Waypoints:
    """Return the places that the hops of `path` prove."""
    made = is_made_here(path)
    proven: list[Spot] = []
    hops: dict[Spot, tuple[int, ...]] = {}
    for index, spot in _spots(path, made):
        proven.append(spot)
        if not isinstance(path.hops[index], ChainHop):
            hops[spot] = (*hops.get(spot, ()), index)
    proven += _told_by_outcome(path)
    if any(isinstance(hop, RouteHop) and hop.decision is Decision.LOCAL for hop in path.hops):
        proven.append(Hook.INPUT)
    loops = made and not RECEIVING.isdisjoint(proven)
    way = _way(proven, made=made, loops=loops)
    length = max((way.index(spot) + 1 for spot in proven if spot in way), default=0)
    return Waypoints(way[:length], loops, made, hops)


def is_made_here(path: PacketPath) -> bool:
    """Tell whether a packet was made in its namespace; over lo it may be seen first coming in."""
    hooks = [hop.hook for hop in path.chain_hops if hop.hook in INET_HOOKS]
    received = any(isinstance(hop, WireHop) and hop.event == "received" for hop in path.hops)
    if received or Hook.FORWARD in hooks or path.outcome is Outcome.FORWARDED:
        return False
    if path.in_interface in (None, "lo") or hooks[:1] == [Hook.OUTPUT]:
        return True
    return hooks[:1] == [Hook.POSTROUTING] and bool({Hook.PREROUTING, Hook.INPUT} & {*hooks})


def _spots(path: PacketPath, made: bool) -> Iterator[tuple[int, Spot]]:
    """Yield the place of each hop that has one."""
    inside = not made
    for index, hop in enumerate(path.hops):
        match hop:
            case ChainHop():
                inside = inside or hop.hook in RECEIVING
                yield index, hop.hook
            case RouteHop():
                goes_in = hop.decision in (Decision.LOCAL, Decision.FORWARD)
                inside = inside or goes_in
                out = hop.decision is Decision.OUTPUT or not inside
                yield index, Place.ROUTE_OUT if out else Place.ROUTE
            case SocketHop():
                yield index, Place.SOCKET
            case WireHop():
                yield index, Place.WIRE_IN if hop.event == "received" else Place.WIRE_OUT


def _told_by_outcome(path: PacketPath) -> tuple[Spot, ...]:
    if path.outcome in (Outcome.DELIVERED, Outcome.REFUSED):
        return (Place.SOCKET,)
    return (Place.WIRE_OUT,) if path.outcome in LEFT else ()


def _way(proven: list[Spot], *, made: bool, loops: bool) -> tuple[Spot, ...]:
    if made:
        return OVER_LO if loops else FROM_HERE
    return FOR_HERE if SENDING.isdisjoint(proven) else THROUGH
