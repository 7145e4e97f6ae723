"""What must not be overlooked: the error that ended a run, and warnings."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.widgets import Static

from ipttrace.decode.text import clean_text
from ipttrace_tui.feed import RunState, Snapshot
from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.toned import TONE_CLASSES, plain_text, tone

MOST_WARNINGS = 2


class Banner(Static):
    """Takes no line while there is nothing to say."""

    COMPONENT_CLASSES: ClassVar[set[str]] = TONE_CLASSES

    def __init__(self) -> None:
        super().__init__(markup=False)
        self._lines: list[tuple[str, Tone]] = []
        self.display = False

    def show(self, snapshot: Snapshot) -> None:
        """Show the error, or the first warnings and how many more there are."""
        lines: list[tuple[str, Tone]] = []
        if snapshot.state is RunState.FAILED:
            lines.append((f"✗ {clean_text(snapshot.message)}", Tone.BAD))
        warnings = snapshot.warnings
        lines += [(f"⚠ {clean_text(each)}", Tone.WARN) for each in warnings[:MOST_WARNINGS]]
        if len(warnings) > MOST_WARNINGS:
            lines.append((f"  and {len(warnings) - MOST_WARNINGS} more warnings", Tone.MUTED))
        if lines != self._lines:
            self._lines = lines
            self.display = bool(lines)
            self.update(self._text(lines))

    def _text(self, lines: list[tuple[str, Tone]]) -> Text:
        text = plain_text()
        for number, (line, name) in enumerate(lines):
            text.append("\n" if number else "").append(line, tone(self, name))
        return text
