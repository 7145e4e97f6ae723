"""One line of text."""

from __future__ import annotations

from rich.text import Text

from ipttrace.decode.text import clean_text
from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.bar import Bar
from ipttrace_tui.widgets.toned import plain_text, tone


class Said(Bar):
    """A text at the left, and one at the right that is muted."""

    def __init__(self) -> None:
        super().__init__()
        self._said = ("", Tone.PLAIN, "")

    def say(self, text: str, name: Tone = Tone.PLAIN, right: str = "") -> None:
        """Show a text."""
        said = (clean_text(text), name, clean_text(right))
        if said != self._said:
            self._said = said
            self.redraw()

    def parts(self) -> tuple[Text, Text]:
        """Return both texts."""
        text, name, right = self._said
        return plain_text(text, tone(self, name)), plain_text(right, tone(self, Tone.MUTED))
