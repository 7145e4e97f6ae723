"""One packet's way over the whole flow picture: the lanes, and the places between them."""

from __future__ import annotations

from dataclasses import dataclass

from ipttrace.netfilter import INET_HOOKS, TABLE_HOOKS, Hook
from ipttrace.path import (
    Decision,
    DropHop,
    Outcome,
    PacketPath,
    ResetHop,
    RouteHop,
    WireHop,
)
from ipttrace.render.rewritten import rewritten, with_nat
from ipttrace.render.stations import DEAD_MARK, LOST_MARK, Lane, is_fatal, lane, stations
from ipttrace.render.waypoints import Place, Spot, Waypoints, waypoints

BRIDGED = "bridged"
"""In place of a routing decision: a bridge handed the packet on from port to port."""


@dataclass(frozen=True, slots=True)
class Journey:
    """The lanes of one path, and the places between them."""

    lanes: dict[Hook | None, Lane]
    visited: tuple[Hook | None, ...]
    """The hooks in which chains reported, in the order in which they were met."""
    reached: frozenset[Spot]
    """Where the packet was, as far as anything proves it."""
    hops: dict[Spot, tuple[int, ...]]
    """Indexes into the path's hops, by the place between hooks at which they are."""
    end: Place
    """Where the way ends; STATION where a rule or policy ended it."""
    mark: str
    """DEAD_MARK, LOST_MARK, or empty where the packet got where it wanted."""
    decision: str
    """What routing decided of a packet that came in, or empty."""
    entered: str
    """The interface it came in by, or empty."""
    left: str
    """The interface it left by, or empty."""
    contained: bool
    """We dropped it at the way out."""
    loops: bool
    """It left by lo and came in again."""


def journey(path: PacketPath | None) -> Journey:
    """Return where `path` led, hook by hook; without a path the lanes alone."""
    if path is None:
        map_alone: dict[Hook | None, Lane] = {
            hook: Lane(hook, stations(None, hook), met=False, passed=False) for hook in INET_HOOKS
        }
        nowhere: frozenset[Spot] = frozenset()
        return Journey(
            map_alone, (), nowhere, {}, Place.STATION, "", "", "", "", contained=False, loops=False
        )
    visited = tuple(dict.fromkeys(hop.hook for hop in path.chain_hops))
    way = waypoints(path)
    end, mark = _end(path, way)
    nat = rewritten(path, way)
    passed = {*visited[:-1], *way.order[:-1]}
    if mark != LOST_MARK and end is not Place.STATION:
        passed |= {*visited[-1:], *way.order[-1:]}
    hooks = dict.fromkeys([*TABLE_HOOKS["mangle"], *visited])
    lanes = {
        hook: lane(hook, with_nat(stations(path, hook), hook, nat.get(hook, ())), hook in passed)
        for hook in hooks
    }
    return Journey(
        lanes,
        visited,
        frozenset({*visited, *way.order}),
        _with_ends(path, way, end),
        end,
        mark,
        _decision(path, way),
        _entered(path),
        *_left(path),
        loops=way.loops,
    )


def _with_ends(path: PacketPath, way: Waypoints, end: Place) -> dict[Spot, tuple[int, ...]]:
    """Return the hops at each place; how the packet died is told where it did."""
    deaths = tuple(n for n, hop in enumerate(path.hops) if isinstance(hop, DropHop | ResetHop))
    return {**way.hops, end: (*way.hops.get(end, ()), *deaths)}


def _decision(path: PacketPath, way: Waypoints) -> str:
    """Return the last decision about a packet that came in, or what its way proves."""
    there = [path.hops[index] for index in way.hops.get(Place.ROUTE, ())]
    told = [hop.decision for hop in there if isinstance(hop, RouteHop)]
    if told:
        return told[-1]
    if Hook.INPUT in way.order:
        return Decision.LOCAL
    if Hook.FORWARD not in way.order:
        return ""
    return BRIDGED if path.physical_in is not None else Decision.FORWARD


def _end(path: PacketPath, way: Waypoints) -> tuple[Place, str]:
    if is_fatal(path):
        return Place.STATION, DEAD_MARK
    match path.outcome:
        case Outcome.DELIVERED:
            return Place.SOCKET, ""
        case Outcome.FORWARDED | Outcome.SENT:
            return Place.WIRE_OUT, ""
        case Outcome.REFUSED:
            return Place.SOCKET, DEAD_MARK
        case Outcome.DROPPED | Outcome.REJECTED:
            return _next_place(way), DEAD_MARK
    return _next_place(way), LOST_MARK


def _next_place(way: Waypoints) -> Place:
    """Return the place behind the last hook that is proven, or the last place itself."""
    match way.last:
        case Hook.INGRESS:
            return Place.BEHIND_INGRESS
        case Hook.PREROUTING:
            return Place.ROUTE
        case Hook.INPUT:
            return Place.SOCKET
        case Hook.FORWARD | Hook.OUTPUT | Hook.POSTROUTING | Hook.EGRESS:
            return Place.WIRE_OUT
        case Place.STATION | None:
            return Place.ROUTE_OUT if way.made_here else Place.WIRE_IN
        case place:
            return place


def _entered(path: PacketPath) -> str:
    received = [h for h in path.hops if isinstance(h, WireHop) and h.event == "received"]
    return (received[0].interface if received else path.in_interface) or ""


def _left(path: PacketPath) -> tuple[str, bool]:
    """Return by which interface it left, and whether we held it back there."""
    sent = [h for h in path.hops if isinstance(h, WireHop) and h.event != "received"]
    if sent:
        return sent[-1].interface or "", sent[-1].event == "contained"
    gone = path.outcome in (Outcome.FORWARDED, Outcome.SENT)
    return (path.out_interface or "") if gone else "", False
