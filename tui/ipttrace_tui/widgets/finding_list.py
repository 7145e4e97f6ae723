"""The findings of the check-up, and one of them in full."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from ipttrace.checkup.finding import Finding, State
from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.row_list import RowList
from ipttrace_tui.widgets.text_pane import TextPane
from ipttrace_tui.widgets.toned import fitted, plain_text, tone

STATES = {
    State.OK: ("✓ ok", Tone.GOOD),
    State.NOTE: ("! note", Tone.WARN),
    State.PROBLEM: ("✗ problem", Tone.BAD),
}
WIDEST = 10


class FindingList(RowList):
    """One line a finding: its state in a word, its topic, what was found."""

    BORDER_TITLE = "check-up"
    empty = "looking …"

    def __init__(self) -> None:
        super().__init__()
        self.findings: Sequence[Finding] = ()

    def show(self, findings: Sequence[Finding], cursor: int | None) -> None:
        """Show these findings."""
        self.findings = findings
        self.border_subtitle = _total(findings)
        self.changed(cursor)

    def count(self) -> int:
        """Return the number of findings."""
        return len(self.findings)

    def line(self, index: int, width: int) -> Text:
        """Return a finding's line."""
        finding = self.findings[index]
        word, name = STATES[finding.state]
        topic = max(len(each.topic) for each in self.findings)
        text = plain_text(fitted(word, WIDEST), tone(self, name))
        text.append(fitted(finding.topic, topic) + "  ", tone(self, Tone.STRONG))
        rest = max(0, width - WIDEST - topic - 2)
        text.append(fitted(finding.text, rest), tone(self, Tone.PLAIN))
        return text


def _total(findings: Sequence[Finding]) -> str:
    counts = [sum(each.state is state for each in findings) for state in State]
    words = (f"{count} {state}" for state, count in zip(State, counts, strict=True) if count)
    return ", ".join(words)


class FindingPane(TextPane):
    """A finding in full, and what to do."""

    BORDER_TITLE = "in full"

    def __init__(self) -> None:
        super().__init__()
        self._finding: Finding | None = None

    def show(self, finding: Finding | None) -> None:
        """Show a finding."""
        self._finding = finding
        self.redraw()

    def draw(self) -> Text:
        """Return what was found and what to do."""
        text = plain_text()
        if self._finding is None:
            return text
        word, name = STATES[self._finding.state]
        text.append(f"{word}  ", tone(self, name))
        text.append(f"{self._finding.topic}\n", tone(self, Tone.STRONG))
        text.append(f"{self._finding.text}\n")
        if self._finding.advice:
            text.append("do\n", tone(self, Tone.TITLE))
            text.append(f"{self._finding.advice}\n")
        return text
