"""The only place that prints: results to stdout, messages to stderr."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from ipttrace.decode.text import clean_text
from ipttrace.errors import IptTraceError, KernelError

PROGRAM = "ipttrace"


def lines(texts: Iterable[str]) -> None:
    """Print results for people; characters that the terminal lacks become `?`."""
    with _printing():
        for text in texts:
            print(_printable(text, sys.stdout))
        sys.stdout.flush()


def record(line: bytes) -> None:
    """Print one JSON line; it is UTF-8 whatever the locale says."""
    with _printing():
        sys.stdout.flush()
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()


@contextmanager
def _printing() -> Iterator[None]:
    """Say of a full disk or a dead terminal what it is; a closed pipe is left to the caller."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        hush()
        raise KernelError(f"cannot print the results: {error.strerror}") from error


@contextmanager
def unless_closed() -> Iterator[None]:
    """Go on in silence where the reader has gone, as `head` does: there is more to do."""
    try:
        yield
    except BrokenPipeError:
        hush()


def hush() -> None:
    """Let go of what is printed from now on: nobody can read it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def open_closed_streams() -> None:
    """Open what the caller closed, as in `>&-`: else the next socket would take its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8")


def note(text: str) -> None:
    """Tell the user something that is no result."""
    _message(text)


def error(problem: IptTraceError) -> None:
    """Say why the command ends."""
    _message(str(problem))


def _message(text: str) -> None:
    for line in text.splitlines():
        message = _printable(f"{PROGRAM}: {clean_text(line)}", sys.stderr)
        print(message, file=sys.stderr, flush=True)


def _printable(text: str, stream: TextIO) -> str:
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def width() -> int | None:
    """Return the columns of the terminal; None where stdout is a pipe or a file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def color() -> bool:
    """Return whether stdout wants colour (https://no-color.org)."""
    return wants_color(os.environ, terminal=sys.stdout.isatty())


def wants_color(environment: Mapping[str, str], *, terminal: bool) -> bool:
    """Return whether a stream wants colour: a terminal that knows any, and no NO_COLOR."""
    plain = environment.get("NO_COLOR") or environment.get("TERM") == "dumb"
    return terminal and not plain
