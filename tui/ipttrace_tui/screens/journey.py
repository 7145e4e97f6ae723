"""One packet through several namespaces, leg by leg."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult

from ipttrace_tui.journey_rows import around, legs, subject
from ipttrace_tui.screens.full import FullScreen
from ipttrace_tui.widgets.journey_pane import JourneyPane, LegList
from ipttrace_tui.widgets.row_list import RowList


class JourneyScreen(FullScreen):
    """Follows the selected packet of the trace screen."""

    NAME = "journey"

    def __init__(self) -> None:
        super().__init__()
        self._count = 0
        """Packets at the last look."""

    def body(self) -> ComposeResult:
        """Lay the list of legs out above the picture."""
        yield LegList()
        yield JourneyPane()

    def on_mount(self) -> None:
        """Start in the list of legs."""
        super().on_mount()
        self.set_focus(self.query_one(LegList))

    def action_update(self) -> None:
        """Show the journey of the packet that is selected now."""
        selected = self.work.selected_path
        rows = legs(around(self.work.paths, selected), selected)
        shown = self.query_one(LegList)
        ids = [row.path.id for row in rows]
        cursor = ids.index(selected.id) if selected and selected.id in ids else None
        shown.show(rows, cursor)
        self.query_one(JourneyPane).show(rows, cursor)
        self.subject(subject(rows), f"packet {selected.id}" if selected else "")

    def look_again(self) -> None:
        """Take packets in that came meanwhile; the selected leg stays."""
        shown = self.query_one(LegList)
        if self._count == len(self.work.paths):
            return
        self._count = len(self.work.paths)
        selected = self.work.selected_path
        rows = legs(around(self.work.paths, selected), selected)
        if [row.path for row in rows] != [row.path for row in shown.rows]:
            cursor = min(shown.cursor or 0, len(rows) - 1) if rows else None
            shown.show(rows, cursor)
            self.query_one(JourneyPane).show(rows, cursor)

    @on(RowList.Moved)
    def _show_leg(self, event: RowList.Moved) -> None:
        self.query_one(JourneyPane).show(self.query_one(LegList).rows, event.index)

    @on(LegList.Opened)
    def _open(self, event: LegList.Opened) -> None:
        self.work.show_packet(self.query_one(LegList).rows[event.index].path)
