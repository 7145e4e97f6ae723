"""Where the ways of two packets part."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.screen import Screen

from ipttrace.path import PacketPath
from ipttrace_tui.comparison import Comparison, Pair, compare, end_of, in_full
from ipttrace_tui.view_model import OUTCOMES, Tone, packet_title
from ipttrace_tui.widgets.comparing_pane import ComparingPane
from ipttrace_tui.widgets.key_bar import KeyBar
from ipttrace_tui.widgets.said_line import SaidLine
from ipttrace_tui.widgets.text_pane import TextPane
from ipttrace_tui.widgets.toned import plain_text, tone

NAME = 9


class EndPane(TextPane):
    """One packet: who it is, and what became of it."""

    def __init__(self, letter: str, path: PacketPath) -> None:
        super().__init__(id=letter.lower())
        self._letter, self._path = letter, path

    def on_mount(self) -> None:
        """Name the packet."""
        super().on_mount()
        self.entitle(f"{self._letter}: packet {self._path.id}")

    def draw(self) -> Text:
        """Return the packet and its fate."""
        text = plain_text(packet_title(self._path) + "\n", tone(self, Tone.PLAIN))
        return text.append(end_of(self._path), tone(self, OUTCOMES[self._path.outcome][1]))


class DifferencePane(TextPane):
    """The selected line in full, and the headers in which the packets differ."""

    def __init__(self, comparison: Comparison) -> None:
        super().__init__()
        self._comparison = comparison
        self._pair: Pair | None = None

    def on_mount(self) -> None:
        """Give it its title."""
        super().on_mount()
        self.entitle("this line, and the headers that differ")

    def show(self, pair: Pair | None) -> None:
        """Say a line in full."""
        self._pair = pair
        self.redraw()

    def draw(self) -> Text:
        """Return the line of both, then a line a field."""
        text = plain_text()
        if self._pair is not None:
            for letter, row in (("A", self._pair.left), ("B", self._pair.right)):
                text.append(f"{letter} ", tone(self, Tone.TITLE)).append(f"{in_full(row)}\n")
        for each in self._comparison.differences:
            text.append(f"{each.name:<{NAME}}", tone(self, Tone.MUTED))
            text.append(f"A {each.left}", tone(self, Tone.PLAIN))
            text.append("   ≠   ", tone(self, Tone.WARN))
            text.append(f"B {each.right}\n", tone(self, Tone.PLAIN))
        if not self._comparison.differences:
            text.append("none but their numbers", tone(self, Tone.MUTED))
        return text


class CompareScreen(Screen[None]):
    """Two packets side by side, from top to bottom: where they part, who they are, their hops."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "app.focus_next", "pane", key_display="tab", tooltip="next pane"),
        Binding("shift+tab", "app.focus_previous", "pane before", show=False),
        Binding("d", "parting", "where they part", tooltip="the line on which the ways part"),
        Binding("x", "swap", "swap", tooltip="change the sides"),
        Binding("escape,c", "dismiss", "back", key_display="esc", tooltip="back to the trace"),
    ]

    def __init__(self, left: PacketPath, right: PacketPath) -> None:
        super().__init__()
        self._comparison = compare(left, right)

    def compose(self) -> ComposeResult:
        """Lay the panes out."""
        comparison = self._comparison
        yield SaidLine()
        with Container(id="ends"):
            yield EndPane("A", comparison.left)
            yield EndPane("B", comparison.right)
        yield ComparingPane(comparison)
        yield DifferencePane(comparison)
        yield KeyBar()

    def on_mount(self) -> None:
        """Say where they part, and start there."""
        name = Tone.GOOD if self._comparison.parting is None else Tone.WARN
        self.query_one(SaidLine).say(self._comparison.verdict, name)
        pane = self.query_one(ComparingPane)
        self.set_focus(pane)
        self._say_line(pane.cursor)

    @on(ComparingPane.Moved)
    def _line_chosen(self, event: ComparingPane.Moved) -> None:
        event.stop()
        self._say_line(event.index)

    def _say_line(self, index: int | None) -> None:
        pair = self._comparison.pairs[index] if index is not None else None
        self.query_one(DifferencePane).show(pair)

    def action_parting(self) -> None:
        """Go to the line on which the ways part."""
        if self._comparison.parting is None:
            self.notify("their ways do not part")
        else:
            self.query_one(ComparingPane).go(self._comparison.parting)

    def action_swap(self) -> None:
        """Change the sides."""
        self.app.switch_screen(CompareScreen(self._comparison.right, self._comparison.left))
