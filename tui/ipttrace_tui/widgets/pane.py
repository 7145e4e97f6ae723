"""A pane: a line with its title, and lines below it that are drawn one by one.

Nothing is drawn but what is seen, and only lines that changed are drawn again: a pane scrolls by
itself, because a change of Textual's virtual size would lay the whole screen out anew.
"""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual.content import Content
from textual.events import MouseScrollDown, MouseScrollUp
from textual.geometry import Region, Size
from textual.strip import Strip

from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.toned import LOOK_CLASSES, TONE_CLASSES, Toned, front, plain_text, tone

THUMB = "▐"
WHEEL = 3
"""Lines that one notch of the mouse's wheel scrolls."""


class Pane(Toned, can_focus=True, inherit_bindings=False):
    """Lines `body` below a title; the column at the right is the scroll bar's."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {*TONE_CLASSES, *LOOK_CLASSES, "pane--frame"}

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  # as Textual names it
        super().__init__(id=id)
        self.kept = {}
        self._top = 0
        self._title: str | None = None
        self._subtitle = ""
        self._thumb_drawn = range(0)

    # ---------------------------------------------------------------- what there is

    def count(self) -> int:
        """Return the number of lines."""
        raise NotImplementedError

    def body(self, index: int, width: int) -> Text:
        """Return line `index`, at most `width` columns."""
        raise NotImplementedError

    scrolls: bool = True
    """Whether a column is kept for the scroll bar."""

    @property
    def room(self) -> Size:
        """Columns and lines for the body."""
        size = self.content_size
        return Size(max(0, size.width - self.scrolls), max(0, size.height - 1))

    @property
    def top(self) -> int:
        """The first line in sight."""
        return self._top

    def entitle(self, title: str, subtitle: str = "") -> None:
        """Write a title, and something at the right; only that line is drawn anew."""
        if (title, subtitle) != (self._title, self._subtitle):
            self._title, self._subtitle = title, subtitle
            self.refresh(Region(0, 0, self.content_size.width, 1))

    # ---------------------------------------------------------------- scrolling

    def on_show(self) -> None:
        """Catch up with what came while the pane was hidden."""
        self.catch_up()

    def on_resize(self) -> None:
        """Fit the new size."""
        self.catch_up()

    def catch_up(self) -> None:
        """Fit what is shown into the room there is."""
        self.scroll_body(self._top)

    def scroll_body(self, top: int) -> bool:
        """Bring line `top` to the top, or as near as can be; tell whether anything moved."""
        if not self.room.height:
            return False
        top = min(max(0, top), max(0, self.count() - self.room.height))
        moved = top != self._top
        if moved:
            self._top = top
            self.refresh()
        return moved

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """Scroll."""
        event.stop()
        self.scroll_body(self._top + WHEEL)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """Scroll."""
        event.stop()
        self.scroll_body(self._top - WHEEL)

    # ---------------------------------------------------------------- drawing

    def refresh_lines(self, *indexes: int) -> None:
        """Draw some lines anew, as far as they are in sight."""
        width = self.content_size.width
        seen = [each - self._top for each in indexes]
        rows = [each for each in seen if 0 <= each < self.room.height]
        if rows:
            self.refresh(*(Region(0, row + 1, width, 1) for row in rows))

    def get_content_height(self, _container: Size, _viewport: Size, _width: int) -> int:
        """Return the lines that all of it takes."""
        return 1 + self.count()

    def render_line(self, y: int) -> Strip:
        """Return the title or one visible line."""
        size = self.content_size
        if y == 0:
            return self.as_strip(self._head(size.width), size.width)
        width, index = self.room.width, self._top + y - 1
        strip = self.line_strip(index, width)
        return Strip([*strip, *self._bar(y - 1)], size.width) if self.scrolls else strip

    def line_strip(self, index: int, width: int) -> Strip:
        """Return one line, blank below the last one."""
        if index < self.count():
            return self.as_strip(self.body(index, width), width)
        return Strip.blank(width, self.ground)

    def refresh_bar(self) -> None:
        """Draw the scroll bar anew, if it is to look otherwise."""
        if self.scrolls and self._thumb() != self._thumb_drawn:
            size = self.content_size
            self.refresh(Region(size.width - 1, 1, 1, max(0, size.height - 1)))

    def _thumb(self) -> range:
        """Return the rows of the thumb; none where all lines are in sight."""
        count, height = self.count(), self.room.height
        if count <= height or not height:
            return range(0)
        size = max(1, height * height // count)
        start = (height - size) * self._top // (count - height)
        return range(start, start + size)

    def _bar(self, row: int) -> Strip:
        self._thumb_drawn = self._thumb()
        if row not in self._thumb_drawn:
            return Strip.blank(1, self.ground)
        return self.as_strip(plain_text(THUMB, self._frame), 1)

    def _head(self, width: int) -> Text:
        line = "━" if self.has_focus else "─"
        frame = tone(self, Tone.TITLE) if self.has_focus else self._frame
        title, subtitle = self._titles()
        if subtitle and cell_len(title) + cell_len(subtitle) + 8 > width:
            subtitle = ""
        title = whole_words(title, max(0, width - 4))
        shown = plain_text(title, tone(self, Tone.TITLE if self.has_focus else Tone.STRONG))
        shown.truncate(max(0, width - 4), overflow="ellipsis")
        text = plain_text(f"{line} ", frame).append_text(shown)
        if subtitle:
            rest = width - text.cell_len - cell_len(subtitle) - 4
            text.append(f" {line * max(0, rest)} ", frame)
            text.append(subtitle, tone(self, Tone.MUTED)).append(f" {line}", frame)
        else:
            text.append(f" {line * max(0, width - text.cell_len - 1)}", frame)
        return text

    @property
    def ground(self) -> Style:
        """The pane's own style, under every text."""
        if "ground" not in self.kept:
            self.kept["ground"] = self.rich_style
        return self.kept["ground"]

    @property
    def _frame(self) -> Style:
        if "frame" not in self.kept:
            self.kept["frame"] = front(self.get_component_rich_style("pane--frame"))
        return self.kept["frame"]

    def _titles(self) -> tuple[str, str]:
        """Return the titles, as `entitle` or the attributes of a Textual widget have them."""
        if self._title is not None:
            return self._title, self._subtitle
        title, subtitle = self.border_title, self.border_subtitle
        return _plain(title), _plain(subtitle)

    def as_strip(self, text: Text, width: int) -> Strip:
        """Return a text as exactly `width` columns."""
        text.truncate(width, overflow="ellipsis", pad=True)
        strip = Strip(text.render(self.app.console)).adjust_cell_length(width)
        return strip.apply_style(self.ground)


def whole_words(text: str, width: int) -> str:
    """Return as many of the parts of `text`, two spaces apart, as fit; the first one always."""
    while cell_len(text) > width and "  " in text:
        text = text.rpartition("  ")[0].rstrip()
    return text


def _plain(markup: str | None) -> str:
    return Content.from_markup(markup).plain if markup else ""
