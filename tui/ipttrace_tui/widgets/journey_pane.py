"""One packet through several namespaces in one picture, and the list of its legs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType

from ipttrace.render.diagram import flow_picture
from ipttrace.render.picture import Picture
from ipttrace_tui.journey_rows import LegRow, link_picture
from ipttrace_tui.view_model import Tone, telling_hop
from ipttrace_tui.widgets.place_lists import OpenList
from ipttrace_tui.widgets.text_pane import TextPane
from ipttrace_tui.widgets.toned import fitted, look, plain_text, tone


class LegList(OpenList):
    """One line a leg: where, how it came in, and what became of it there."""

    BORDER_TITLE = "legs"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "its way", tooltip="show this leg on the trace screen"),
    ]
    empty = "no packet is selected"

    def __init__(self) -> None:
        super().__init__()
        self.rows: Sequence[LegRow] = ()

    def show(self, rows: Sequence[LegRow], cursor: int | None) -> None:
        """Show these legs."""
        self.rows = rows
        self.changed(cursor)

    def count(self) -> int:
        """Return the number of legs."""
        return len(self.rows)

    def line(self, index: int, width: int) -> Text:
        """Return a leg's line."""
        row = self.rows[index]
        where = min(max(len(each.where) for each in self.rows), max(8, width // 3))
        came = min(max(len(each.came) for each in self.rows), 20)
        text = plain_text(fitted(row.number, 9), tone(self, Tone.MUTED))
        text.append(fitted(row.where, where) + "  ", tone(self, Tone.STRONG))
        text.append(fitted(row.came, came) + "  ", tone(self, Tone.MUTED))
        text.append(row.fate, tone(self, row.tone))
        return text


class JourneyPane(TextPane):
    """The flow pictures of all legs, one below the other, joined by the wires between them."""

    BORDER_TITLE = "one packet through the namespaces"

    def __init__(self) -> None:
        super().__init__()
        self._rows: Sequence[LegRow] = ()
        self._here: int | None = None
        self._tops: list[int] = []
        """First line of each leg."""

    def show(self, rows: Sequence[LegRow], here: int | None) -> None:
        """Show these legs, and bring one of them into sight."""
        self._rows, self._here = rows, here
        self.redraw()
        if here is not None and here < len(self._tops):
            self.scroll_body(self._tops[here])

    def draw(self) -> Text:
        """Return the pictures in the theme's colours."""
        text = plain_text()
        width = self.room.width
        self._tops, line = [], 0
        before: LegRow | None = None
        for index, row in enumerate(self._rows):
            link = link_picture(before, row, index == self._here)
            way = flow_picture(row.path, width, telling_hop(row.path), self._room)
            self._append(text, link)
            self._append(text, way)
            self._tops.append(line + link.height - 1)
            line += link.height + way.height
            before = row
        text.no_wrap = True
        return text

    @property
    def _room(self) -> int:
        """Lines for one leg: as many as leave two of them in sight."""
        return max(6, self.room.height // 2 - 3)

    def _append(self, text: Text, picture: Picture) -> None:
        for line in picture.lines:
            for segment in line:
                text.append(segment.text, look(self, segment.look))
            text.append("\n")
