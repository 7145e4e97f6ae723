"""The narrow flow picture: one line a hook, wrapped where it is too long."""

from __future__ import annotations

from collections.abc import Iterable

from ipttrace.netfilter import Hook
from ipttrace.render import flow_items as items
from ipttrace.render.flow_items import Item
from ipttrace.render.journey import Journey
from ipttrace.render.picture import Canvas, Look, Picture
from ipttrace.render.stations import Lane
from ipttrace.render.waypoints import Place

ORDER = (
    Hook.INGRESS,
    Hook.PREROUTING,
    Hook.INPUT,
    Hook.FORWARD,
    Hook.OUTPUT,
    Hook.POSTROUTING,
    Hook.EGRESS,
    None,
)
LOOP = (
    Hook.OUTPUT,
    Hook.POSTROUTING,
    Hook.EGRESS,
    Hook.INGRESS,
    Hook.PREROUTING,
    Hook.INPUT,
    None,
)
ENDS = {
    Place.WIRE_IN: Hook.PREROUTING,
    Place.BEHIND_INGRESS: Hook.PREROUTING,
    Place.ROUTE: Hook.PREROUTING,
    Place.SOCKET: Hook.INPUT,
    Place.ROUTE_OUT: Hook.OUTPUT,
    Place.WIRE_OUT: Hook.POSTROUTING,
}
"""The lane in which a place between hooks is drawn."""
MARGIN = 14
"""Columns of the hook's name."""


def draw(
    way: Journey, width: int, selected: int | None, *, tight: bool = False, whole: bool = True
) -> Picture:
    """Return the picture; `width` in columns, `tight` without spaces between the tables.

    If it is not to be the `whole` map, hooks are left out in which the packet was not.
    """
    canvas, row = Canvas(), 0
    for hook in _shown(way, whole=whole):
        on = _is_on(way.lanes[hook])
        name = hook.value if hook else "hook unknown"
        canvas.text(row, 0, f"{'●' if on else '○'} {name}", Look.LIT if on else Look.DIM)
        row = _line(canvas, row, items.lane(way, hook, selected), width, tight=tight)
    return canvas.picture()


def _shown(way: Journey, *, whole: bool) -> Iterable[Hook | None]:
    hooks = [hook for hook in (LOOP if way.loops else ORDER) if hook in way.lanes]
    met = [hook for hook in hooks if _is_on(way.lanes[hook]) or _ends_at(way, hook)]
    return hooks if whole or not met else met


def _is_on(lane: Lane) -> bool:
    return lane.met or lane.passed


def _ends_at(way: Journey, hook: Hook | None) -> bool:
    """Tell whether the way ends in a lane that is not lit: before any of its tables."""
    return hook is ENDS.get(way.end, Place.STATION)


def _line(canvas: Canvas, row: int, line: list[Item], width: int, *, tight: bool) -> int:
    """Draw a lane from `row` on; return the row below it."""
    column, fresh = MARGIN, True
    for index, item in enumerate(line):
        join = ("━▶ " if item.reached else "┄▷ ") if index == 0 else _join(item, tight=tight)
        word, note = _word(item), f" ({item.caption})" if item.caption else ""
        if not fresh and column + len(join) + len(word) + len(note) > width:
            row, column = row + 1, MARGIN
            join = join.lstrip()
        if index or item.boxed:
            canvas.text(row, column, join, Look.LIT if item.reached else Look.DIM)
            column += len(join)
        canvas.text(row, column, word, item.look)
        column += len(word)
        room = max(0, width - column)
        note = note if len(note) <= room else note[: max(0, room - 1)] + "…" * bool(room)
        canvas.text(row, column, note, Look.PLAIN if item.look is Look.LIT else Look.CHANGED)
        column, fresh = column + len(note), False
    return row + 1


def _join(item: Item, *, tight: bool) -> str:
    way = ("━" if item.reached else "┄") if item.boxed else ("━▶" if item.reached else "┄▷")
    return way if tight else f" {way} "


def _word(item: Item) -> str:
    if item.look is Look.SELECTED:
        return f"[{item.text}]"
    return f"({item.text})" if item.bare else item.text
