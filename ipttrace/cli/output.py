"""The only place that prints: results to stdout, messages to stderr."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from typing import TextIO

from ipttrace.decode.text import clean_text
from ipttrace.errors import IptTraceError

PROGRAM = "ipttrace"


def lines(texts: Iterable[str]) -> None:
    """Print results for people; characters that the terminal lacks become `?`."""
    for text in texts:
        print(_printable(text, sys.stdout))
    sys.stdout.flush()


def record(line: bytes) -> None:
    """Print one JSON line; it is UTF-8 whatever the locale says."""
    sys.stdout.flush()
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


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
