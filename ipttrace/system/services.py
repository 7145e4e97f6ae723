"""The keeper of a lab: a process that holds its listeners, and takes it down when we are gone.

It reads JSON lines from its stdin.  The first names the namespaces that the lab will have and the
lab's record; each of the others is a list of services, which it opens, or the word `stay`; it
answers with `ready` or the reason why not.  At the end of its stdin, which comes also when its
parent is killed, it closes the services and deletes the namespaces; after `stay` it does so on
SIGTERM.  A service sends back what it gets.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ipttrace.errors import KernelError
from ipttrace.system.listeners import Services
from ipttrace.system.netns_files import delete_namespace

DOWN_TIMEOUT = 5.0
"""Seconds that deleting a lab may take."""
ANSWER_TIMEOUT = 10.0
"""Seconds that opening its services may take."""


class Keeper:
    """The parent's side: starts the process, tells it what to open, lets it go."""

    def __init__(self, namespaces: Sequence[str], record: Path | None = None) -> None:
        self.namespaces = tuple(namespaces)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ipttrace.system.services"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._say({"namespaces": list(namespaces), "record": str(record) if record else None})

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def open(self, services: Sequence[Mapping[str, Any]]) -> None:
        """Open listeners (see `lab_builder`); raises KernelError."""
        self._ask(list(services), "open the services of the lab")

    def stay(self) -> None:
        """Have the process go on when this one ends."""
        self._ask("stay", "keep the lab up")

    def let_go(self) -> None:
        """Leave the process, which stays, to itself."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with suppress(OSError):
                    stream.close()

    def close(self) -> Sequence[str]:
        """Let the process close and delete everything; return warnings."""
        self.let_go()
        try:
            self._process.wait(DOWN_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        left = [name for name in self.namespaces if delete_namespace(name)]
        return [f"namespace {name} was not deleted by the lab's keeper: done now" for name in left]

    def _ask(self, words: object, tried: str) -> None:
        self._say(words)
        stdout = self._process.stdout
        answer = ""
        if stdout and select.select([stdout], [], [], ANSWER_TIMEOUT)[0]:
            answer = stdout.readline().strip()
        if answer != "ready":
            raise KernelError(answer or f"cannot {tried}: their process ended")

    def _say(self, words: object) -> None:
        stdin = self._process.stdin
        if stdin is None:
            return
        try:
            stdin.write(json.dumps(words) + "\n")
            stdin.flush()
        except OSError as error:
            raise KernelError(f"cannot reach the keeper of the lab: {error.strerror}") from error


def _end(*_: object) -> None:
    raise SystemExit


def _answer(words: str) -> None:
    with suppress(OSError):
        sys.stdout.write(words + "\n")
        sys.stdout.flush()


def _first_line() -> bytes:
    """Read one line, and nothing of the next."""
    line = b""
    while not line.endswith(b"\n"):
        char = os.read(0, 1)
        if not char:
            return b""
        line += char
    return line


def main() -> None:
    """Be the keeper process."""
    signal.signal(signal.SIGTERM, _end)
    os.chdir("/")
    first = _first_line()
    lab = json.loads(first) if first else {"namespaces": [], "record": None}
    try:
        Services(0, _answer).serve()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for name in lab["namespaces"]:
            delete_namespace(name)
        if lab["record"]:
            Path(lab["record"]).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
