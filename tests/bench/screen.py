"""The screen as its user feels it: from a key to its paint, to the first paint, and its memory.

The screen runs in a terminal of its own, as a user's does, and what it writes there is read.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

PACKETS, RATE, PRESSES = 100_000, 1_000, 200
COLUMNS, LINES = 120, 40
DEADLINE = 60.0
DOWN, LEFT = b"j", b"\x1b[D"
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """A program in a terminal; leaving the block ends it."""

    def __init__(self, *command: str) -> None:
        self.begun = time.monotonic()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
            os.execv(command[0], command)
        size = struct.pack("HHHH", LINES, COLUMNS, 0, 0)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.write(b"q")
        if not self._ended():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)

    def _ended(self) -> bool:
        """Read what is left, so that the program can end; tell whether it did."""
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            self._read(0.05)
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return True
        return False

    def write(self, data: bytes) -> None:
        """Press keys."""
        os.write(self._fd, data)

    def until(self, text: str) -> float:
        """Read until a text was painted; return the time at which it was."""
        seen, wanted = b"", text.encode()
        deadline = time.monotonic() + DEADLINE
        while wanted not in ESCAPES.sub(b"", seen):
            assert time.monotonic() < deadline, f"never painted: {text}"
            seen = seen[-20_000:] + self._read(0.1)
        return time.monotonic()

    def _read(self, seconds: float) -> bytes:
        if not select.select([self._fd], [], [], seconds)[0]:
            return b""
        try:
            return os.read(self._fd, 1 << 16)
        except OSError:
            return b""

    def memory(self) -> float:
        """Return the MiB that the program holds now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def busy_screen(packets: int = PACKETS, rate: int = RATE) -> Terminal:
    """Return the screen over so many packets, while others come."""
    words = ("-m", "tests.bench.screen_program", str(os.getpid()), str(packets), str(rate))
    return Terminal(sys.executable, *words)


def key_seconds(screen: Terminal, presses: int = PRESSES, *, first: int = 0) -> list[float]:
    """Press keys that go to the next packet and to the hop before; return the time of each.

    The first packet is shown, or that which `first` presses led to.
    """
    return [_one(screen, number) for number in range(first, first + presses)]


def _one(screen: Terminal, number: int) -> float:
    packet = number // 2 + 2
    hop = 5 if packet % 2 else 2  # before that at which the packet died, or was changed
    down = (DOWN, f"way of packet {packet} ")
    key, text = down if number % 2 == 0 else (LEFT, f" at hop {hop} of 6")
    begin = time.monotonic()
    screen.write(key)
    return screen.until(text) - begin


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the samples are."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def first_paint(command: Sequence[str], text: str) -> float:
    """Return the seconds from the start of a program to its first paint."""
    with Terminal(*command) as screen:
        return screen.until(text) - screen.begun
