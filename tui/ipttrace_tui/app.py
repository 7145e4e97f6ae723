"""The Textual application: runs the feed in a thread and hands its snapshots to the screen."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.screen import Screen

from ipttrace.errors import CancelledError, IptTraceError
from ipttrace_tui.actions import Actions
from ipttrace_tui.feed import Feed, FeedRunner, RunState, Snapshot
from ipttrace_tui.messages import FeedEnded, SnapshotArrived
from ipttrace_tui.past_runs import PastRuns, past_of
from ipttrace_tui.screens.main import MainScreen
from ipttrace_tui.settings import Settings
from ipttrace_tui.stale_rules import ReadRules
from ipttrace_tui.themes import default_variables, next_theme, wear

if TYPE_CHECKING:
    from ipttrace_tui.workbench import Workbench

LEAVING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class IptTraceApp(Actions):
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
        super().__init__(bench, settings or Settings())
        self.title = title
        self.runner = FeedRunner(feed)
        self._notices = notices
        self._past = PastRuns()
        self._next: tuple[Feed, str] | None = None
        self._snapshot = Snapshot()
        """Of the run that is under way, or of the last one."""
        self._shown = self._snapshot
        self._error: IptTraceError | None = None
        self._tracing = False
        self._newest_chosen = False
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
            self.bench.close()

    def get_default_screen(self) -> Screen[None]:
        """Return the one screen."""
        return MainScreen(self.title)

    def on_ready(self) -> None:
        """Start the feed, and leave in good order whatever signal asks for it."""
        if threading.current_thread() is threading.main_thread():
            for each in LEAVING_SIGNALS:
                asyncio.get_running_loop().add_signal_handler(each, self.action_leave)
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

    def on_unmount(self) -> None:
        """Cancel the feed also where the screen itself failed."""
        self.runner.stop()

    def start(self, feed: Feed, title: str) -> None:
        """Run another feed, after the run that is under way has been ended."""
        if self._tracing:
            self._next = feed, title
            self.runner.cancel()
        elif not self._leaving:
            self.runner.feed, self.title = feed, title
            self._main.rename(title)
            self._start()

    def _start(self) -> None:
        self._tracing = True
        self._past, self._newest_chosen = past_of(self._shown), False
        self._take(Snapshot(state=RunState.RUNNING))
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
        self._shown = self._past.join(snapshot)
        self._main.show(self._shown)
        joined = len(self._shown.paths) > len(snapshot.paths) > 0
        if joined and not self._newest_chosen:
            self._newest_chosen = True
            self._main.select(self._shown.paths[len(self._past.paths)].id)

    @property
    def shown(self) -> Snapshot:
        """All that the trace screen shows."""
        return self._shown

    @property
    def busy(self) -> bool:
        """Whether a run is under way."""
        return self._tracing

    @on(SnapshotArrived)
    def _show_snapshot(self, event: SnapshotArrived) -> None:
        self._take(event.snapshot)

    @on(FeedEnded)
    def _end_run(self, event: FeedEnded) -> None:
        self._tracing, self._error = False, event.error
        if isinstance(event.error, CancelledError) and not self._leaving:
            self._error = None
            self._take(replace(self._snapshot, state=RunState.FINISHED, message="ended early"))
        elif event.error is not None:
            self._take(replace(self._snapshot, state=RunState.FAILED, message=str(event.error)))
        elif self._snapshot.state is RunState.RUNNING:
            self._take(replace(self._snapshot, state=RunState.FINISHED))
        if self._leaving:
            self.exit(self._error)
        elif self._next is not None:
            (feed, title), self._next = self._next, None
            self.start(feed, title)

    def action_repeat(self) -> None:
        """Run the feed again, if it is not running; without one open the form."""
        if self._tracing or self._leaving:
            self.notify("the run is not over yet")
        elif self.runner.feed is None:
            self.action_inject()
        else:
            self.action_go("trace")
            self._start()

    def action_stop(self) -> None:
        """End the run that is under way."""
        if self._tracing:
            self.runner.cancel()
            self._take(replace(self._snapshot, message="ending the run …"))

    def action_forget(self) -> None:
        """Forget the packets of earlier runs."""
        self._past = PastRuns()
        self._take(self._snapshot)

    def action_leave(self) -> None:
        """Cancel the feed and leave once it has cleaned up; asking twice changes nothing."""
        self._leaving = True
        self.runner.stop()
        if self._tracing:
            self._main.leave()
        else:
            self.exit(self._error)
