"""The programs that read trace reports, and the CPU that each of them spent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.figures import OURS
from tests.root.kernel import Endpoint, in_namespace
from tests.waiting import wait_until

NETLINK_NETFILTER = 12
NFTRACE_MEMBER = 1 << 8
"""NFNLGRP_NFTRACE is group 9: bit 8 in the Groups column of /proc/net/netlink."""

QUIET = 0.3
"""Seconds without CPU time after which a reader has read everything."""

PROGRAMS: dict[str, list[str]] = {
    OURS: [sys.executable, "-m", "tests.bench.reader"],
    "nft monitor trace": ["nft", "monitor", "trace"],
    "xtables-monitor --trace": ["xtables-monitor", "--trace"],
}


class ReaderDiedError(Exception):
    """A program ended while it was measured: xtables-monitor does at its first ENOBUFS."""


class Reader:
    """A running program that is a member of the trace group."""

    def __init__(self, process: subprocess.Popen[str], endpoint: Endpoint) -> None:
        self._process = process
        self._table = Path(f"/proc/{process.pid}/net/netlink")
        self._others = 0
        wait_until(self._is_member, what=f"{process.args!r} in {endpoint.netns} reads traces")
        self._begin = self._cpu()

    def _rows(self) -> Iterator[list[str]]:
        for line in self._table.read_text().splitlines()[1:]:
            row = line.split()
            if int(row[1]) == NETLINK_NETFILTER and int(row[3], 16) & NFTRACE_MEMBER:
                yield row

    def _is_member(self) -> bool:
        assert self._process.poll() is None, f"{self._process.args!r} ended"
        return any(self._rows())

    def _cpu(self) -> float:
        """Return the user and system time of all threads, in seconds (proc(5), schedstat)."""
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def drops(self) -> int:
        """Return how many messages the kernel threw away because the program was too slow."""
        self._check()
        return sum(int(row[8]) for row in self._rows())

    def cpu(self) -> float:
        """Return the CPU seconds since the start, once the program has read everything."""
        pause = threading.Event()
        last = -1.0
        deadline = time.monotonic() + 30
        while (now := self._cpu()) != last:
            assert time.monotonic() < deadline, f"{self._process.args!r} does not come to rest"
            last = now
            pause.wait(QUIET)
        self._check()
        return now - self._begin

    def _check(self) -> None:
        if self._process.poll() is not None:
            raise ReaderDiedError


@contextmanager
def reading(program: str, endpoint: Endpoint) -> Iterator[Reader]:
    """Run `program` in the endpoint's namespace on the last CPU, its output to nowhere."""
    process = _start(program, endpoint, subprocess.DEVNULL)
    try:
        yield Reader(process, endpoint)
    finally:
        process.terminate()
        process.wait(10)


def hops_of(endpoint: Endpoint, send: Callable[[], int]) -> float:
    """Return how many hops each packet of `send()` has, by our own reader's count."""
    process = _start(OURS, endpoint, subprocess.PIPE)
    reader = Reader(process, endpoint)
    packets = send()
    reader.cpu()
    process.terminate()
    counted = json.loads(process.communicate(timeout=10)[0])
    assert counted["lost"] == 0, counted
    assert counted["paths"] == packets, counted
    return float(counted["hops"] / packets)


def _start(program: str, endpoint: Endpoint, stdout: int) -> subprocess.Popen[str]:
    process = in_namespace(endpoint.netns).run(
        lambda: subprocess.Popen(PROGRAMS[program], stdout=stdout, text=True)
    )
    os.sched_setaffinity(process.pid, {(os.cpu_count() or 1) - 1})
    return process
