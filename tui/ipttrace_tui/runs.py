"""One run after another: a feed in a thread, its snapshots, and the packets of earlier runs."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from textual import on

from ipttrace.errors import CancelledError, IptTraceError
from ipttrace_tui.actions import OF_SCREENS, Actions
from ipttrace_tui.feed import Feed, FeedRunner, RunState, Snapshot
from ipttrace_tui.messages import FeedEnded, SnapshotArrived
from ipttrace_tui.past_runs import MOST, PastRuns, past_of

if TYPE_CHECKING:
    from ipttrace_tui.settings import Settings
    from ipttrace_tui.workbench import Workbench


class Runs(Actions):
    """Runs one feed at a time; another one that is asked for comes after it."""

    def __init__(self, feed: Feed | None, bench: Workbench | None, settings: Settings) -> None:
        super().__init__(bench, settings)
        self.runner = FeedRunner(feed)
        self._past = PastRuns()
        self._next: tuple[Feed, str] | None = None
        self._watch: tuple[Feed, str] | None = None
        """The last watch and its title."""
        self._snapshot = Snapshot()
        """Of the run that is under way, or of the last one."""
        self._shown = self._snapshot
        self._error: IptTraceError | None = None
        self._tracing = False
        self._newest_chosen = False
        self._leaving = False

    def start(self, feed: Feed, title: str) -> None:
        """Run another feed, after the run that is under way has been ended."""
        if self._tracing:
            if self._next is None and self._is_watching and not feed.live:
                self.notify("the watch was ended; w starts it again")
            self._next = feed, title
            self.runner.cancel()
        elif not self._leaving:
            self.runner.feed, self.title = feed, title
            self._main.rename(title)
            self._start()

    def _start(self) -> None:
        self._tracing = True
        if self.runner.feed is not None and self.runner.feed.live:
            self._watch = self.runner.feed, self.title or ""
        self.refresh_bindings()
        self._say_loss()
        self._past, self._newest_chosen = past_of(self._shown), False
        self._take(Snapshot(state=RunState.RUNNING))
        self.run_worker(self._trace, thread=True, name="feed")

    def _say_loss(self) -> None:
        """Say how many packets leave the list; a watch begins it anew, also where it is frozen."""
        anew = self.runner.feed is not None and self.runner.feed.live
        gone = len(self._shown.paths) - (0 if anew else MOST)
        if anew and self._main.table.frozen:
            self._main.action_freeze()
        if gone > 0:
            self.warn(f"{gone:,} packets of before left the list")

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
        if joined and not self._newest_chosen and not self._main.table.frozen:
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

    @property
    def traced_netns(self) -> str | None:
        """The namespace that the run was asked to trace."""
        feed = self.runner.feed
        return next(iter(feed.netns), None) if feed is not None else None

    @property
    def _is_watching(self) -> bool:
        feed = self.runner.feed
        return self._tracing and feed is not None and feed.live

    @property
    def under_way(self) -> str:
        """What another run would end, and how it is had back; empty if there is nothing."""
        if self._is_watching:
            return "the watch (w starts it again)"
        return "the run that is under way" if self._tracing else ""

    @on(SnapshotArrived)
    def _show_snapshot(self, event: SnapshotArrived) -> None:
        self._take(event.snapshot)

    @on(FeedEnded)
    def _end_run(self, event: FeedEnded) -> None:
        self._tracing, self._error = False, event.error
        self.refresh_bindings()
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

    async def action_repeat(self) -> None:
        """Run the feed again, if it is not running; without one open the form."""
        if self._tracing or self._leaving:
            self.notify("the run is not over yet")
        elif self.runner.feed is None:
            await self.action_inject()
        else:
            self.action_go("trace")
            self._start()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Return whether an action may be done: `watch` only where one was ended.

        Keys that were typed behind the one that leaves open no screen any more.
        """
        if self._leaving and action in OF_SCREENS:
            return False
        if action == "watch" and (self._watch is None or self._is_watching):
            return False
        return super().check_action(action, parameters)

    def action_watch(self) -> None:
        """Start the watch again that was ended."""
        if self._watch is not None:
            self.action_go("trace")
            self.start(*self._watch)

    def action_stop(self) -> None:
        """End the run that is under way."""
        if self._tracing:
            self.runner.cancel()
            self._take(replace(self._snapshot, message="ending the run …"))

    def action_forget(self) -> None:
        """Forget the packets of earlier runs."""
        self._past = PastRuns()
        self._take(self._snapshot)
