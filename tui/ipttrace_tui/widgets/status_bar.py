"""The line at the bottom: what was lost, and how it was traced."""

from __future__ import annotations

from rich.text import Text

from ipttrace.decode.text import clean_text
from ipttrace_tui.feed import Snapshot
from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.bar import Bar
from ipttrace_tui.widgets.toned import plain_text, tone


class StatusBar(Bar):
    """Loss on the left, trigger and backends on the right."""

    def __init__(self) -> None:
        super().__init__()
        self._snapshot = Snapshot()

    def show(self, snapshot: Snapshot) -> None:
        """Show the totals of the run."""
        self._snapshot = snapshot
        self.redraw()

    def parts(self) -> tuple[Text, Text]:
        """Return loss and means."""
        snapshot, totals = self._snapshot, self._snapshot.totals
        left = plain_text()
        for word, count in (("lost", totals.lost_events), ("undecoded", totals.undecoded)):
            text = f"⚠ {word} {count:,}" if count else f"{word} 0"
            left.append(text + "   ", tone(self, Tone.WARN if count else Tone.MUTED))
        if totals.packets:
            whole = f"{totals.complete:,} of {totals.packets:,} complete"
            missing = totals.complete < totals.packets
            left.append(whole, tone(self, Tone.WARN if missing else Tone.MUTED))
        words = (f"trigger {snapshot.trigger}", "+".join(snapshot.backends))
        right = clean_text("   ".join(word for word in words if word))
        return left, plain_text(right, tone(self, Tone.MUTED))
