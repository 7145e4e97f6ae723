"""The keys and the signs of the screen."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.text_pane import TextPane
from ipttrace_tui.widgets.toned import plain_text, tone

KEYS = (
    ("↑ ↓  j k", "select a packet or a hop; scroll a text"),
    ("← →  p n", "step through the hops, in every pane"),
    ("tab", "next pane; shift+tab: the one before"),
    ("r", "repeat the run"),
    ("?", "this help"),
    ("q", "leave; the trace rules are taken back first"),
)
SIGNS = (
    ("━ ┏┓", "the packet went here: it met a rule or a policy of this table"),
    ("┄ ┌┐", "it did not, or the table is not there"),
    ("╔╗ [ ]", "the selected hop"),
    ("mangle 1", "rule 1 of the chain matched; no number: its policy"),
    ("✗", "here it ended"),
    ("?", "the last that is known of it"),
    ("0 → 1", "changed here"),
    ("+1", "the rule's counter rose by so much, by all traffic"),
    ("reported", "the kernel said so of this packet"),
    ("inferred", "it follows from the rule and the next hop"),
)


class HelpText(TextPane):
    """Keys, then signs."""

    BORDER_TITLE = "help"
    BORDER_SUBTITLE = "esc closes"

    def draw(self) -> Text:
        """Return two tables."""
        text = plain_text()
        for title, rows in (("keys", KEYS), ("signs", SIGNS)):
            text.append(f"{title}\n", tone(self, Tone.TITLE))
            for sign, meaning in rows:
                text.append(f"  {sign:<11}", tone(self, Tone.STRONG)).append(f"{meaning}\n")
        return text


class HelpScreen(ModalScreen[None]):
    """Lies over the main screen until a key closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark", "dismiss", "close"),
    ]

    def compose(self) -> ComposeResult:
        """Hold the help text."""
        yield HelpText()
