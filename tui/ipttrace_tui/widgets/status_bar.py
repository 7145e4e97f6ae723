"""The line at the bottom: what was lost, what cannot be seen, and how it was traced."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from ipttrace.decode.text import clean_text
from ipttrace_tui.feed import Snapshot
from ipttrace_tui.packet_table import PacketTable
from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.bar import Bar
from ipttrace_tui.widgets.toned import plain_text, tone

GAP = "   "


class StatusBar(Bar):
    """What limits the truth on the left, the gravest first; trigger and backends on the right."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: tuple[tuple[str, Tone], ...] = ()
        self._means = ""

    def show(self, snapshot: Snapshot, table: PacketTable, doubt: str) -> None:
        """Show the totals of the run; `doubt` is what is to be said of the rules."""
        parts = sorted(status_parts(snapshot, table, doubt), key=lambda part: part[1] != Tone.WARN)
        means = clean_text(" ".join([snapshot.trigger, "+".join(snapshot.backends)]).strip())
        if (tuple(parts), means) != (self._parts, self._means):
            self._parts, self._means = tuple(parts), means
            self.redraw()

    def parts(self) -> tuple[Text, Text]:
        """Return loss and means."""
        left, right = plain_text(), plain_text(self._means, tone(self, Tone.MUTED))
        room = self.content_size.width - right.cell_len - 2
        for text, name in self._parts:
            if left.plain and left.cell_len + len(GAP) + len(text) > room:
                continue
            left.append(GAP if left.plain else "").append(text, tone(self, name))
        return left, right


def status_parts(snapshot: Snapshot, table: PacketTable, doubt: str) -> Iterator[tuple[str, Tone]]:
    """Yield what keeps the screen from being the whole truth, in words."""
    totals = snapshot.totals
    lost = totals.lost_events
    yield (f"⚠ lost {lost:,}", Tone.WARN) if lost else ("lost 0", Tone.MUTED)
    if totals.undecoded:
        yield f"⚠ undecoded {totals.undecoded:,}", Tone.WARN
    if totals.complete < totals.packets:
        yield f"{totals.complete:,} of {totals.packets:,} complete", Tone.WARN
    if doubt:
        yield f"⚠ {doubt}", Tone.WARN
    if table.frozen:
        yield "list frozen", Tone.WARN
    if table.forgotten:
        yield f"⚠ oldest {table.forgotten:,} let go", Tone.WARN
    if snapshot.limit is not None:
        yield f"limit {snapshot.limit:,}/s", Tone.MUTED
    if snapshot.missing:
        yield clean_text(snapshot.missing), Tone.MUTED
    if totals.packets and totals.complete >= totals.packets:
        yield f"all {totals.packets:,} complete", Tone.MUTED
