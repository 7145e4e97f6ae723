"""The tree of rules: one line a backend, table, chain and rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.message import Message

from ipttrace_tui.rule_rows import Level, RuleRow, count_text, rate_text
from ipttrace_tui.view_model import Tone, cut_rule
from ipttrace_tui.widgets.row_list import RowList
from ipttrace_tui.widgets.toned import fitted, plain_text, tone

INDENT = {Level.BACKEND: 0, Level.TABLE: 1, Level.CHAIN: 2, Level.RULE: 3}
COUNT, RATE = 7, 8
"""Columns."""


class RuleTree(RowList):
    """Lines of `rule_rows.rows`; what is folded is the screen's to know."""

    BORDER_TITLE = "rules"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "fold", "fold", tooltip="fold or unfold what is below the line"),
        Binding("enter", "hop", "its hop", tooltip="to the hop at which the packet met the rule"),
    ]

    class Fold(Message):
        """A line is to be folded or unfolded."""

        def __init__(self, row: RuleRow) -> None:
            super().__init__()
            self.row = row

    class HopWanted(Message):
        """The user wants to see where the packet met a rule."""

        def __init__(self, row: RuleRow) -> None:
            super().__init__()
            self.row = row

    def __init__(self) -> None:
        super().__init__()
        self._rows: Sequence[RuleRow] = ()
        self._found: frozenset[int] = frozenset()
        self._folded: frozenset[tuple[str, ...]] = frozenset()
        self.met_width = 0
        """Columns of the packet's marks."""

    def show(
        self,
        rows: Sequence[RuleRow],
        cursor: int | None,
        folded: frozenset[tuple[str, ...]],
        found: Sequence[int] = (),
    ) -> None:
        """Show these lines, those of `found` marked."""
        self._rows, self._folded, self._found = rows, folded, frozenset(found)
        self.met_width = max((len(each.met.words) for each in rows if each.met), default=0)
        self.changed(cursor)

    @property
    def row(self) -> RuleRow | None:
        """The line at the cursor."""
        return None if self.cursor is None else self._rows[self.cursor]

    def count(self) -> int:
        """Return the number of lines."""
        return len(self._rows)

    def action_fold(self) -> None:
        """Fold or unfold what is below the line."""
        if self.row is not None:
            self.post_message(self.Fold(self.row))

    def action_hop(self) -> None:
        """Go to the hop at which the packet met the rule; a line with lines below is folded."""
        if self.row is not None:
            wanted = self.HopWanted if self.row.met or self.row.level is Level.RULE else self.Fold
            self.post_message(wanted(self.row))

    def on_click(self, event: Click) -> None:
        """A second click does what enter does."""
        if event.chain == 2:
            self.action_hop()

    def _head(self, width: int) -> Text:
        """Return the title, and the names of the columns where they stand."""
        room = self.room.width - COUNT - RATE - self.met_width - 4
        text = super()._head(max(0, room))
        names = f" {'packets':>{COUNT}} {'rate':>{RATE}}  {'met by' if self.met_width else ''}"
        return text.append(names.ljust(width - text.cell_len), tone(self, Tone.MUTED))

    def line(self, index: int, width: int) -> Text:
        """Return one line: the rule, what counts, and the packet's mark."""
        row = self._rows[index]
        room = width - COUNT - RATE - self.met_width - 4
        text = plain_text(fitted(self._words(row, index, room), room), tone(self, _tone(row)))
        counted = count_text(row.counter.packets) if row.counter else ""
        text.append(" " + counted.rjust(COUNT), tone(self, Tone.MUTED))
        rate = rate_text(row.rate)
        moving = row.rate is not None and row.rate > 0
        text.append(" " + rate.rjust(RATE), tone(self, Tone.CHANGED if moving else Tone.MUTED))
        if row.met:
            name = Tone.BAD if row.met.fatal else Tone.GOOD
            text.append(f"  {row.met.words}", tone(self, name))
        return text

    def _words(self, row: RuleRow, index: int, room: int) -> str:
        indent = "  " * INDENT[row.level]
        found = "» " if index in self._found else ""
        if row.level is Level.RULE:
            lead = f"{indent}{row.number:>2} {found}"
            return lead + cut_rule(row.text, max(0, room - len(lead)))
        return f"{indent}{'▹' if row.key in self._folded else '▿'} {found}{row.text}"


def _tone(row: RuleRow) -> Tone:
    if row.met:
        return Tone.STRONG
    return {Level.BACKEND: Tone.TITLE, Level.TABLE: Tone.STRONG}.get(row.level, Tone.PLAIN)
