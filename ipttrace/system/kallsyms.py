"""Names of kernel functions by address, from /proc/kallsyms; read when first asked for (0.1 s)."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path

SYMBOLS = Path("/proc/kallsyms")
LONGEST = 1 << 20
"""Bytes: an address further behind a symbol is not in that function."""


class Kallsyms:
    """The functions of the running kernel; knows none where addresses are hidden."""

    def __init__(self, path: Path = SYMBOLS) -> None:
        try:
            self._lines = path.read_bytes().split(b"\n")
        except OSError:
            self._lines = []
        self._known: dict[int, str | None] = {}

    def name(self, address: int) -> str | None:
        """Return the function that an address lies in."""
        if address not in self._known:
            self._known[address] = self._look(address)
        return self._known[address]

    def _look(self, address: int) -> str | None:
        """Search the kernel's own symbols, which stand first and sorted, then the modules'."""
        if not address:
            return None
        at = bisect_right(self._lines, b"%016x" % address, key=lambda line: line[:16]) - 1
        found = self._function_at(at, address)
        if found is not None:
            return found
        best: tuple[int, bytes] = (0, b"")
        for line in self._lines:
            if b"[" in line and line[17:18] in b"tT":
                start = int(line[:16], 16)
                if start <= address and start > best[0]:
                    best = start, line
        return _name(best[1]) if 0 <= address - best[0] < LONGEST else None

    def _function_at(self, at: int, address: int) -> str | None:
        while 0 <= at < len(self._lines):
            line = self._lines[at]
            start = int(line[:16] or b"0", 16)
            if not 0 <= address - start < LONGEST or b"[" in line:
                return None
            if line[17:18] in b"tTwW":
                return _name(line)
            at -= 1
        return None


def _name(line: bytes) -> str | None:
    words = line.split()
    return words[2].decode(errors="replace") if len(words) > 2 else None
