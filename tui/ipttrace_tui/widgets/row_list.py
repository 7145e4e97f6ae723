"""A list that draws only the lines that are seen, however long it is."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.toned import TONE_CLASSES, plain_text, tone

CURSOR = "▸ "


class RowList(ScrollView, can_focus=True, inherit_bindings=False):
    """Lines with a cursor; `line` draws one."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {*TONE_CLASSES, "row--cursor"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "select", key_display="↑↓", tooltip="select the line above"),
        Binding("down,j", "move(1)", "select the line below", show=False),
        Binding("pageup", "page(-1)", "a page up", show=False),
        Binding("pagedown", "page(1)", "a page down", show=False),
        Binding("home,g", "first", "the first line", show=False),
        Binding("end,G", "last", "the last line", show=False),
    ]

    cursor: reactive[int | None] = reactive(None)
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

    def count(self) -> int:
        """Return the number of lines."""
        raise NotImplementedError

    def line(self, index: int, width: int) -> Text:
        """Return line `index`, at most `width` columns."""
        raise NotImplementedError

    def changed(self, cursor: int | None) -> None:
        """Take note that the lines are others, and put the cursor there."""
        self.virtual_size = Size(0, self.count())
        self.set_reactive(RowList.cursor, cursor)
        self._follow()
        self.refresh()

    def watch_cursor(self) -> None:
        """Keep the cursor in sight."""
        self._follow()
        self.refresh()

    def on_resize(self) -> None:
        """Keep the cursor in sight."""
        self._follow()

    def _follow(self) -> None:
        height = self.scrollable_content_region.height
        if self.cursor is None or not height:
            return
        top = round(self.scroll_target_y)
        wanted = min(max(top, self.cursor - height + 1), self.cursor)
        if wanted != top:
            self.scroll_to(y=wanted, animate=False, force=True, immediate=True)

    def action_move(self, step: int) -> None:
        """Move the cursor by `step` lines."""
        if self.count():
            self.go((self.cursor or 0) + step if self.cursor is not None else 0)

    def action_page(self, direction: int) -> None:
        """Move the cursor by a page."""
        self.action_move(direction * max(1, self.scrollable_content_region.height - 1))

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
        self.cursor = min(max(index, 0), self.count() - 1)
        self.post_message(self.Moved(self, self.cursor))

    def on_click(self, event: Click) -> None:
        """Move the cursor to where the mouse points."""
        offset = event.get_content_offset(self)
        if offset is not None and offset.y + round(self.scroll_offset.y) < self.count():
            self.go(offset.y + round(self.scroll_offset.y))

    def render_line(self, y: int) -> Strip:
        """Return one visible line."""
        width = self.scrollable_content_region.width
        index = y + round(self.scroll_offset.y)
        if index < self.count():
            return self._row(index, width)
        if y == 0 and self.empty:
            text = plain_text(f"  {self.empty}", tone(self, Tone.MUTED))
            return self._strip(text, width)
        return Strip.blank(width, self.rich_style)

    def _row(self, index: int, width: int) -> Strip:
        here = index == self.cursor
        text = plain_text(CURSOR if here else "  ", tone(self, Tone.STRONG))
        text.append_text(self.line(index, width - len(CURSOR)))
        if here:
            text.truncate(width, overflow="ellipsis", pad=True)
            text.stylize_before(self.get_component_rich_style("row--cursor"))
        return self._strip(text, width)

    def _strip(self, text: Text, width: int) -> Strip:
        text.truncate(width, overflow="ellipsis", pad=True)
        strip = Strip(text.render(self.app.console)).adjust_cell_length(width)
        return strip.apply_style(self.rich_style)
