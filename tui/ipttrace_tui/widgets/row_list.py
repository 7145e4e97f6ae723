"""A list that draws only the lines that are seen, however long it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.message import Message
from textual.strip import Strip

from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.pane import Pane
from ipttrace_tui.widgets.toned import plain_text, tone

CURSOR = "▸ "


class RowList(Pane, can_focus=True, inherit_bindings=False):
    """Lines with a cursor; `line` draws one."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"row--cursor"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "select", key_display="↑↓", tooltip="select the line above"),
        Binding("down,j", "move(1)", "select the line below", show=False),
        Binding("pageup", "page(-1)", "a page up", show=False),
        Binding("pagedown", "page(1)", "a page down", show=False),
        Binding("home,g", "first", "the first line", show=False),
        Binding("end,G", "last", "the last line", show=False),
    ]

    empty = ""
    """What is said while there are no lines."""

    class Moved(Message):
        """The user moved the cursor."""

        def __init__(self, sender: RowList, index: int) -> None:
            super().__init__()
            self.sender = sender
            self.index = index

        @property
        def control(self) -> RowList:
            """The list, so that handlers can select by it."""
            return self.sender

    def __init__(self) -> None:
        super().__init__()
        self._cursor: int | None = None
        self.moved: Callable[[], None] | None = None
        """Called before `Moved` is posted, for what must be there when the next key comes."""

    def line(self, index: int, width: int) -> Text:
        """Return line `index`, at most `width` columns."""
        raise NotImplementedError

    @property
    def cursor(self) -> int | None:
        """The selected line."""
        return self._cursor

    @cursor.setter
    def cursor(self, index: int | None) -> None:
        """Select a line, and draw what that changes."""
        before, self._cursor = self._cursor, index
        if before != index and not self._follow():
            self.refresh_lines(*(each for each in (before, index) if each is not None))

    def changed(self, cursor: int | None) -> None:
        """Take note that the lines are others, and put the cursor there."""
        self._cursor = cursor
        if not self._follow():
            self.refresh()

    def grown(self, before: int, cursor: int | None) -> None:
        """Take note that lines were added behind the first `before`, those being as they were."""
        moved, self._cursor = self._cursor != cursor, cursor
        if moved or before == 0:
            self.changed(cursor)
        elif before < self._top + self.room.height:
            self.refresh_lines(*range(before, min(self.count(), self._top + self.room.height)))
        self.refresh_bar()

    def catch_up(self) -> None:
        """Keep the cursor in sight."""
        self._follow()

    def _follow(self) -> bool:
        """Bring the cursor into sight; tell whether that moved anything."""
        height = self.room.height
        if not height:
            return False
        top = min(self._top, max(0, self.count() - height))
        if self._cursor is not None:
            top = min(max(top, self._cursor - height + 1), self._cursor)
        return self.scroll_body(top)

    def action_move(self, step: int) -> None:
        """Move the cursor by `step` lines."""
        self.go(self._cursor + step if self._cursor is not None else 0)

    def action_page(self, direction: int) -> None:
        """Move the cursor by a page."""
        self.action_move(direction * max(1, self.room.height - 1))

    def action_first(self) -> None:
        """Move the cursor to the first line."""
        self.go(0)

    def action_last(self) -> None:
        """Move the cursor to the last line."""
        self.go(self.count() - 1)

    def go(self, index: int) -> None:
        """Move the cursor to a line, or to the nearest there is, and say so."""
        if not self.count():
            return
        here = min(max(index, 0), self.count() - 1)
        self.cursor = here
        if self.moved is not None:
            self.moved()
        self.post_message(self.Moved(self, here))

    def on_click(self, event: Click) -> None:
        """Move the cursor to where the mouse points."""
        offset = event.get_content_offset(self)
        if offset is not None and offset.y > 0 and offset.y - 1 + self._top < self.count():
            self.go(offset.y - 1 + self._top)

    def body(self, index: int, width: int) -> Text:
        """Return a line with its cursor."""
        here = index == self._cursor
        text = plain_text(CURSOR if here else "  ", tone(self, Tone.STRONG))
        text.append_text(self.line(index, width - len(CURSOR)))
        if here:
            text.truncate(width, overflow="ellipsis", pad=True)
            text.stylize_before(self.get_component_rich_style("row--cursor"))
        return text

    def line_strip(self, index: int, width: int) -> Strip:
        """Return a line, or what is said while there are none."""
        if index == 0 and not self.count() and self.empty:
            text = plain_text(f"  {self.empty}", tone(self, Tone.MUTED))
            return self.as_strip(text, width)
        return super().line_strip(index, width)
