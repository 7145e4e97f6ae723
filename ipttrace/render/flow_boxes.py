"""The wide flow picture: a box a table, the ways in, through and out as three rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ipttrace.netfilter import Hook
from ipttrace.render import flow_items as items
from ipttrace.render.flow_items import Item
from ipttrace.render.journey import Journey
from ipttrace.render.picture import Canvas, Look, Picture
from ipttrace.render.waypoints import Place

WIDEST_GAP = 4
"""Columns between two boxes."""


@dataclass(frozen=True, slots=True)
class Strokes:
    """The characters of a box: corners, level and upright, and where the way enters and leaves."""

    corners: str
    level: str
    upright: str
    enter: str
    leave: str


LIGHT = Strokes("┌┐└┘", "─", "│", "┤", "├")
HEAVY = Strokes("┏┓┗┛", "━", "┃", "┫", "┣")
DOUBLE = Strokes("╔╗╚╝", "═", "║", "╣", "╠")
STROKES = {Look.SELECTED: DOUBLE, Look.DIM: LIGHT, Look.PLAIN: LIGHT}


@dataclass(frozen=True, slots=True)
class Section:
    """A hook and what is drawn for it."""

    name: str
    items: Sequence[Item]
    on: bool
    passed: bool


@dataclass(frozen=True, slots=True)
class Map:
    """The sections of the rows: the way in, through, up, from here, and out."""

    into: tuple[Section, ...]
    """INGRESS, where it has chains, and PREROUTING."""
    forward: Section
    up: Section
    output: Section
    out: tuple[Section, ...]
    """POSTROUTING, and EGRESS, where it has chains."""
    selected_lo: bool = False
    """The hop that is looked at is the way over lo."""


def draw(way: Journey, width: int, selected: int | None) -> Picture | None:
    """Return the picture, or None if these stations do not fit into `width` columns."""
    if None in way.lanes:
        return None
    hooks = {hook: _section(way, hook, selected) for hook in way.lanes if hook is not None}
    sections = Map(
        _some(hooks, Hook.INGRESS, Hook.PREROUTING),
        hooks[Hook.FORWARD],
        hooks[Hook.INPUT],
        hooks[Hook.OUTPUT],
        _some(hooks, Hook.POSTROUTING, Hook.EGRESS),
        _is_at_wire(way, selected),
    )
    painter = _painter_for(sections, way, width)
    if painter is None:
        return None
    painter.loop(sections) if way.loops else painter.map(sections)
    return painter.canvas.picture()


def _some(hooks: dict[Hook, Section], *names: Hook) -> tuple[Section, ...]:
    return tuple(hooks[name] for name in names if name in hooks)


def _is_at_wire(way: Journey, selected: int | None) -> bool:
    return selected in (*way.hops.get(Place.WIRE_IN, ()), *way.hops.get(Place.WIRE_OUT, ()))


def _section(way: Journey, hook: Hook, selected: int | None) -> Section:
    here, lane = items.lane(way, hook, selected), way.lanes[hook]
    if not here[0].boxed:
        here[0] = _first(here[0])
        if way.loops and hook in (Hook.INGRESS, Hook.PREROUTING):
            del here[0]
    if not here[-1].boxed:
        here[-1] = _finish(here[-1])
        if way.loops and hook in (Hook.POSTROUTING, Hook.EGRESS):
            del here[-1]
    return Section(hook.value, here, lane.met or lane.passed, lane.passed)


def _first(item: Item) -> Item:
    return replace(item, text=f"{item.text} ")


def _finish(item: Item) -> Item:
    """Return the end of a way; brackets take no more columns than its arrow."""
    if item.look is Look.SELECTED:
        return replace(item, text=f"[{item.text}]")
    return replace(item, text=f"{'▶' if item.reached else '▷'} {item.text}")


def _painter_for(sections: Map, way: Journey, width: int) -> Painter | None:
    for gap in range(WIDEST_GAP, 0, -1):
        painter = Painter(Canvas(), gap, width)
        if painter.needed(sections, loops=way.loops) <= width:
            return painter
    return None


@dataclass(frozen=True, slots=True)
class Painter:
    """Draws rows of boxes that are `gap` columns apart."""

    canvas: Canvas
    gap: int
    width: int

    def needed(self, sections: Map, *, loops: bool) -> int:
        """Return the columns that the longest row takes."""
        into = self.length(*sections.into, sections.up)
        if loops:
            out = self.length(sections.output, *sections.out)
            return max(into + 2, out) + self.gap + 1
        return max(into, self.merge_column(sections) + self.gap + 1 + self.length(*sections.out))

    def length(self, *sections: Section) -> int:
        """Return the columns of these sections in one row."""
        widths = [_columns(item) for section in sections for item in section.items]
        return sum(widths) + self.gap * (len(widths) - 1)

    def merge_column(self, sections: Map) -> int:
        """Return where the way through joins the way out."""
        through = self.fork_column(sections) + 2 * self.gap + 1
        through += self.length(sections.forward)
        return max(through, self.length(sections.output) + self.gap)

    def fork_column(self, sections: Map) -> int:
        """Return where the way through leaves the way in: below the middle of `route`."""
        route = sections.into[-1].items[-1]
        return self.length(*sections.into) - _columns(route) // 2 - 1

    def map(self, sections: Map) -> None:
        """Draw the whole map: in, through, out."""
        fork, merge = self.fork_column(sections), self.merge_column(sections)
        self.row(0, 0, *sections.into, sections.up)
        end = self.row(8, 0, sections.output)
        joined, tail = sections.out[0].on, merge + 1 + self.gap
        self.line(10, end, merge, on=joined and sections.output.passed)
        self.row(8, tail, *sections.out)
        self.line(10, merge + 1, tail, on=joined)
        self.through(fork, merge, sections.forward)
        self.cell(10, merge, "┻" if joined else "┴", on=joined)
        self.notes(4, 0, *sections.into, sections.up)
        self.notes(12, 0, sections.output)
        self.notes(8, fork + self.gap + 1, sections.forward)
        self.notes(12, tail, *sections.out)

    def through(self, fork: int, merge: int, forward: Section) -> None:
        """Draw FORWARD between the fork and the merge."""
        look = Look.LIT if forward.on else Look.DIM
        strokes = HEAVY if forward.on else LIGHT
        self.canvas.down(fork, range(4, 6), strokes.upright, look)
        self.cell(3, fork, "┳" if forward.on else "┬", on=forward.on)
        self.cell(6, fork, strokes.corners[2], on=forward.on)
        self.canvas.text(6, fork - len("FORWARD "), "FORWARD", look)
        self.line(6, fork + 1, fork + 1 + self.gap, on=forward.on)
        end = self.boxes(5, fork + 1 + self.gap, forward.items)
        out = forward.passed
        self.line(6, end, merge, on=out)
        strokes, look = (HEAVY, Look.LIT) if out else (LIGHT, Look.DIM)
        self.canvas.text(6, merge, strokes.corners[1], look)
        self.canvas.down(merge, range(7, 10), strokes.upright, look)

    def loop(self, sections: Map) -> None:
        """Draw a packet that leaves by lo and comes in again: two rows and the way back."""
        out, into = (sections.output, *sections.out), (*sections.into, sections.up)
        end = self.row(0, 0, *out)
        self.row(6, 2, *into)
        right = max(end, 2 + self.length(*into)) + self.gap
        self.line(2, end, right, on=True)
        self.canvas.text(2, right, "┓", Look.LIT)
        self.canvas.down(right, range(3, 5), "┃", Look.LIT)
        self.canvas.text(5, 0, "┏" + "━" * (right - 1) + "┛", Look.LIT)
        word, look = ("[by lo]", Look.SELECTED) if sections.selected_lo else (" by lo ", Look.LIT)
        self.canvas.text(5, right // 2 - 3, word, look)
        self.canvas.down(0, range(6, 8), "┃", Look.LIT)
        self.canvas.text(8, 0, "┗━", Look.LIT)
        self.notes(4, 0, *out)
        self.notes(10, 2, *into)

    def row(self, top: int, column: int, *sections: Section) -> int:
        """Draw boxes with their hooks' names above; return the column after."""
        free = 0
        for section in sections:
            if section is not sections[0]:
                self.line(top + 2, column, column + self.gap, on=section.items[0].reached)
                column += self.gap
            named = next((i for i, item in enumerate(section.items) if item.boxed), 0)
            before = sum(_columns(item) + self.gap for item in section.items[:named])
            look = Look.LIT if section.on else Look.DIM
            start = max(column + before, free)
            self.canvas.text(top, start, section.name, look)
            free = start + len(section.name) + 1
            column = self.boxes(top + 1, column, section.items)
        return column

    def notes(self, row: int, column: int, *sections: Section) -> None:
        """Write what was changed below each box."""
        for item in (item for section in sections for item in section.items):
            if item.caption:
                below = row if item.boxed else row - 1
                look = Look.PLAIN if item.look is Look.LIT else Look.CHANGED
                self.canvas.note(below, column + item.indent, item.caption, look, self.width)
            column += _columns(item) + self.gap

    def boxes(self, top: int, column: int, line: Sequence[Item]) -> int:
        """Draw items from `column` on, joined by lines; return the column after the last.

        Brackets round the first one take no more columns than it has with its line.
        """
        start = column
        for index, item in enumerate(line):
            if index:
                self.line(top + 1, column, column + self.gap, on=item.reached)
                column += self.gap
            if item.boxed:
                self.box(top, column, item, leads=index + 1 < len(line))
            else:
                self.canvas.text(top + 1, column, item.text, item.look)
            column += _columns(item)
        if line and line[0].look is Look.SELECTED and not line[0].boxed:
            self.canvas.text(top + 1, start, f"[{line[0].text.strip()}]", Look.SELECTED)
        return column

    def box(self, top: int, column: int, item: Item, *, leads: bool) -> None:
        """Draw one box."""
        strokes, inner = STROKES.get(item.look, HEAVY), len(item.text)
        level = strokes.level * inner
        top_left, top_right, low_left, low_right = tuple(strokes.corners)
        leave = strokes.upright if item.closed and leads else strokes.leave
        self.canvas.text(top, column, f"{top_left}{level}{top_right}", item.look)
        self.canvas.text(top + 1, column, f"{strokes.enter}{item.text}{leave}", item.look)
        self.canvas.text(top + 2, column, f"{low_left}{level}{low_right}", item.look)

    def line(self, row: int, start: int, stop: int, *, on: bool) -> None:
        """Draw the way from one item to the next: broken where the packet did not go."""
        self.canvas.text(row, start, ("━" if on else "┄") * (stop - start), _way(on=on))

    def cell(self, row: int, column: int, char: str, *, on: bool) -> None:
        """Draw one character of the way."""
        self.canvas.text(row, column, char, _way(on=on))


def _way(*, on: bool) -> Look:
    return Look.LIT if on else Look.DIM


def _columns(item: Item) -> int:
    return len(item.text) + (2 if item.boxed else 0)
