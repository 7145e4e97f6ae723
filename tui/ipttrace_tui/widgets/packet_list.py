"""The list of packets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType

from ipttrace.decode.text import clean_text
from ipttrace_tui.packet_log import Entry
from ipttrace_tui.packet_table import PacketTable
from ipttrace_tui.view_model import OUTCOMES, PacketRow, Tone, entry_row, protocol_column
from ipttrace_tui.widgets.row_list import RowList
from ipttrace_tui.widgets.toned import fitted, plain_text, tone

WIDE = 96
"""Columns from which on the time and the cause are shown, too."""
TIME, CAUSE = 15, 22
LONGEST_NETNS = 15
LEAST_WAY = 30
"""Columns for who sends to whom, from which on namespaces are named."""


class PacketList(RowList):
    """One line a packet: who to whom, and its fate."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("end,G", "last", "the last packet, and each newer one as it comes", show=False),
    ]
    BORDER_TITLE = "packets"
    waiting = "waiting for the first packet …"

    def __init__(self) -> None:
        super().__init__()
        self._table = PacketTable()
        self._marks: Mapping[int, str] = {}
        self._digits, self._protocol, self._fate = 1, 3, 11
        self._length = 0
        self.follows = False
        """Whether the newest packet is to be selected: the user has gone to the last one."""

    def show(self, table: PacketTable, *, over: bool, anew: bool) -> None:
        """Show the table's packets; `over` tells an empty run from one that has just begun.

        Unless `anew` the rows shown before are as they were.
        """
        self._table = table
        before, self._length = self._length, len(table)
        self.empty = self._why_empty(over=over)
        widths = self._widths()
        same = widths == (self._digits, self._protocol, self._fate)
        self._digits, self._protocol, self._fate = widths
        self.entitle(*self._titles())
        if anew or not same:
            self.changed(table.cursor)
        else:
            # The last row may have been joined to the next one.
            self.grown(max(0, before - self._several), table.cursor)

    def action_last(self) -> None:
        """Move the cursor to the last packet, and to each newer one as it comes."""
        self.follows = True
        super().action_last()

    def go(self, index: int) -> None:
        """Move the cursor; away from the last packet newer ones are not followed."""
        self.follows = self.follows and index >= self.count() - 1
        super().go(index)

    def mark(self, marks: Mapping[int, str]) -> None:
        """Show letters before some packets, by their ids."""
        self._marks = marks
        self.refresh()

    def _why_empty(self, *, over: bool) -> str:
        if self._table.filter and self._table.total:
            return "no packet passes the filter"
        return "no packet was traced" if over else self.waiting

    def _titles(self) -> tuple[str, str]:
        """Return the title and what stands at its right, in the longest words that fit."""
        title = "packets by journey" if self._several else "packets"
        pairs = [(name, said) for name in (title, "packets") for said in self._counts()]
        room = self.content_size.width - 8
        fitting = (pair for pair in pairs if len(pair[0]) + len(pair[1]) <= room)
        return next(fitting, pairs[-1])

    def _counts(self) -> list[str]:
        table = self._table
        if not table.total:
            return [""]
        shown = f"{len(table):,}"
        said = [f"{shown} of {table.total:,}", shown] if table.filter else [shown]
        if table.frozen:
            words = f"frozen, {table.waiting:,} more came   ", f"frozen +{table.waiting:,}   "
            return [f"{word}{count}" for count in said for word in words]
        return [f"newest   {count}" for count in said] if self.follows else said

    @property
    def _several(self) -> bool:
        """Whether packets of several namespaces are there, so that they have legs."""
        return len(self._table.namespaces) > 1

    def _widths(self) -> tuple[int, int, int]:
        table = self._table
        digits = len(str(table.total + table.forgotten))
        shown = (protocol_column(each, ":") for each in table.protocols)
        protocol = min(5, max(map(len, shown), default=3))
        return digits, protocol, 2 + max(map(len, table.outcomes), default=9)

    @property
    def _netns(self) -> int:
        return min(LONGEST_NETNS, max(map(len, self._table.namespaces)))

    def count(self) -> int:
        """Return the number of packets."""
        return len(self._table)

    def line(self, index: int, width: int) -> Text:
        """Return a packet's line."""
        entry = self._table.entry(index)
        row = entry_row(entry)
        mark = self._marks.get(entry.id, "")
        joint = f"{self._table.joined(index)} " if self._several else ""
        head = f"{joint}{row.id:>{self._digits}} {row.protocol:<{self._protocol}} "
        room = width - len(head) - self._fate - 1
        tail = ""
        if width >= WIDE:
            room -= CAUSE + 1
            tail = f" {_cause(entry):<{CAUSE}}"
            clock = datetime.fromtimestamp(entry.time, tz=UTC).astimezone()
            head = f"{clock.strftime('%H:%M:%S.%f')} {head}"
            room -= TIME + 1
        if self._several and room - self._netns - 1 >= LEAST_WAY:
            head += f"{fitted(clean_text(entry.netns or ''), self._netns)} "
            room -= self._netns + 1
        if self._marks:
            head = f"{mark or ' '} {head}"
            room -= 2
        text = plain_text(head, tone(self, Tone.TITLE if mark else Tone.MUTED))
        text.append(fitted(_way(row, room), room) + " ")
        text.append(fitted(f"{row.glyph} {row.outcome}", self._fate), tone(self, row.tone))
        return text.append(tail, tone(self, Tone.MUTED))


def _cause(entry: Entry) -> str:
    """Return why a packet fared badly; nothing where it did not, or where its fate says it."""
    good = OUTCOMES[entry.outcome][1] is Tone.GOOD
    return "" if good or entry.cause == entry.outcome else entry.cause


def _way(row: PacketRow, room: int) -> str:
    return next((way for way in row.ways if len(way) <= room), row.ways[-1])
