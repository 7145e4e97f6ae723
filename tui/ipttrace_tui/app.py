"""The Textual application: runs the feed in a thread and hands its snapshots to the screen."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from textual import on
from textual.app import App
from textual.binding import Binding, BindingType
from textual.screen import Screen

from ipttrace.errors import IptTraceError
from ipttrace_tui.feed import Feed, FeedRunner, RunState, Snapshot
from ipttrace_tui.messages import FeedEnded, SnapshotArrived
from ipttrace_tui.screens.main import MainScreen
from ipttrace_tui.stale_rules import ReadRules
from ipttrace_tui.themes import default_variables, next_theme, wear

LEAVING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class IptTraceApp(App[IptTraceError | None]):
    """Leaves only when the feed has cleaned up; its result is the error of the last run."""

    CSS_PATH = Path(__file__).with_name("app.tcss")
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "repeat", "repeat"),
        Binding("t", "theme", "theme", tooltip="the next colours", show=False),
        Binding("question_mark", "help", "help", key_display="?"),
        Binding("q", "leave", "quit"),
        Binding("ctrl+c,ctrl+q", "leave", show=False, priority=True),
    ]

    def __init__(self, feed: Feed, title: str) -> None:
        super().__init__()
        self.title = title
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-normal"), (160, "-wide")]
        self.VERTICAL_BREAKPOINTS = [(0, "-short"), (34, "-tall")]
        self.runner = FeedRunner(feed)
        self._snapshot = Snapshot()
        self._error: IptTraceError | None = None
        self._tracing = False
        self._leaving = False
        wear(self)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Return the colours that themes of others lack."""
        return default_variables()

    @property
    def read_rules(self) -> ReadRules | None:
        """What reads the rules as they are now, where the feed can."""
        return getattr(self.runner.feed, "read_rules", None)

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

    def get_default_screen(self) -> Screen[None]:
        """Return the one screen."""
        return MainScreen(self.title)

    def on_ready(self) -> None:
        """Start the feed, and leave in good order whatever signal asks for it."""
        if threading.current_thread() is threading.main_thread():
            for each in LEAVING_SIGNALS:
                asyncio.get_running_loop().add_signal_handler(each, self.action_leave)
        self._start()

    def on_unmount(self) -> None:
        """Cancel the feed also where the screen itself failed."""
        self.runner.stop()

    def _start(self) -> None:
        self._tracing = True
        self._take(replace(self._snapshot, state=RunState.RUNNING, message=""))
        self.run_worker(self._trace, thread=True, name="feed")

    def _trace(self) -> None:
        """Run the feed; this is the feed's thread: it posts messages and touches no widget."""
        error = self.runner.run(lambda snapshot: self._tell(SnapshotArrived(snapshot)))
        self._tell(FeedEnded(error))

    def _tell(self, message: SnapshotArrived | FeedEnded) -> None:
        # The loop is closed where the screen is gone before the feed: nobody is left to tell.
        with contextlib.suppress(RuntimeError):
            self.post_message(message)

    def _take(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._main.show(snapshot)

    @property
    def _main(self) -> MainScreen:
        return next(screen for screen in self.screen_stack if isinstance(screen, MainScreen))

    @on(SnapshotArrived)
    def _show_snapshot(self, event: SnapshotArrived) -> None:
        self._take(event.snapshot)

    @on(FeedEnded)
    def _end_run(self, event: FeedEnded) -> None:
        self._tracing, self._error = False, event.error
        if event.error is not None:
            self._take(replace(self._snapshot, state=RunState.FAILED, message=str(event.error)))
        elif self._snapshot.state is RunState.RUNNING:
            self._take(replace(self._snapshot, state=RunState.FINISHED))
        if self._leaving:
            self.exit(self._error)

    def action_repeat(self) -> None:
        """Run the feed again, if it is not running."""
        if self._tracing or self._leaving:
            self.notify("the run is not over yet")
            return
        self._start()

    def action_help(self) -> None:
        """Show the help."""
        from ipttrace_tui.screens.help import HelpScreen

        self.push_screen(HelpScreen())

    def action_leave(self) -> None:
        """Cancel the feed and leave once it has cleaned up; asking twice changes nothing."""
        self._leaving = True
        self.runner.stop()
        if self._tracing:
            self._main.leave()
        else:
            self.exit(self._error)
