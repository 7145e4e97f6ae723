"""The line at the top of a screen: which screens there are, and what this one is about."""

from __future__ import annotations

from rich.style import Style
from rich.text import Text

from ipttrace.decode.text import clean_text
from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.bar import Bar
from ipttrace_tui.widgets.toned import plain_text, tone

SCREENS = ("trace", "rules", "places", "doctor", "journey")
"""In the order of their number keys, from 1."""


class TabBar(Bar):
    """The numbers and names of the screens; the one that is shown stands in brackets."""

    def __init__(self, here: str) -> None:
        super().__init__()
        self._here = here
        self._subject = ""
        self._subject_tone = Tone.PLAIN

    def show(self, subject: str, name: Tone = Tone.PLAIN) -> None:
        """Show what the screen is about."""
        self._subject, self._subject_tone = clean_text(subject), name
        self.redraw()

    def parts(self) -> tuple[Text, Text]:
        """Return the screens and the subject."""
        left = plain_text("ipttrace ", tone(self, Tone.TITLE))
        for number, screen in enumerate(SCREENS, 1):
            here = screen == self._here
            style = tone(self, Tone.STRONG if here else Tone.MUTED)
            click = Style(meta={"@click": f"app.go('{screen}')"})
            text = f"[{number} {screen}]" if here else f" {number} {screen} "
            left.append(text, style + click)
        room = max(0, self.content_size.width - left.cell_len - 2)
        right = plain_text(self._subject, tone(self, self._subject_tone))
        right.truncate(room, overflow="ellipsis")
        return left, right
