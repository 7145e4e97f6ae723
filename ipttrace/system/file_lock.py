"""Waiting for a lock (flock(2)) with a deadline, and saying for whom."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ipttrace.decode.text import clean_text

LOCKS = Path("/proc/locks")
POLL = 0.01
"""Seconds between two tries."""

SILENT = 0.5
"""Seconds to wait before saying so."""


def acquire(descriptor: int, seconds: float, notify: Callable[[str], None]) -> bool:
    """Take the lock of an open file; False if it is not had within `seconds`.

    `notify` is called once, with the holder if it is known, when the wait gets long.
    """
    start = time.monotonic()
    pause = threading.Event()
    told = False
    while not _try(descriptor):
        waited = time.monotonic() - start
        if waited > seconds:
            return False
        if waited > SILENT and not told:
            notify(holder(descriptor))
            told = True
        pause.wait(POLL)
    return True


def holder(descriptor: int) -> str:
    """Return who holds the lock of an open file: `NAME (pid N)`, or an empty string.

    A line of /proc/locks: `1: FLOCK  ADVISORY  WRITE 812 08:01:1573 0 EOF` (proc_locks(5)).
    """
    status = os.fstat(descriptor)
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in LOCKS.read_text().splitlines():
        words = line.split()
        if len(words) >= 6 and words[1] == "FLOCK" and words[5] == inode and words[4] != "-1":
            return _name(words[4])
    return ""


def _name(pid: str) -> str:
    try:
        name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return f"pid {pid}"
    return f"{clean_text(name)} (pid {pid})"


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
