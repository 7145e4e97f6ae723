"""The flow picture as SVG 1.1: a file that needs nothing else, readable in the dark and the light.

Lines are drawn, not written, so that they join in every font; colours are those of classes, dark
ones where the reader's system wants it, never in print.  Meaning is never in colour alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from html import escape
from itertools import groupby

from ipttrace.decode.text import clean_text
from ipttrace.path import PacketPath
from ipttrace.render.about import About, shown
from ipttrace.render.diagram import flow_picture
from ipttrace.render.picture import Look, Picture, Segment
from ipttrace.render.plain import mark, packet_line
from ipttrace.render.strokes import Weight, stroke
from ipttrace.render.table import columns
from ipttrace.render.text import fate_words
from ipttrace.result import TraceResult

COLUMN, ROW = 8.4, 18
"""Size of a cell; 14 pixels of a monospace font are 8.4 wide."""
BASELINE = 13.5
MARGIN = 16
WIDTH = 120
"""Columns of the picture."""

FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
LIGHT = {
    "ink": "#1f2328",
    "plain": "#1f2328",
    "lit": "#0b6e2c",
    "dim": "#68707a",
    "dead": "#b3141f",
    "changed": "#0a52b5",
    "selected": "#6b2fb3",
    "page": "#ffffff",
}
DARK = {
    "ink": "#e6edf3",
    "plain": "#e6edf3",
    "lit": "#56d364",
    "dim": "#8b949e",
    "dead": "#ff8a84",
    "changed": "#79c0ff",
    "selected": "#d2a8ff",
    "page": "#0d1117",
}
"""Each at least 4.5:1 on its page (WCAG 2.1, 1.4.3)."""


def _colours(palette: dict[str, str]) -> str:
    rules = [f".f-page{{fill:{palette['page']}}}.s-gap{{stroke:{palette['page']}}}"]
    for name, value in palette.items():
        if name != "page":
            rules.append(f".f-{name}{{fill:{value}}}.s-{name}{{stroke:{value}}}")
    return "".join(rules)


STYLE = (
    f".flow text{{font:14px {FONT};white-space:pre}}"
    ".flow .b{font-weight:bold}"
    ".flow path{fill:none;stroke-linecap:square;stroke-width:1.2}"
    ".flow path.heavy{stroke-width:2.6}.flow path.double{stroke-width:5}"
    ".flow path.s-gap{stroke-width:2.2}.flow path.dashed{stroke-dasharray:2 3.6;"
    "stroke-linecap:butt}"
    f"{_colours(LIGHT)}@media screen and (prefers-color-scheme:dark){{{_colours(DARK)}}}"
)
"""The style sheet of the pictures."""

Lines = list[tuple[str, str, float, float]]


def svg_file(result: TraceResult, about: About) -> bytes:
    """Return a whole file: the picture of each packet below its name, its fate below it."""
    pick = shown(result)
    hop = about.hop if len(pick.whole) == 1 else None
    body, width, top = "", 0.0, float(MARGIN)
    for path in pick.whole:
        part, wide, high = _captioned(path, hop, top)
        body, width, top = body + part, max(width, wide), top + high
    footer = f"{about.title}   {about.date}   {about.tool}"
    if pick.left_out:
        footer += f"   {pick.left_out:,} packets more are not shown"
    body += _text(footer, MARGIN, top + BASELINE, "dim")
    size = max(width, _wide(footer)) + 2 * MARGIN, top + ROW + MARGIN
    label = "; ".join(f"{packet_line(path)}: {fate_words(path)}" for path in pick.whole[:3])
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        + _opening(*size, label or "no packet was traced")
        + f"<style>{STYLE}</style>"
        + f'<rect class="f-page" width="{size[0]:g}" height="{size[1]:g}"/>{body}</svg>\n'
    ).encode("utf-8", "replace")


def svg_picture(path: PacketPath, hop: int | None = None, width: int = WIDTH) -> str:
    """Return the picture alone as an element for a page that has `STYLE`."""
    picture = flow_picture(path, width, hop)
    size = picture.width * COLUMN, float(picture.height * ROW)
    label = f"{packet_line(path)}: {fate_words(path)}"
    return f"{_opening(*size, label)}{_drawn(picture, 0, 0)}</svg>"


def _captioned(path: PacketPath, hop: int | None, top: float) -> tuple[str, float, float]:
    """Return a packet's part of a file, its width and its height."""
    picture = flow_picture(path, WIDTH, hop)
    title, fate = packet_line(path), f"{mark(path)} {fate_words(path)}"
    look = {">": "lit", "x": "dead"}.get(mark(path), "ink")
    below = top + (picture.height + 2) * ROW
    parts = (
        _text(title, MARGIN, top + BASELINE, "ink", bold=True),
        _drawn(picture, MARGIN, top + 1.5 * ROW),
        _text(fate, MARGIN, below + BASELINE, look, bold=True),
    )
    width = max(picture.width * COLUMN, _wide(title), _wide(fate))
    return "".join(parts), width, (picture.height + 4.5) * ROW


def _opening(width: float, height: float, label: str) -> str:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" class="flow" role="img"'
        f' width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}">'
        f"<title>{_escaped(label)}</title>"
    )


def _wide(text: str) -> float:
    return columns(clean_text(text)) * COLUMN


def _escaped(text: str) -> str:
    return escape(clean_text(text))


def _text(text: str, left: float, base: float, look: str, *, bold: bool = False) -> str:
    """Return a text that takes exactly its columns, whatever the font."""
    shown_as = clean_text(text)
    classes = f"f-{look} b" if bold else f"f-{look}"
    return (
        f'<text class="{classes}" x="{left:g}" y="{base:g}" textLength="{_wide(text):g}"'
        f' lengthAdjust="spacingAndGlyphs">{escape(shown_as)}</text>'
    )


def _drawn(picture: Picture, left: float, top: float) -> str:
    """Return the lines of a picture, then its words on them."""
    lines: dict[tuple[Look, Weight], list[str]] = defaultdict(list)
    words: list[str] = []
    for row, line in enumerate(picture.lines):
        y, column = top + row * ROW, 0
        for segment in line:
            x = left + column * COLUMN
            for key, path in _strokes(segment, x, y):
                lines[key].append(path)
            words += _words(segment, x, y)
            column += len(segment.text)
    return "".join([*_paths(lines), *words])


def _paths(lines: dict[tuple[Look, Weight], list[str]]) -> Iterator[str]:
    for (look, weight), parts in lines.items():
        data = "".join(parts)
        yield f'<path class="s-{look} {weight}" d="{data}"/>'
        if weight is Weight.DOUBLE:
            yield f'<path class="s-gap" d="{data}"/>'


def _strokes(segment: Segment, x: float, y: float) -> Iterable[tuple[tuple[Look, Weight], str]]:
    """Yield the lines of a segment as path data: runs of one character are one line."""
    column = 0
    for char, run in groupby(segment.text):
        length = len(list(run))
        drawn = stroke(char)
        if drawn is not None:
            first = x + column * COLUMN
            key = segment.look, drawn.weight
            if drawn.sides == {"left", "right"}:
                yield key, f"M{first:g} {y + ROW / 2:g}h{length * COLUMN:g}"
            else:
                for each in range(length):
                    yield key, _arms(drawn.sides, first + each * COLUMN, y)
        column += length


def _arms(sides: frozenset[str], x: float, y: float) -> str:
    middle = f"M{x + COLUMN / 2:g} {y + ROW / 2:g}"
    ends = {
        "left": f"h{-COLUMN / 2:g}",
        "right": f"h{COLUMN / 2:g}",
        "up": f"v{-ROW / 2:g}",
        "down": f"v{ROW / 2:g}",
    }
    return "".join(middle + ends[side] for side in sorted(sides))


def _words(segment: Segment, x: float, y: float) -> Iterator[str]:
    """Yield the texts between lines and spaces, each at its column."""
    column = 0
    for is_text, run in groupby(segment.text, key=lambda char: stroke(char) is None):
        text = "".join(run)
        bare = text.strip(" ")
        if is_text and bare:
            left = x + (column + len(text) - len(text.lstrip(" "))) * COLUMN
            bold = segment.look in (Look.DEAD, Look.CHANGED, Look.SELECTED)
            yield _text(bare, left, y + BASELINE, segment.look, bold=bold)
        column += len(text)
