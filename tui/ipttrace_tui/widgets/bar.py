"""A bar of one line with a left and a right end."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.widget import Widget

from ipttrace_tui.widgets.toned import TONE_CLASSES, plain_text


class Bar(Widget):
    """Two texts; the left one is cut if both do not fit."""

    COMPONENT_CLASSES: ClassVar[set[str]] = TONE_CLASSES

    def parts(self) -> tuple[Text, Text]:
        """Return the left and the right text."""
        raise NotImplementedError

    def redraw(self) -> None:
        """Draw anew."""
        self.refresh()

    def render(self) -> Text:
        """Return the line."""
        left, right = self.parts()
        room = max(0, self.content_size.width - right.cell_len - 2)
        left.truncate(room, overflow="ellipsis", pad=True)
        return plain_text().append_text(left).append("  ").append_text(right)
