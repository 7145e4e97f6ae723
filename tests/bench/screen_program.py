"""The screen over a list of many packets while more come in; started by tests/bench/screen.py.

usage: python -m tests.bench.screen_program PARENT PACKETS RATE
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

from ipttrace.ruleset import Ruleset

PR_SET_PDEATHSIG = 1
"""include/uapi/linux/prctl.h"""
TURN = 0.01
"""Seconds between two portions of packets."""
PACE = 0.1
"""Seconds between two snapshots, as of a watch."""


def die_with(parent: int) -> None:
    """Let the kernel kill us when `parent` ends, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent is gone")


def many_packets() -> Iterator[object]:
    """Yield packets that differ as live ones do: in times, ports and numbers."""
    from tests.builders import TIME, mark_drop_path, redirect_path
    from tests.tui.builders import MARK_DROP

    kinds = (redirect_path(), mark_drop_path(diagnosis=MARK_DROP))
    for number in count(1):
        path = kinds[number % 2]
        now = TIME + number / 1000
        packet = replace(
            path.packet,
            src=f"203.0.{number % 113}.{number % 251}",
            sport=1024 + number % 60000,
            ip_id=number % 65536,
            tcp_seq=number * 7919,
        )
        hops = tuple(replace(hop, time=now + n * 1e-6) for n, hop in enumerate(path.hops))
        yield replace(path, id=number, time=now, packet=packet, hops=hops)


class BusyFeed:
    """A watch in which packets come at a steady rate."""

    live = True
    netns: tuple[str, ...] = ()

    def __init__(self, packets: int, rate: int) -> None:
        from ipttrace_tui.packet_log import PacketLog

        self._rate = rate
        self._log = PacketLog(slack=1_000_000)  # none is let go while keys are timed
        self._packets = many_packets()
        for _ in range(packets):
            self._log.append(next(self._packets))  # type: ignore[arg-type]

    def run(self, publish: Callable[..., None], cancelled: Callable[[], bool]) -> None:
        """Add packets until cancelled."""
        from ipttrace_tui.feed import Snapshot
        from tests.builders import article_rules

        rules: dict[str | None, Ruleset] = {"server": article_rules()}
        pause, begin, added, told = threading.Event(), time.monotonic(), 0, 0.0
        while not cancelled():
            for _ in range(int((time.monotonic() - begin) * self._rate) - added):
                self._log.append(next(self._packets))  # type: ignore[arg-type]
                added += 1
            if time.monotonic() - told >= PACE:
                told = time.monotonic()
                publish(Snapshot(self._log.view(), rulesets=rules, limit=self._rate))
            pause.wait(TURN)


def main() -> None:
    """Open the screen until q is pressed."""
    parent, packets, rate = (int(word) for word in sys.argv[1:])
    die_with(parent)
    from ipttrace_tui.app import IptTraceApp

    IptTraceApp(BusyFeed(packets, rate), "bench").run()


if __name__ == "__main__":
    main()
