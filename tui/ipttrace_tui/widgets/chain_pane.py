"""The rule of the selected hop among its neighbours."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType

from ipttrace_tui.chain_view import NOTHING, ChainView
from ipttrace_tui.view_model import Tone, cut_rule
from ipttrace_tui.widgets.pane import Pane
from ipttrace_tui.widgets.toned import fitted, plain_text, tone


class ChainPane(Pane, can_focus=True, inherit_bindings=False):
    """One line a rule; those that the packet met say what they decided."""

    BORDER_TITLE = "rule"
    COMPONENT_CLASSES: ClassVar[set[str]] = {"row--cursor"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "roll(-1)", "scroll", key_display="↑↓", tooltip="scroll the chain up"),
        Binding("down,j", "roll(1)", "scroll the chain down", show=False),
        Binding("pageup", "roll(-10)", "ten rules up", show=False),
        Binding("pagedown", "roll(10)", "ten rules down", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._view: ChainView = NOTHING

    def show(self, view: ChainView) -> None:
        """Show a chain; its selected rule comes into the middle."""
        before, self._view = self._view, view
        self.entitle(view.title, view.note)
        if before != view:
            self._center()
            self.refresh()

    def catch_up(self) -> None:
        """Keep the rule in sight."""
        self._center()

    def _center(self) -> None:
        self.scroll_body(0)
        if (cursor := self._view.cursor) is not None:
            self.scroll_body(cursor - (self.room.height - 1) // 2)

    def action_roll(self, lines: int) -> None:
        """Scroll by so many lines."""
        self.scroll_body(self._top + lines)

    def count(self) -> int:
        """Return the number of lines."""
        return len(self._view)

    def body(self, index: int, width: int) -> Text:
        """Return a rule, and what it decided."""
        line = self._view.line(index)
        digits = len(str(len(self._view.rules)))
        text = plain_text(
            "▸ " if line.here else "· " if line.met else "  ", tone(self, Tone.STRONG)
        )
        text.append(f"{line.number:>{digits}} ", tone(self, Tone.MUTED))
        room = width - text.cell_len - (len(line.verdict) + 1 if line.verdict else 0)
        name = Tone.STRONG if line.here else Tone.PLAIN if line.met else Tone.MUTED
        text.append(fitted(cut_rule(line.text, room), room), tone(self, name))
        text.append(f" {line.verdict}" if line.verdict else "", tone(self, line.tone))
        if line.here:
            text.stylize_before(self.get_component_rich_style("row--cursor"))
        return text
