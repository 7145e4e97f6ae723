"""The topology of a lab as a picture: a value with boxes and wires, and its lines of text.

Namespaces stand in columns, by how many links they are away from the first one; a link joins boxes
of one column or of two that are side by side.  All places are cells of a terminal, from the top
left corner.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface
from itertools import pairwise

from ipttrace.lab.topology import End, Topology

GUTTER = 5
"""Cells between two columns, beside those that wires need."""
INSIDE = 3
"""Cells between the interfaces on the left and on the right of a box."""

UP, RIGHT, DOWN, LEFT = 1, 2, 4, 8
LINES = {
    UP: "│", DOWN: "│", UP | DOWN: "│",
    LEFT: "─", RIGHT: "─", LEFT | RIGHT: "─",
    RIGHT | DOWN: "┌", LEFT | DOWN: "┐", UP | RIGHT: "└", UP | LEFT: "┘",
    UP | RIGHT | DOWN: "├", UP | LEFT | DOWN: "┤",
    LEFT | RIGHT | DOWN: "┬", UP | LEFT | RIGHT: "┴", UP | RIGHT | DOWN | LEFT: "┼",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Box:
    """One namespace."""

    name: str
    rows: tuple[str, ...]
    """What stands in it, below its name."""
    x: int
    y: int
    width: int
    """With its frame."""

    @property
    def height(self) -> int:
        """With its frame; the name stands in the frame's first line."""
        return len(self.rows) + 2


@dataclass(frozen=True, slots=True)
class Wire:
    """One link, as the corners of its line: `((x, y), ...)`."""

    corners: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A topology."""

    boxes: tuple[Box, ...]
    wires: tuple[Wire, ...]

    @property
    def width(self) -> int:
        """In cells."""
        ends = [box.x + box.width for box in self.boxes]
        bends = [x + 1 for wire in self.wires for x, _ in wire.corners]
        return max([*ends, *bends], default=0)

    @property
    def height(self) -> int:
        """In lines."""
        return max((box.y + box.height for box in self.boxes), default=0)

    def lines(self) -> list[str]:
        """Return the picture as text."""
        strokes: dict[tuple[int, int], int] = {}
        texts: dict[tuple[int, int], str] = {}
        for box in self.boxes:
            right, bottom = box.x + box.width - 1, box.y + box.height - 1
            frame = (
                (box.x, box.y),
                (right, box.y),
                (right, bottom),
                (box.x, bottom),
                (box.x, box.y),
            )
            _stroke(strokes, frame)
            _write(texts, box.x + 2, box.y, f" {box.name} ")
            for number, row in enumerate(box.rows, 1):
                _write(texts, box.x + 2, box.y + number, row)
        for wire in self.wires:
            _stroke(strokes, wire.corners)
        return [
            "".join(
                texts.get((x, y)) or LINES.get(strokes.get((x, y), 0), " ")
                for x in range(self.width)
            ).rstrip()
            for y in range(self.height)
        ]


def draw(topology: Topology, width: int | None = None) -> Drawing:
    """Return the picture of a topology; a narrower one if the usual one is wider than `width`."""
    usual = _draw(topology, narrow=False)
    fits = width is None or usual.width <= width
    return usual if fits else _draw(topology, narrow=True)


def _draw(topology: Topology, *, narrow: bool) -> Drawing:
    columns = _columns(topology)
    place = {name: number for number, column in enumerate(columns) for name in column}
    rows = {name: _rows(topology, name, place, narrow=narrow) for name in topology.namespaces}
    tops = _tops(columns, rows)
    gutters = _gutters(topology, place, len(columns))
    boxes: dict[str, Box] = {}
    edges: list[tuple[int, int]] = []
    x = 0
    for column, gutter in zip(columns, gutters, strict=True):
        width = max(len(text) for name in column for text in (*rows[name].texts, name + "    ")) + 4
        for name in column:
            boxes[name] = Box(name, rows[name].texts, x, tops[name], width)
        edges.append((x, x + width - 1))
        x += width + (1 if narrow else GUTTER) + 2 * gutter
    for name, box in boxes.items():
        boxes[name] = Box(name, _spread(rows[name], box.width - 4), box.x, box.y, box.width)
    wires = tuple(_wires(topology, place, edges, tops, rows))
    return Drawing(tuple(boxes.values()), wires)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of a box: interfaces towards the left and the right, then what else there is."""

    sides: tuple[tuple[str, str], ...]
    rest: tuple[str, ...]
    ports: dict[str, int]
    """The row of each interface, from 1."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The rows at their least width."""
        return _joined(self.sides, 0) + self.rest


def _joined(sides: Sequence[tuple[str, str]], width: int) -> tuple[str, ...]:
    joined = []
    for left, right in sides:
        gap = INSIDE if left and right else 0
        joined.append(f"{left}{right.rjust(max(width - len(left), len(right) + gap))}")
    return tuple(joined)


def _spread(rows: _Rows, width: int) -> tuple[str, ...]:
    return _joined(rows.sides, width) + rows.rest


def _columns(topology: Topology) -> list[list[str]]:
    """Return the namespaces by their distance from the first one, or from one of its own part."""
    neighbours: dict[str, list[str]] = {name: [] for name in topology.namespaces}
    for near, far in topology.links:
        neighbours[near.namespace].append(far.namespace)
        neighbours[far.namespace].append(near.namespace)
    columns: list[list[str]] = []
    seen: set[str] = set()
    for first in topology.namespaces:
        level, depth = ([first] if first not in seen else []), 0
        while level:
            seen.update(level)
            if depth == len(columns):
                columns.append([])
            columns[depth] += level
            found = (other for name in level for other in neighbours[name])
            level, depth = (
                list(dict.fromkeys(name for name in found if name not in seen)),
                depth + 1,
            )
    return columns


def _rows(topology: Topology, name: str, place: dict[str, int], *, narrow: bool) -> _Rows:
    """Return the rows of a box; in a narrow one nothing stands to the right of anything."""
    left: list[str] = []
    right: list[str] = []
    ports: dict[str, int] = {}
    ends = [
        (place[other.namespace] < place[name], end)
        for link in topology.links
        for end, other in (link, link[::-1])
        if end.namespace == name
    ]
    for goes_left, end in sorted(ends, key=lambda each: not each[0]):
        side = left if goes_left else right
        if narrow and not goes_left:
            right += [""] * (len(left) - len(right))
        ports[end.interface] = len(side) + 1
        side += _end_rows(end, goes_left=goes_left)
    count = max(len(left), len(right))
    left += [""] * (count - len(left))
    right += [""] * (count - len(right))
    sides = tuple(zip(left, right, strict=True))
    return _Rows(sides, tuple(_rest(topology, name)), ports)


def _end_rows(end: End, *, goes_left: bool) -> list[str]:
    down = "" if end.up else " (down)"
    addresses = list(end.addresses)
    if not addresses:
        return [f"{end.interface}{down}"]
    first, *others = addresses
    if goes_left:
        indent = " " * (len(end.interface) + 1)
        return [f"{end.interface} {first}{down}", *(indent + other for other in others)]
    indent = " " * (len(end.interface) + 1)
    return [f"{first}{down} {end.interface}", *(other + indent for other in others)]


def _rest(topology: Topology, name: str) -> Iterator[str]:
    host = topology.namespaces[name]
    for bridge_name, bridge in host.bridges.items():
        addresses = "".join(f" {address}" for address in bridge.addresses)
        yield f"{bridge_name} [{' '.join(bridge.ports)}]{addresses}"
    for service in host.services:
        address = ip_interface(service.address).ip
        where = "" if address.is_unspecified else f" on {service.address}"
        how = "" if service.accepts else ", full" if service.full else ", accepts nothing"
        yield f"({service.protocol} {service.port}{where}{how})"


def _tops(columns: Sequence[Sequence[str]], rows: dict[str, _Rows]) -> dict[str, int]:
    tops: dict[str, int] = {}
    for column in columns:
        y = 0
        for name in column:
            tops[name] = y
            y += len(rows[name].texts) + 3
    return tops


def _gutters(topology: Topology, place: dict[str, int], count: int) -> list[int]:
    """Return how many wires run in the gap to the right of each column."""
    gutters = [0] * count
    for near, far in topology.links:
        gutters[min(place[near.namespace], place[far.namespace])] += 1
    return gutters


def _wires(
    topology: Topology,
    place: dict[str, int],
    edges: Sequence[tuple[int, int]],
    tops: dict[str, int],
    rows: dict[str, _Rows],
) -> Iterator[Wire]:
    used = [0] * len(edges)
    for link in topology.links:
        first, second = sorted(link, key=lambda end: place[end.namespace])
        column = place[first.namespace]
        track = edges[column][1] + 2 + 2 * used[column]
        used[column] += 1
        y1, y2 = (
            tops[end.namespace] + rows[end.namespace].ports[end.interface]
            for end in (first, second)
        )
        start = (edges[column][1], y1)
        same = place[second.namespace] == column
        end = (edges[column][1] if same else edges[column + 1][0], y2)
        yield Wire((start, (track, y1), (track, y2), end))


def _write(texts: dict[tuple[int, int], str], x: int, y: int, text: str) -> None:
    for offset, char in enumerate(text):
        texts[x + offset, y] = char


def _stroke(strokes: dict[tuple[int, int], int], corners: Sequence[tuple[int, int]]) -> None:
    """Draw a line from corner to corner: each cell gets the directions in which it goes on."""
    for (x1, y1), (x2, y2) in pairwise(corners):
        length = abs(x2 - x1) + abs(y2 - y1)
        if not length:
            continue
        dx, dy = (x2 - x1) // length, (y2 - y1) // length
        forth, back = {
            (1, 0): (RIGHT, LEFT), (-1, 0): (LEFT, RIGHT), (0, 1): (DOWN, UP), (0, -1): (UP, DOWN),
        }[dx, dy]  # fmt: skip
        for step in range(length):
            here = (x1 + dx * step, y1 + dy * step)
            there = (here[0] + dx, here[1] + dy)
            strokes[here] = strokes.get(here, 0) | forth
            strokes[there] = strokes.get(there, 0) | back
