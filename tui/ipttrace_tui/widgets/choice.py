"""A field that has one of a few values, all of them in sight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.message import Message
from textual.widget import Widget

from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.toned import TONE_CLASSES, plain_text, tone

GAP = "  "


class Choice(Widget, can_focus=True):
    """Words in a row; the chosen one has a filled mark."""

    COMPONENT_CLASSES: ClassVar[set[str]] = TONE_CLASSES
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,space,l", "choose(1)", "choose", key_display="←→"),
        Binding("left,h", "choose(-1)", "choose the one before", show=False),
    ]

    class Changed(Message):
        """Another word was chosen."""

        def __init__(self, sender: Choice) -> None:
            super().__init__()
            self.sender = sender

        @property
        def control(self) -> Choice:
            """The field, so that handlers can select by it."""
            return self.sender

    def __init__(self, words: Sequence[str], value: str | None = None) -> None:
        super().__init__()
        self.words = tuple(words)
        self._value = value if value in self.words else self.words[0]

    @property
    def value(self) -> str:
        """The chosen word."""
        return self._value

    @value.setter
    def value(self, word: str) -> None:
        """Choose a word; one that is not offered changes nothing."""
        if word in self.words and word != self._value:
            self._value = word
            self.refresh()
            self.post_message(self.Changed(self))

    def action_choose(self, step: int) -> None:
        """Choose the next or the previous word, round and round."""
        self.value = self.words[(self.words.index(self._value) + step) % len(self.words)]

    def on_click(self, event: Click) -> None:
        """Choose the word that the mouse points at."""
        offset = event.get_content_offset(self)
        column = 0
        for word in self.words:
            column += len(word) + 2 + len(GAP)
            if offset is not None and offset.x < column:
                self.value = word
                return

    def render(self) -> Text:
        """Return the words."""
        text = plain_text()
        for word in self.words:
            here = word == self._value
            text.append("● " if here else "○ ", tone(self, Tone.TITLE if here else Tone.MUTED))
            text.append(word, tone(self, Tone.STRONG if here else Tone.MUTED)).append(GAP)
        text.no_wrap = True
        return text
