"""The line at the top: what is traced, and how far it has come."""

from __future__ import annotations

from rich.text import Text

from ipttrace.decode.text import clean_text
from ipttrace_tui.feed import RunState, Snapshot
from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.bar import Bar
from ipttrace_tui.widgets.toned import plain_text, tone

STATES = {
    RunState.IDLE: ("○ idle", Tone.MUTED),
    RunState.RUNNING: ("● tracing", Tone.STRONG),
    RunState.FINISHED: ("✓ finished", Tone.GOOD),
    RunState.FAILED: ("✗ failed", Tone.BAD),
}


class RunBar(Bar):
    """Title on the left, state on the right."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = clean_text(title)
        self._snapshot = Snapshot()
        self._leaving = False

    def rename(self, title: str) -> None:
        """Show what is traced now."""
        self._title = clean_text(title)
        self.redraw()

    def show(self, snapshot: Snapshot) -> None:
        """Show the state of the run."""
        before, self._snapshot = self._snapshot, snapshot
        if (before.state, before.message) != (snapshot.state, snapshot.message):
            self.redraw()

    def leave(self) -> None:
        """Say that the screen closes as soon as nothing is left behind."""
        self._leaving = True
        self.redraw()

    def parts(self) -> tuple[Text, Text]:
        """Return the title and the state."""
        left = plain_text("ipttrace", tone(self, Tone.TITLE))
        left.append(f"  {self._title}")
        if self._leaving:
            return left, plain_text("taking the trace rules back …", tone(self, Tone.WARN))
        word, name = STATES[self._snapshot.state]
        message = clean_text(self._snapshot.message)
        right = plain_text(word, tone(self, name))
        if message and self._snapshot.state is not RunState.FAILED:
            right.append(f"  {message}", tone(self, Tone.MUTED))
        return left, right
