"""A pane of text that is drawn anew whenever its width or the theme changes."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.theme import Theme
from textual.widgets import Static

from ipttrace_tui.widgets.toned import LOOK_CLASSES, TONE_CLASSES


class TextPane(VerticalScroll, can_focus=True, inherit_bindings=False):
    """Scrolls what `draw` returns."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {*TONE_CLASSES, *LOOK_CLASSES}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_up", "scroll", key_display="↑↓", tooltip="scroll the text up"),
        Binding("down,j", "scroll_down", "scroll the text down", show=False),
        Binding("pageup", "page_up", "a page up", show=False),
        Binding("pagedown", "page_down", "a page down", show=False),
        Binding("home,g", "scroll_home", "the first line", show=False),
        Binding("end,G", "scroll_end", "the last line", show=False),
    ]

    def compose(self) -> ComposeResult:
        """Hold one text."""
        yield Static(markup=False)

    def on_mount(self) -> None:
        """Follow the theme."""
        self.app.theme_changed_signal.subscribe(self, self._follow_theme)

    def _follow_theme(self, _theme: Theme) -> None:
        self.call_after_refresh(self.redraw)

    def on_resize(self) -> None:
        """Fit the new width."""
        self.redraw()

    def redraw(self) -> None:
        """Draw anew."""
        if self.scrollable_content_region.width > 0:
            self.query_one(Static).update(self.draw())

    def draw(self) -> Text:
        """Return the text."""
        raise NotImplementedError
