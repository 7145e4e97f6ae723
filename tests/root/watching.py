"""A watch in the background of a test: armed as its block begins, complete when it has ended."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Self

from ipttrace.cli.compose import open_side
from ipttrace.netfilter import Hook
from ipttrace.path import PacketPath
from ipttrace.request import TraceRequest, Trigger
from ipttrace.result import TraceResult
from ipttrace.system.clock import SystemClock
from ipttrace.system.pcap_filter import compile_filter
from ipttrace.tracer import Side
from ipttrace.watch import WatchLimits, WatchSession
from tests.root.kernel import in_namespace
from tests.waiting import wait_until

READY, DONE = 20.0, 20.0
"""Seconds."""


class Watching:
    """`ipttrace watch FILTER --netns NETNS --limit none`, with its paths as values."""

    def __init__(
        self,
        netns: str | tuple[str, ...],
        text: str,
        trigger: Trigger = Trigger.RAW,
        limit: int | None = None,
    ) -> None:
        self.paths: list[PacketPath] = []
        """In the order of their times; all of them when the block has ended."""
        self.result: TraceResult | None = None
        self.notes: list[str] = []
        self._netns = (netns,) if isinstance(netns, str) else netns
        self._request = TraceRequest(
            session=secrets.token_hex(4),
            filter=compile_filter(text),
            hooks=(Hook.PREROUTING, Hook.OUTPUT),
            trigger=trigger,
            limit=limit,
        )
        self._armed, self._stop = threading.Event(), threading.Event()
        self._session: WatchSession | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(self._is_ready, READY, what=f"armed in {self._netns}")
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(DONE)
        if self._failure is not None:
            raise self._failure

    def wait_for(self, packets: int) -> None:
        """Return once that many packets were given out."""
        wait_until(lambda: len(self.paths) >= packets, DONE, what=f"{packets} packets traced")

    def wait_for_change(self) -> None:
        """Return once the watch knows that rules were changed."""
        wait_until(self._knows_of_change, DONE, what="a change of rules is known")

    def _knows_of_change(self) -> bool:
        assert self._session is not None
        if any(tracer._rules_are_new for tracer in self._session._tracers.values()):
            return False
        return any("rules were changed" in each for each in self._session.so_far().warnings)

    def _is_ready(self) -> bool:
        return self._armed.is_set() or not self._thread.is_alive()

    def _watch(self) -> None:
        try:
            self._trace()
        except BaseException as error:  # noqa: BLE001 - the test's thread raises it
            self._failure = error

    def _trace(self) -> None:
        clock = SystemClock()
        with ExitStack() as cleaning:
            sides: list[Side] = []
            for netns in self._netns:
                guardian, side = open_side(
                    in_namespace(netns), self._request.session, None, clock, self.notes.append
                )
                cleaning.callback(guardian.disarm)
                sides.append(side)
            self._session = WatchSession(sides, clock, WatchLimits(), self._is_over)
            self.result = self._session.run(self._request, self.paths.append)

    def _is_over(self) -> bool:
        """Say that all is armed, which is so when the session asks; tell whether to end."""
        self._armed.set()
        return self._stop.is_set()


def of_protocol(paths: Iterable[PacketPath], *protocols: str) -> list[PacketPath]:
    """Return the paths of packets of these protocols."""
    return [path for path in paths if path.packet.protocol in protocols]
