"""What is to be said in full of the selected line of a list."""

from __future__ import annotations

from typing import ClassVar

from textual.widgets import Static

from ipttrace.decode.text import clean_text
from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.toned import TONE_CLASSES, plain_text, tone


class SaidLine(Static):
    """Text that is wrapped, never cut; no line while there is nothing to say."""

    COMPONENT_CLASSES: ClassVar[set[str]] = TONE_CLASSES

    def __init__(self) -> None:
        super().__init__(markup=False)

    def say(self, text: str, name: Tone = Tone.PLAIN) -> None:
        """Show a text."""
        self.display = bool(text)
        self.update(plain_text(clean_text(text), tone(self, name)))
