"""A pane of text that is drawn anew whenever its width or the theme changes."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.theme import Theme

from ipttrace_tui.widgets.pane import Pane
from ipttrace_tui.widgets.toned import plain_text

INDENT = " "
"""Before each line: text stands free of a border, and below the pane's title."""


LEAD = " ·"
"""What a line may begin with before its words."""


class TextPane(Pane, can_focus=True, inherit_bindings=False):
    """Scrolls what `draw` returns; of a new text only the lines that differ are drawn."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "roll(-1)", "scroll", key_display="↑↓", tooltip="scroll the text up"),
        Binding("down,j", "roll(1)", "scroll the text down", show=False),
        Binding("pageup", "roll_page(-1)", "a page up", show=False),
        Binding("pagedown", "roll_page(1)", "a page down", show=False),
        Binding("home,g", "roll(-1000000)", "the first line", show=False),
        Binding("end,G", "roll(1000000)", "the last line", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  # as Textual names it
        super().__init__(id=id)
        self._lines: list[Text] = []

    def on_mount(self) -> None:
        """Follow the theme."""
        self.app.theme_changed_signal.subscribe(self, self._follow_theme)

    def _follow_theme(self, _theme: Theme) -> None:
        self.call_after_refresh(self.redraw)

    def catch_up(self) -> None:
        """Fit the new width."""
        self.redraw()

    def redraw(self) -> None:
        """Draw anew what differs."""
        if self.room.width <= 0:
            return
        before, self._lines = self._lines, self._wrapped(self.room.width - len(INDENT))
        longest = max(len(before), len(self._lines))
        if self.scroll_body(self._top):
            return
        self.refresh_bar()
        pairs = range(longest)
        self.refresh_lines(*(n for n in pairs if self._at(before, n) != self._at(self._lines, n)))

    def lead(self, line: str) -> int:
        """Return the columns before the words of a line, which all its lines leave free."""
        return len(line) - len(line.lstrip(LEAD))

    @staticmethod
    def _at(lines: list[Text], index: int) -> Text | None:
        return lines[index] if index < len(lines) else None

    def _wrapped(self, width: int) -> list[Text]:
        text = self.draw()
        text.rstrip()
        if not text.plain:
            return []
        if text.no_wrap:
            return list(text.split("\n", allow_blank=True))
        return [each for line in text.split("\n") for each in self._hung(line, width)]

    def _hung(self, line: Text, width: int) -> list[Text]:
        """Wrap one line; those after the first begin below its first word."""
        lead = self.lead(line.plain)
        if not 0 < lead < width // 2:
            return list(line.wrap(self.app.console, width)) or [line]
        first, *others = line[lead:].wrap(self.app.console, width - lead)
        blank = plain_text(" " * lead)
        return [line[:lead] + first, *(blank + each for each in others)]

    def draw(self) -> Text:
        """Return the text."""
        raise NotImplementedError

    def count(self) -> int:
        """Return the number of lines."""
        return len(self._lines)

    def body(self, index: int, _width: int) -> Text:
        """Return one line."""
        return plain_text(INDENT).append_text(self._lines[index])

    def get_content_height(self, _container: Size, _viewport: Size, width: int) -> int:
        """Return the lines that the whole text takes in `width` columns."""
        return 1 + len(self._wrapped(max(1, width - 1 - len(INDENT))))

    def action_roll(self, lines: int) -> None:
        """Scroll by so many lines."""
        self.scroll_body(self._top + lines)

    def action_roll_page(self, direction: int) -> None:
        """Scroll by a page."""
        self.scroll_body(self._top + direction * max(1, self.room.height - 1))
