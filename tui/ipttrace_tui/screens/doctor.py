"""What stands in the way of a trace, and what to do: the findings of `ipttrace doctor`."""

from __future__ import annotations

from functools import partial

from textual import on
from textual.app import ComposeResult

from ipttrace.decode.text import clean_text
from ipttrace_tui.asking import Answered
from ipttrace_tui.screens.full import FullScreen
from ipttrace_tui.widgets.finding_list import FindingList, FindingPane
from ipttrace_tui.widgets.row_list import RowList


class DoctorScreen(FullScreen):
    """Looks at the namespace of the selected packet."""

    NAME = "doctor"

    def body(self) -> ComposeResult:
        """Lay the list out above the selected finding."""
        yield FindingList()
        yield FindingPane()

    def on_mount(self) -> None:
        """Start in the list."""
        super().on_mount()
        self.set_focus(self.query_one(FindingList))

    def action_update(self) -> None:
        """Look again at the machine."""
        netns = self.work.selected_netns
        self.subject(f"namespace {netns}" if netns else "this namespace", netns or "here")
        self.ask("the machine", partial(self.work.bench.findings, netns))

    @on(Answered)
    def _take(self, event: Answered) -> None:
        shown = self.query_one(FindingList)
        if event.error is not None:
            shown.empty = f"✗ {clean_text(str(event.error))}"
            shown.show((), None)
            return
        findings = tuple(event.value)
        cursor = min(shown.cursor or 0, len(findings) - 1) if findings else None
        shown.show(findings, cursor)
        self._show_full()

    @on(RowList.Moved)
    def _show_full(self) -> None:
        shown = self.query_one(FindingList)
        finding = None if shown.cursor is None else shown.findings[shown.cursor]
        self.query_one(FindingPane).show(finding)
