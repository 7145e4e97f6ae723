"""Two ways side by side."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from ipttrace_tui.comparison import Comparison, Pair
from ipttrace_tui.view_model import HopRow, Tone, cut_rule
from ipttrace_tui.widgets.row_list import RowList
from ipttrace_tui.widgets.toned import fitted, plain_text, tone

SAME, OTHER, PARTING = "  =  ", "  ≠  ", " ◀≠▶ "
TABLE, CHAIN, PLACE = 7, 11, 6
LEAST_RULE = 16


class ComparingPane(RowList):
    """One line a hop, A on the left and B on the right; the sign between them tells."""

    BORDER_TITLE = "hops of A and B"
    empty = "neither packet has a hop"

    def __init__(self, comparison: Comparison) -> None:
        super().__init__()
        self._pairs: Sequence[Pair] = comparison.pairs
        self._parting = comparison.parting

    def on_mount(self) -> None:
        """Start where the ways part."""
        same = sum(pair.same for pair in self._pairs)
        said = f"{same} of {len(self._pairs)} lines are the same"
        self.entitle("hops   A on the left, B on the right", said)
        self.changed(self._parting if self._parting is not None else 0 if self._pairs else None)

    def count(self) -> int:
        """Return the number of lines."""
        return len(self._pairs)

    def line(self, index: int, width: int) -> Text:
        """Return a line of both."""
        pair = self._pairs[index]
        half = (width - len(SAME)) // 2
        sign = PARTING if index == self._parting else SAME if pair.same else OTHER
        text = self._half(pair.left, half, same=pair.same)
        text.append(sign, tone(self, Tone.MUTED if pair.same else Tone.WARN))
        return text.append_text(self._half(pair.right, width - half - len(sign), same=pair.same))

    def _half(self, row: HopRow | None, width: int, *, same: bool) -> Text:
        if row is None:
            return plain_text(fitted("·", width), tone(self, Tone.MUTED))
        name = Tone.MUTED if same else Tone.PLAIN
        text = plain_text(
            f"{fitted(row.table, TABLE)} {fitted(row.chain, CHAIN)} ", tone(self, name)
        )
        text.append(f"{fitted(row.place, PLACE)} ", tone(self, name))
        what = f"{row.verdict} ✗" if row.tone is Tone.BAD and row.verdict else row.verdict
        effect = " ".join(word for word in (what, row.changes) if word)
        room = width - text.cell_len
        if row.text and (room - len(effect) - 1 >= LEAST_RULE or not row.place):
            rule = room - len(effect) - 1 if effect else room
            text.append(fitted(cut_rule(row.text, rule), rule) + " ", tone(self, name))
        text.append(effect, tone(self, row.tone if row.tone is not Tone.PLAIN else name))
        text.truncate(width, overflow="ellipsis", pad=True)
        return text
