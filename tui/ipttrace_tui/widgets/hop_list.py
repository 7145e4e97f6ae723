"""The list of one packet's hops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType

from ipttrace_tui.view_model import HopRow, Tone, cut_rule
from ipttrace_tui.widgets.row_list import RowList
from ipttrace_tui.widgets.toned import fitted, plain_text, tone

LEAST_TEXT = 14
"""Columns below which a rule's text says less than its target."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The widths of the columns, one space apart."""

    table: int
    chain: int
    place: int
    text: int
    verdict: int
    changes: int
    counter: int


class HopList(RowList):
    """One line a hop: table, chain, rule, verdict, what changed, and the counter."""

    BORDER_TITLE = "hops"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,g", "app.rule", "its rule", tooltip="show the hop's rule in its chain"),
    ]
    empty = "no hop was reported"

    def __init__(self) -> None:
        super().__init__()
        self._rows: Sequence[HopRow] = ()

    def show(self, rows: Sequence[HopRow], cursor: int | None, *, chosen: bool) -> None:
        """Show these hops; `chosen` tells an empty way from no packet at all."""
        self._rows = rows
        self.empty = HopList.empty if chosen else ""
        self.changed(cursor)

    def count(self) -> int:
        """Return the number of hops."""
        return len(self._rows)

    def line(self, index: int, width: int) -> Text:
        """Return a hop's line."""
        row, columns = self._rows[index], columns_for(self._rows, width)
        text = plain_text(fitted(row.table, columns.table) + " ", tone(self, _muted(row.tone)))
        text.append(fitted(row.chain, columns.chain) + " ", tone(self, _muted(row.tone)))
        text.append(fitted(row.place, columns.place) + " ", tone(self, _strong(row.tone)))
        if columns.text >= LEAST_TEXT:
            rule = cut_rule(row.text, columns.text)
            text.append(fitted(rule, columns.text) + " ", tone(self, _muted(row.tone)))
        if columns.text < LEAST_TEXT and not (row.verdict or row.changes):
            # A route, a socket: what is said of it has the room of verdict and changes.
            return text.append(fitted(row.text, width - text.cell_len), tone(self, row.tone))
        verdict = f"{row.verdict} ✗" if row.tone is Tone.BAD else row.verdict
        text.append(fitted(verdict, columns.verdict) + " ", tone(self, row.tone))
        if columns.changes:
            said = columns.text >= LEAST_TEXT or row.target.upper() == row.verdict
            short = "" if said else row.target
            name = Tone.CHANGED if row.changes else Tone.MUTED
            text.append(fitted(row.changes or short, columns.changes) + " ", tone(self, name))
        text.append(row.counter.rjust(columns.counter), tone(self, Tone.MUTED))
        return text


def _muted(row: Tone) -> Tone:
    return Tone.MUTED if row is Tone.MUTED else Tone.PLAIN


def _strong(row: Tone) -> Tone:
    return Tone.MUTED if row is Tone.MUTED else Tone.STRONG


def columns_for(rows: Sequence[HopRow], width: int) -> Columns:
    """Return widths that show the most of these rows in `width` columns."""
    table = _widest([row.table for row in rows], 12)
    chain = _widest([row.chain for row in rows], 16)
    place = _widest([row.place for row in rows], 6)
    verdict = _widest(
        [f"{row.verdict} ✗" if row.tone is Tone.BAD else row.verdict for row in rows], 8
    )
    changes = _widest([row.changes for row in rows], max(10, width // 4))
    counter = _widest([row.counter for row in rows], 7)
    room = width - table - chain - place - verdict - changes - counter - 6
    if room >= LEAST_TEXT:
        text = max(LEAST_TEXT, _widest([row.text for row in rows], room))
        changes = _widest([row.changes for row in rows], changes + room - text)
        room = text
        return Columns(table, chain, place, room, verdict, changes, counter)
    return Columns(table, chain, place, 0, verdict, max(0, room + changes + 1), counter)


def _widest(words: Sequence[str], most: int) -> int:
    return min(most, max(map(len, words), default=0))
