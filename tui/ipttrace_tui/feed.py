"""Where the screen's snapshots come from; nothing here knows the screen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from ipttrace.errors import IptTraceError
from ipttrace.path import PacketPath
from ipttrace.result import TraceResult, TraceTotals
from ipttrace.ruleset import Ruleset


class RunState(StrEnum):
    """How far a run has come."""

    IDLE = "idle"
    """Nothing was asked for yet."""
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that the screen shows, at one moment of one run."""

    paths: Sequence[PacketPath] = ()
    totals: TraceTotals = field(default_factory=TraceTotals)
    trigger: str = "raw"
    backends: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    state: RunState = RunState.RUNNING
    message: str = ""
    """What is being done, or the error that ended the run."""
    rulesets: Mapping[str | None, Ruleset] = field(default_factory=dict, compare=False)
    """The rules that the packets met, by namespace, as far as they were read."""
    limit: int | None = None
    """Packets a second that are traced at most, where the run has a limit."""
    missing: str = ""
    """What the run cannot see: evidence that is not gathered."""

    @classmethod
    def of(cls, result: TraceResult) -> Snapshot:
        """Return the snapshot of a run that is over."""
        return cls(
            result.paths,
            result.totals,
            result.trigger,
            result.backends,
            result.warnings,
            RunState.FINISHED,
            _client_words(result),
            result.rulesets,
        )


def _client_words(result: TraceResult) -> str:
    return f"client {' '.join(result.client)}" if result.client else ""


class Feed(Protocol):
    """Traces, and publishes what it has so far."""

    @property
    def netns(self) -> tuple[str, ...]:
        """The namespaces that were asked for by name; none where it is that of this program."""
        ...

    @property
    def live(self) -> bool:
        """Whether it is a watch: it goes on until it is ended."""
        ...

    def run(self, publish: Callable[[Snapshot], None], cancelled: Callable[[], bool]) -> None:
        """Run until done or `cancelled()`, and clean up before returning or raising.

        It is called in a thread of its own, again for each repetition, never twice at a time.
        An IptTraceError is shown on the screen.
        """
        ...


class FeedRunner:
    """Runs a feed, one run at a time, and knows when it has cleaned up."""

    def __init__(self, feed: Feed | None) -> None:
        self.feed = feed
        """What the next run is of; None for nothing."""
        self._one_at_a_time = threading.Lock()
        self._stop = threading.Event()
        self._cancel = threading.Event()
        self._idle = threading.Event()
        self._idle.set()

    @property
    def idle(self) -> bool:
        """Whether no run is under way."""
        return self._idle.is_set()

    def run(self, publish: Callable[[Snapshot], None]) -> IptTraceError | None:
        """Run the feed to its end; return the error that ended it, if one did."""
        with self._one_at_a_time:
            self._idle.clear()
            try:
                if self.feed is not None and not self._stop.is_set():
                    self.feed.run(publish, self._cancelled)
            except IptTraceError as error:
                return error
            finally:
                self._cancel.clear()
                self._idle.set()
        return None

    def _cancelled(self) -> bool:
        return self._stop.is_set() or self._cancel.is_set()

    def cancel(self) -> None:
        """Cancel the run that is under way, if one is, and no later one."""
        if not self.idle:
            self._cancel.set()

    def stop(self) -> None:
        """Cancel the run that is under way, and all later ones."""
        self._stop.set()

    def stop_and_wait(self) -> None:
        """Cancel, and return when the feed has cleaned up, whatever signal comes meanwhile."""
        self.stop()
        while not self._idle.is_set():
            try:
                self._idle.wait()
            except KeyboardInterrupt:
                continue
