"""The probes that were sent before."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from ipttrace_tui.probe_form import FormValues
from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.row_list import RowList
from ipttrace_tui.widgets.toned import fitted, plain_text, tone


class HistoryList(RowList):
    """One line a probe, the newest first."""

    BORDER_TITLE = "sent before"
    empty = "nothing yet"

    def __init__(self) -> None:
        super().__init__()
        self._entries: Sequence[FormValues] = ()

    def show(self, entries: Sequence[FormValues], cursor: int | None = None) -> None:
        """Show these probes."""
        self._entries = entries
        self.border_subtitle = f"pgup fills in   {len(entries)}" if entries else ""
        self.changed(cursor)

    def count(self) -> int:
        """Return the number of probes."""
        return len(self._entries)

    def line(self, index: int, width: int) -> Text:
        """Return a probe's line."""
        return plain_text(fitted(self._entries[index].title, width), tone(self, Tone.PLAIN))
