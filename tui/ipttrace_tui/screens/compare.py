"""Where the ways of two packets part."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.screen import Screen

from ipttrace.path import PacketPath
from ipttrace_tui.comparison import Comparison, compare, end_of
from ipttrace_tui.view_model import OUTCOMES, Tone, packet_title
from ipttrace_tui.widgets.comparing_pane import ComparingPane
from ipttrace_tui.widgets.key_bar import KeyBar
from ipttrace_tui.widgets.said import Said
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
    """The headers in which the packets differ."""

    def __init__(self, comparison: Comparison) -> None:
        super().__init__()
        self._comparison = comparison

    def on_mount(self) -> None:
        """Give it its title."""
        super().on_mount()
        count = len(self._comparison.differences)
        self.entitle("headers that differ", str(count) if count else "")

    def draw(self) -> Text:
        """Return a line a field."""
        text = plain_text()
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
        yield Said()
        with Container(id="ends"):
            yield EndPane("A", comparison.left)
            yield EndPane("B", comparison.right)
        yield ComparingPane(comparison)
        yield DifferencePane(comparison)
        yield KeyBar()

    def on_mount(self) -> None:
        """Say where they part, and start there."""
        name = Tone.GOOD if self._comparison.parting is None else Tone.WARN
        self.query_one(Said).say(self._comparison.verdict, name)
        self.query_one(ComparingPane).focus()

    def action_parting(self) -> None:
        """Go to the line on which the ways part."""
        if self._comparison.parting is None:
            self.notify("their ways do not part")
        else:
            self.query_one(ComparingPane).go(self._comparison.parting)

    def action_swap(self) -> None:
        """Change the sides."""
        self.app.switch_screen(CompareScreen(self._comparison.right, self._comparison.left))
