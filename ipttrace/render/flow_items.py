"""What stands in one line of the flow picture: stations, routing, and the ends of the way."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ipttrace.decode.text import clean_text
from ipttrace.netfilter import Hook
from ipttrace.render.picture import Look
from ipttrace.render.stations import CONNTRACK, DEAD_MARK, Journey, Lane, Place, Station

LONGEST_NAME = 12
"""Columns for an interface's name; it may have 15 (IFNAMSIZ)."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to draw."""

    text: str
    look: Look
    reached: bool
    """The packet came as far as this; so did the line that leads to it."""
    boxed: bool = True
    caption: str = ""
    indent: int = 0
    """Columns from the left of the box to where its caption should begin."""
    closed: bool = False
    """No way leads on."""
    bare: bool = False
    """A table that is known to hold no rules."""


def station_item(station: Station, selected: int | None) -> Item:
    """Return how a station is drawn."""
    return Item(
        station.label,
        _look(station, selected),
        station.reached,
        caption=station.caption,
        closed=station.dead,
        bare=station.ruled is False,
    )


def _look(station: Station, selected: int | None) -> Look:
    if selected is not None and selected in station.hops:
        return Look.SELECTED
    if station.dead:
        return Look.DEAD
    if station.caption:
        return Look.CHANGED
    if station.ruled is False:
        return Look.DIM
    if station.hops:
        return Look.LIT
    if station.ruled:
        return Look.PLAIN
    return Look.PLAIN if station.reached and station.label == CONNTRACK else Look.DIM


def stations(lane: Lane, selected: int | None) -> list[Item]:
    """Return a lane's stations."""
    return [station_item(each, selected) for each in lane.stations]


def wire_in(way: Journey) -> Item:
    """Return where packets come in."""
    lane = way.lanes[Hook.PREROUTING]
    came = bool(way.entered) or lane.met or lane.passed
    name = "lo" if way.loops else way.entered
    return _end(way, Place.WIRE_IN, _name(name), came=came)


def wire_out(way: Journey) -> Item:
    """Return where packets leave."""
    went = way.loops or (way.end is Place.WIRE_OUT and not way.mark)
    name = "lo" if way.loops else way.left
    return _end(way, Place.WIRE_OUT, _name(name), "contained" if way.contained else "", came=went)


def route_in(way: Journey) -> Item:
    """Return the routing decision after PREROUTING."""
    decided = {hook: name for hook, name in _DECISIONS.items() if hook in way.visited}
    caption = next(iter(decided.values()), "")
    item = _end(way, Place.ROUTE, "route", caption, came=bool(decided), boxed=True)
    item = replace(item, indent=1 if way.loops else 5)
    if way.end is Place.ROUTE and Hook.PREROUTING not in way.visited and not way.entered:
        return Item("route", Look.DIM, reached=False)
    return item


_DECISIONS = {Hook.INPUT: "local", Hook.FORWARD: "forward"}


def route_out(way: Journey) -> Item:
    """Return the routing decision before OUTPUT."""
    local = Hook.OUTPUT in way.visited
    if way.end is Place.ROUTE and not way.visited and not way.entered:
        return _end(way, Place.ROUTE, "route", came=True, boxed=True)
    return Item("route", Look.LIT if local else Look.DIM, reached=local)


def socket_in(way: Journey) -> Item:
    """Return who takes packets on this host."""
    return _end(way, Place.SOCKET, "socket", came=way.end is Place.SOCKET and not way.mark)


def socket_out(way: Journey) -> Item:
    """Return who makes packets on this host."""
    stuck = way.end is Place.ROUTE and not way.visited and not way.entered
    local = Hook.OUTPUT in way.visited or stuck
    return Item("socket", Look.LIT if local else Look.DIM, reached=local, boxed=False)


def _end(
    way: Journey, place: Place, text: str, caption: str = "", *, came: bool, boxed: bool = False
) -> Item:
    if way.end is place and way.mark:
        look = Look.DEAD if way.mark == DEAD_MARK else Look.PLAIN
        return Item(f"{text} {way.mark}", look, reached=True, boxed=boxed, closed=True)
    return Item(text, Look.LIT if came else Look.DIM, came, boxed, caption)


def _name(interface: str) -> str:
    """Return a name that takes one column a character."""
    name = clean_text(interface).encode("ascii", "replace").decode() or "wire"
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
