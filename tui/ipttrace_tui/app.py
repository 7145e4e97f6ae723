"""The Textual application: runs the feed in a thread and hands its snapshots to the screen."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.events import Key
from textual.screen import Screen
from textual.widgets import Input

from ipttrace.errors import IptTraceError
from ipttrace_tui.feed import Feed, RunState, Snapshot
from ipttrace_tui.runs import Runs
from ipttrace_tui.screens.main import MainScreen
from ipttrace_tui.settings import Settings
from ipttrace_tui.stale_rules import ReadRules
from ipttrace_tui.themes import default_variables, next_theme, wear

if TYPE_CHECKING:
    from ipttrace_tui.workbench import Workbench

LEAVING_SIGNALS = (signal.SIGINT, signal.SIGTERM)
OUTPUTS = (1, 2)
"""The descriptors that may be written to."""


class IptTraceApp(Runs):
    """Leaves only when the feed has cleaned up; its result is the error of the last run."""

    CSS_PATH: ClassVar[list[str | PurePath]] = [
        Path(__file__).with_name(name) for name in ("app.tcss", "more.tcss")
    ]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "theme", "theme", tooltip="the next colours", show=False),
        Binding("q", "leave", "quit", tooltip="leave; all is taken back first"),
        Binding("ctrl+c,ctrl+q", "leave", "leave at once", show=False, priority=True),
    ]

    def __init__(
        self,
        feed: Feed | None,
        title: str,
        bench: Workbench | None = None,
        settings: Settings | None = None,
        notices: Sequence[str] = (),
    ) -> None:
        super().__init__(feed, bench, settings or Settings())
        self.title = title
        self._notices = notices
        wear(self)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Return the colours that themes of others lack."""
        return default_variables()

    @property
    def read_rules(self) -> ReadRules | None:
        """What reads the rules as they are now, where the feed can."""
        return getattr(self.runner.feed, "read_rules", None)

    def on_key(self, event: Key) -> None:
        """Give the field that has the focus a letter that was typed before it had.

        A key goes to whatever has the focus as it comes; those of a field do not come here.
        """
        if isinstance(self.focused, Input) and event.is_printable and event.character:
            self.focused.insert_text_at_cursor(event.character)
            event.prevent_default()

    def action_theme(self) -> None:
        """Wear the next colours."""
        self.theme = next_theme(self.theme)

    def run(self, *args: Any, **options: Any) -> IptTraceError | None:
        """Show the screen until the user leaves and the feed has cleaned up.

        Returns the error that ended the last run, if one did.
        """
        try:
            return super().run(*args, **options)
        finally:
            self.runner.stop_and_wait()
            self.bench.close()

    def get_default_screen(self) -> Screen[None]:
        """Return the one screen."""
        return MainScreen(self.title)

    def on_ready(self) -> None:
        """Start the feed, and leave in good order whatever signal asks for it."""
        if threading.current_thread() is threading.main_thread():
            for each in LEAVING_SIGNALS:
                asyncio.get_running_loop().add_signal_handler(each, self.action_leave)
            signal.signal(signal.SIGHUP, self._hang_up)
        for notice in self._notices:
            self.warn(notice)
        if self.settings.theme in self.available_themes:
            self.theme = self.settings.theme
        elif self.settings.theme is not None:
            self.warn(f"there is no theme {self.settings.theme!r}")
        if self.runner.feed is None:
            hint = "i sends a probe, 3 shows the labs"
            self._take(Snapshot(state=RunState.IDLE, message=hint))
        else:
            self._start()

    def _hang_up(self, *_: object) -> None:
        """Leave; if the terminal is gone, what is still written goes nowhere.

        Textual's thread would die of the first write, and the screen wait for it for ever.  No
        handler of asyncio's: it would come after SIGCONT's, with which Textual writes again.
        """
        if not any(map(os.isatty, OUTPUTS)):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for each in OUTPUTS:
                os.dup2(nowhere, each)
        self.call_later(self.action_leave)

    def on_unmount(self) -> None:
        """Cancel the feed also where the screen itself failed."""
        self.runner.stop()

    def action_leave(self) -> None:
        """Cancel the feed and leave once it has cleaned up; asking twice changes nothing."""
        self._leaving = True
        self.runner.stop()
        if self._tracing:
            # The trace screen says what is waited for; dialogues have nothing more to ask.
            while not isinstance(self.screen, MainScreen):
                self.pop_screen()
            self._main.leave()
        else:
            self.exit(self._error)
