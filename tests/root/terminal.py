"""The program in a real terminal: tmux without a display, keys in, characters out."""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.waiting import wait_until

PROGRAM = Path(sys.executable).with_name("ipttrace")
DEADLINE = 30.0
LEFT, WHEEL_UP, WHEEL_DOWN = 0, 64, 65


class Terminal:
    """A terminal of its own tmux server, of 120 x 40 unless told otherwise."""

    def __init__(
        self, *words: str, environment: Mapping[str, str], size: tuple[int, int] = (120, 40)
    ) -> None:
        self._gone = False
        self._server = f"ipt-{os.getpid()}-{secrets.token_hex(3)}"
        settings = [f"{name}={value}" for name, value in environment.items()]
        command = shlex.join(
            ["env", "-u", "COLUMNS", "-u", "LINES", *settings, str(PROGRAM), *words]
        )
        width, height = map(str, size)
        # The shell stays, so that what the program leaves on the screen can be read.
        self._tmux(
            "new-session", "-d", "-x", width, "-y", height, f"{command}; echo status $?; exec cat"
        )

        # What the program gives to the terminal's clipboard is a buffer of this server.
        self._tmux("set-option", "-s", "set-clipboard", "on")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._gone:
            self._tmux("kill-server")

    def vanish(self) -> None:
        """Close the terminal under the program, as a lost connection does."""
        self._tmux("kill-server")
        self._gone = True

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-L", self._server, *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names of them: `Enter`, `Tab`, `C-u`, `i`."""
        for key in keys:
            self._tmux("send-keys", key)

    def type(self, text: str) -> None:
        """Type a text."""
        self._tmux("send-keys", "-l", text)

    def click(self, column: int, row: int) -> None:
        """Press and release the left button at a cell, counted from 0."""
        self._mouse(LEFT, column, row)
        self._mouse(LEFT, column, row, "m")

    def wheel(self, column: int, row: int, *, down: bool = True) -> None:
        """Turn the wheel by one notch over a cell."""
        self._mouse(WHEEL_DOWN if down else WHEEL_UP, column, row)

    def _mouse(self, button: int, column: int, row: int, end: str = "M") -> None:
        """Send what a terminal sends that was asked for the mouse (xterm's SGR, mode 1006)."""
        self._tmux("send-keys", "-l", f"\x1b[<{button};{column + 1};{row + 1}{end}")

    def find(self, words: str, after: str = "") -> tuple[int, int]:
        """Wait for a line that holds the words, below one with `after`; return column and row."""
        self.shows(words)
        lines = self.text().splitlines()
        start = next((n for n, line in enumerate(lines) if after in line), 0)
        row = next(n for n, line in enumerate(lines) if n >= start and words in line)
        return lines[row].index(words), row

    def clipboard(self) -> str:
        """Return what the program gave to the terminal's clipboard last; empty before that."""
        done = subprocess.run(
            ["tmux", "-L", self._server, "show-buffer"], capture_output=True, text=True, check=False
        )
        return done.stdout

    def clear(self, words: str) -> None:
        """Empty the field in which these words stand, as soon as it takes keys."""

        def empty() -> bool:
            self.press("C-u")
            return words not in self.text()

        wait_until(empty, DEADLINE, f"no {words}")

    def text(self) -> str:
        """Return the characters on the screen."""
        return self._tmux("capture-pane", "-p")

    def shows(self, words: str) -> None:
        """Wait until the words are on the screen."""
        try:
            wait_until(lambda: words in self.text(), DEADLINE, words)
        except AssertionError as error:
            raise AssertionError(f"never shown: {words!r} on\n{self.text()}") from error

    def pid(self) -> int:
        """Return the program's process."""
        shell = self._tmux("display-message", "-p", "#{pane_pid}").strip()
        found: list[int] = []

        def look() -> bool:
            children = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
            found[:] = [int(each) for each in children if _is_ours(int(each))]
            return bool(found)

        wait_until(look, DEADLINE, "the program's process")
        return found[0]


def _is_ours(pid: int) -> bool:
    try:
        return b"ipttrace" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
