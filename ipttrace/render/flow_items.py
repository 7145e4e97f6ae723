"""What stands in one line of the flow picture: stations, routing, and the ends of the way."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ipttrace.decode.text import clean_text
from ipttrace.netfilter import Hook
from ipttrace.render.journey import Journey
from ipttrace.render.picture import Look
from ipttrace.render.stations import CONNTRACK, DEAD_MARK, Station
from ipttrace.render.waypoints import Place

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
        bare=station.ruled is False and not station.caption,
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


def lane(way: Journey, hook: Hook | None, selected: int | None) -> list[Item]:
    """Return what stands in a hook's lane: its stations, and the places before and behind them."""
    here = [station_item(each, selected) for each in way.lanes[hook].stations]
    match hook:
        case Hook.INGRESS:
            return [wire_in(way, selected), *here]
        case Hook.PREROUTING if Hook.INGRESS in way.lanes:
            return [*behind_ingress(way), *here, route_in(way, selected)]
        case Hook.PREROUTING:
            return [wire_in(way, selected), *here, route_in(way, selected)]
        case Hook.INPUT:
            return [*here, socket_in(way, selected)]
        case Hook.OUTPUT:
            return [socket_out(way), route_out(way, selected), *here]
        case Hook.POSTROUTING if Hook.EGRESS in way.lanes:
            return here
        case Hook.POSTROUTING | Hook.EGRESS:
            return [*here, wire_out(way, selected)]
    return here


def wire_in(way: Journey, selected: int | None) -> Item:
    """Return where packets come in."""
    name = "lo" if way.loops else way.entered
    return _place(way, Place.WIRE_IN, _name(name), selected, boxed=False)


def behind_ingress(way: Journey) -> list[Item]:
    """Return the mark of a packet that was lost between ingress and PREROUTING."""
    if way.end is not Place.BEHIND_INGRESS:
        return []
    return [_place(way, way.end, "", None, boxed=False)]


def wire_out(way: Journey, selected: int | None) -> Item:
    """Return where packets leave."""
    name = "lo" if way.loops else way.left
    item = _place(way, Place.WIRE_OUT, _name(name), selected, boxed=False)
    return replace(item, caption="contained" if way.contained else "")


def route_in(way: Journey, selected: int | None) -> Item:
    """Return the routing decision after PREROUTING."""
    item = _place(way, Place.ROUTE, "route", selected, boxed=True)
    return replace(item, caption=way.decision, indent=1 if way.loops else 5)


def route_out(way: Journey, selected: int | None) -> Item:
    """Return the routing decision before OUTPUT."""
    return _place(way, Place.ROUTE_OUT, "route", selected, boxed=True)


def socket_in(way: Journey, selected: int | None) -> Item:
    """Return who takes packets on this host."""
    return _place(way, Place.SOCKET, "socket", selected, boxed=False)


def socket_out(way: Journey) -> Item:
    """Return who makes packets on this host."""
    made = Place.ROUTE_OUT in way.reached or way.end is Place.ROUTE_OUT
    return Item("socket", Look.LIT if made else Look.DIM, reached=made, boxed=False)


def _place(way: Journey, place: Place, name: str, selected: int | None, *, boxed: bool) -> Item:
    """Return a place between hooks: lit where the packet was there, with a mark where it ended."""
    ended = way.mark if way.end is place else ""
    came = bool(ended) or place in way.reached
    look = Look.LIT if came else Look.DIM
    if ended:
        look = Look.DEAD if ended == DEAD_MARK else Look.PLAIN
    if selected is not None and selected in way.hops.get(place, ()):
        look = Look.SELECTED
    return Item(f"{name} {ended}".strip(), look, came, boxed, closed=bool(ended))


def _name(interface: str) -> str:
    """Return a name that takes one column a character."""
    name = clean_text(interface).encode("ascii", "replace").decode() or "wire"
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
