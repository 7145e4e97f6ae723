"""What conntrack rewrote in a packet, at the hook and the table where the kernel does so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ipttrace.netfilter import Hook, nat_priority
from ipttrace.path import ChainHop, Change, Decision, NatHop, PacketPath, RouteHop
from ipttrace.render.stations import Station, short_nat
from ipttrace.render.waypoints import RECEIVING, Waypoints

Told = set[tuple[str, str, str]]
"""Fields with their values before and after."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A source or a destination that was rewritten."""

    index: int
    """Of its hop."""
    words: str
    fields: Told


def rewritten(path: PacketPath, way: Waypoints) -> dict[Hook | None, list[Rewrite]]:
    """Return what was rewritten, by hook: that follows from what it is, whoever saw it first.

    Destinations are rewritten at PREROUTING and OUTPUT, sources at POSTROUTING and INPUT.
    """
    found: dict[Hook | None, list[Rewrite]] = {}
    inside = not way.made_here
    for index, hop in enumerate(path.hops):
        if isinstance(hop, ChainHop):
            inside = inside or hop.hook in RECEIVING
        elif isinstance(hop, RouteHop):
            inside = inside or hop.decision in (Decision.LOCAL, Decision.FORWARD)
        elif isinstance(hop, NatHop):
            source = Hook.INPUT if inside and Hook.INPUT in way.order else Hook.POSTROUTING
            for hook, rewrite in _halves(index, hop, source, inside):
                found.setdefault(hook, []).append(rewrite)
    return found


def _halves(index: int, hop: NatHop, source: Hook, inside: bool) -> Iterator[tuple[Hook, Rewrite]]:
    if hop.source is not None:
        words = short_nat(replace(hop, destination=None))
        yield source, Rewrite(index, words, _fields("src", "sport", hop.source))
    if hop.destination is not None:
        words = short_nat(replace(hop, source=None))
        hook = Hook.PREROUTING if inside else Hook.OUTPUT
        yield hook, Rewrite(index, words, _fields("dst", "dport", hop.destination))


def _fields(address: str, port: str, pair: tuple[str, str]) -> Told:
    (old, old_port), (new, new_port) = map(_split, pair)
    told = {(address, old, new), (port, old_port, new_port)}
    return {each for each in told if each[1] != each[2]}


def _split(endpoint: str) -> tuple[str, str]:
    """Return address and port of `address:port` or `[address]:port`."""
    if endpoint.startswith("["):
        address, _, port = endpoint[1:].partition("]:")
        return address, port
    if endpoint.count(":") != 1:
        return endpoint, ""
    address, _, port = endpoint.partition(":")
    return address, port


def with_nat(
    there: tuple[Station, ...], hook: Hook | None, rewrites: Sequence[Rewrite]
) -> tuple[Station, ...]:
    """Return a hook's stations with what was rewritten there; what a rule told is told once."""
    stations = list(there)
    for rewrite in rewrites:
        told = [rewrite.fields.intersection(map(_told, each.changes)) for each in stations]
        place = next((n for n, each in enumerate(told) if each), None)
        if place is None:
            place = _nat_place(stations, hook)
        stations[place] = _with(stations[place], rewrite, told[place])
    return tuple(stations)


def _nat_place(stations: Sequence[Station], hook: Hook | None) -> int:
    """Return the station at which the kernel rewrites addresses, best one that was met."""
    priority = nat_priority(hook) if hook is not None else None
    there = [n for n, station in enumerate(stations) if station.priority == priority]
    return next((n for n in there if stations[n].hops), there[0])


def _told(change: Change) -> tuple[str, str, str]:
    return change.field, str(change.old), str(change.new)


def _with(station: Station, rewrite: Rewrite, told: Told) -> Station:
    hops = (*station.hops, rewrite.index)
    if told == rewrite.fields:
        return replace(station, hops=hops)
    changes = tuple(each for each in station.changes if _told(each) not in told)
    words = ", ".join(filter(None, (station.nat, rewrite.words)))
    return replace(station, hops=hops, changes=changes, nat=words)
