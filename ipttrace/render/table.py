"""Aligned lines of a hop or rule list, cut to a width: only a rule's text is ever cut."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from unicodedata import combining, east_asian_width

from ipttrace.render.style import Style, paint

GAP = "  "
"""Between columns, and before the first."""
RULE_MIN = 24
"""Columns that a rule's text keeps; longer effects move to lines of their own."""
UNCUT = 100
"""The widest column of rules in a pipe or a file; longer rules push their effects to the right."""
ELLIPSIS = "…"
NOISE = re.compile(r"(?<=\d)/(?:32|128|0xffffffff)(?= |$)|(?<=-p tcp) -m tcp|(?<=-p udp) -m udp")
OPTION = re.compile(r"(?<!!) (?=! -|-)")
"""Where an option begins; a `!` stays with its own."""
TARGET = re.compile(r"^(.*) (-[jg] \S+)( .*)?$")


@dataclass(frozen=True, slots=True)
class Row:
    """One hop or rule, in words; all of them cleaned already."""

    lead: tuple[str, ...]
    """Table and chain, with the backend before them where both are there."""
    rule: str = ""
    effect: tuple[str, ...] = ()
    """Verdicts and changes, one each."""
    counter: str = ""
    rule_style: Style = Style.PLAIN
    effect_style: Style = Style.CHANGE


def columns(text: str) -> int:
    """Return how many cells of a terminal a text takes (Unicode Standard Annex 11)."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def pad(text: str, width: int) -> str:
    """Return `text` with spaces up to `width` cells."""
    return text + " " * (width - columns(text))


def cut(text: str, width: int) -> str:
    """Return as much of `text` as fits `width` cells, with an ellipsis where it ends."""
    if columns(text) <= width:
        return text
    while text and columns(text) >= width:
        text = text[:-1]
    return text + ELLIPSIS


def cut_rule(text: str, width: int) -> str:
    """Return a rule's text cut to `width` cells.

    What says nothing goes first (full masks, `-m tcp` after `-p tcp`), then the target's options,
    whose work the changes show, then the front of the criteria: the last one tells the most.
    """
    if columns(text) > width:
        text = NOISE.sub("", text)
    found = TARGET.match(text)
    if columns(text) <= width or found is None:
        return cut(text, width)
    target = found[2] + (f" {ELLIPSIS}" if found[3] else "")
    room = width - columns(target) - 1
    if room < RULE_MIN // 3:
        return cut(text, width)
    return f"{cut_front(found[1], room)} {target}"


def cut_front(text: str, width: int) -> str:
    """Return the last options of `text` that fit `width` cells, with an ellipsis before them."""
    if columns(text) <= width:
        return text
    for option in OPTION.finditer(text):
        shorter = f"{ELLIPSIS} {text[option.end() :]}"
        if columns(shorter) <= width:
            return shorter
    return cut(text, width)


def wrap(text: str, width: int | None, indent: str = GAP) -> list[str]:
    """Return `text` in lines of at most `width` columns; words are never cut."""
    if width is None:
        return [indent + text]
    return textwrap.wrap(
        text,
        max(width, 20),
        initial_indent=indent,
        subsequent_indent=indent + GAP,
        break_long_words=False,
        break_on_hyphens=False,
    )


def table_lines(rows: Sequence[Row], *, width: int | None, color: bool) -> list[str]:
    """Return the rows as lines of at most `width` columns; None: as long as they are."""
    if not rows:
        return []
    leads = tuple(
        max(map(columns, cells)) for cells in zip_longest(*(row.lead for row in rows), fillvalue="")
    )
    counter = max(columns(row.counter) for row in rows)
    longest = max(columns(row.rule) for row in rows)
    if width is None:
        effect = _effect_width(rows, sys.maxsize)
        layout = _Layout(leads, min(longest, UNCUT), effect, counter, width, color)
    else:
        room = width - sum(len(GAP) + lead for lead in leads) - len(GAP)
        room -= len(GAP) + counter if counter else 0
        effect = _effect_width(rows, room - len(GAP) - RULE_MIN)
        left = max(room - (len(GAP) + effect if effect else 0), RULE_MIN)
        layout = _Layout(leads, min(left, longest), effect, counter, width, color)
    return [line for row in rows for line in layout.lines(row)]


def _effect_width(rows: Sequence[Row], most: int) -> int:
    lengths = [columns(", ".join(row.effect)) for row in rows]
    return max((length for length in lengths if length <= most), default=0)


@dataclass(frozen=True, slots=True)
class _Layout:
    leads: tuple[int, ...]
    rule: int
    effect: int
    counter: int
    width: int | None
    color: bool

    def lines(self, row: Row) -> Iterator[str]:
        effect = ", ".join(row.effect)
        fits = columns(effect) <= self.effect
        lead = "".join(
            GAP + pad(cell, width)
            for cell, width in zip_longest(row.lead, self.leads, fillvalue="")
            if isinstance(width, int)
        )
        if not (fits or row.rule or row.counter):
            yield from self._below(row, lead + GAP)
            return
        rule = cut_rule(row.rule, self.rule) if self.width is not None else row.rule
        cells = [self._cell(rule, self.rule, row.rule_style)]
        if self.effect:
            cells.append(self._cell(effect if fits else "", self.effect, row.effect_style))
        cells.append(row.counter.rjust(self.counter))
        yield f"{lead}{GAP}{GAP.join(cells)}".rstrip()
        if not fits:
            yield from self._below(row, GAP + " " * columns(lead))

    def _cell(self, text: str, width: int, style: Style) -> str:
        return paint(text, style, self.color) + pad("", width - columns(text))

    def _below(self, row: Row, indent: str) -> Iterator[str]:
        for part in row.effect:
            room = None if self.width is None else self.width - columns(indent)
            for line in wrap(part, room, ""):
                yield indent + paint(line, row.effect_style, self.color)
                indent = " " * columns(indent)
