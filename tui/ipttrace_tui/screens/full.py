"""What the screens beside the trace screen have in common: a tab bar, a body, a key bar."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen

from ipttrace_tui.asking import Asking
from ipttrace_tui.widgets.key_bar import KeyBar
from ipttrace_tui.widgets.tab_bar import TabBar

if TYPE_CHECKING:
    from ipttrace_tui.actions import Actions


class FullScreen(Screen[None]):
    """Asks for what it shows whenever it comes up, and every moment while it is shown."""

    NAME = ""
    """In `tab_bar.SCREENS`."""
    SLOWER = 1
    """How many times slower than others it looks again: what it reads costs more."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "app.focus_next", "next pane", show=False),
        Binding("shift+tab", "app.focus_previous", "pane before", show=False),
        Binding("u", "update", "look again", show=False),
        Binding("escape", "app.go('trace')", "back to the trace screen", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._asking = Asking(self)

    @property
    def work(self) -> Actions:
        """The application, as far as its screens need it."""
        return cast("Actions", self.app)

    def compose(self) -> ComposeResult:
        """Lay the bars out round the body."""
        yield TabBar(self.NAME)
        yield from self.body()
        yield KeyBar()

    def body(self) -> ComposeResult:
        """Lay out what is between the bars."""
        raise NotImplementedError

    def on_mount(self) -> None:
        """Look again every moment while the screen is shown."""
        self.set_interval(self.work.pace * self.SLOWER, self._look)

    def on_screen_resume(self) -> None:
        """Look at once."""
        self.action_update()

    def _look(self) -> None:
        if self.is_current and self._asking.rested():
            self.look_again()

    def look_again(self) -> None:
        """Read again what changes by itself; nothing unless a screen says what."""

    def action_update(self) -> None:
        """Read everything again."""
        self.look_again()

    def ask(self, question: str, function: Callable[[], object]) -> bool:
        """Call `function` in a worker thread; `Answered` follows."""
        return self._asking.ask(question, function)

    def subject(self, *texts: str) -> None:
        """Say in the tab bar what the screen is about, in the longest words that fit."""
        self.query_one(TabBar).show(*texts)
