"""The line at the top of a screen: which screens there are, and what this one is about."""

from __future__ import annotations

from rich.style import Style
from rich.text import Text
from textual.events import Click

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
        self._subjects: tuple[str, ...] = ()

    def show(self, *subjects: str) -> None:
        """Show what the screen is about: the longest words come first, those that fit are shown."""
        self._subjects = tuple(map(clean_text, subjects))
        self.redraw()

    def parts(self) -> tuple[Text, Text]:
        """Return the screens and the subject."""
        tabs = sum(len(each) + 4 for each in SCREENS)
        name = "ipttrace " if tabs + 11 <= self.content_size.width else ""
        left = plain_text(name, tone(self, Tone.TITLE))
        for number, screen in enumerate(SCREENS, 1):
            here = screen == self._here
            style = tone(self, Tone.STRONG if here else Tone.MUTED)
            click = Style(meta={"screen": screen})
            text = f"[{number} {screen}]" if here else f" {number} {screen} "
            left.append(text, style + click)
        room = max(0, self.content_size.width - left.cell_len - 2)
        fitting = (each for each in self._subjects if len(each) <= room)
        return left, plain_text(next(fitting, ""), tone(self, Tone.PLAIN))

    async def on_click(self, event: Click) -> None:
        """Show the screen that the mouse points at."""
        if screen := event.style.meta.get("screen"):
            await self.app.run_action(f"app.go('{screen}')")
