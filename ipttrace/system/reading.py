"""Reading a source that may be absent, closed or strange."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ipttrace.checkup.facts import Unknown
from ipttrace.errors import IptTraceError

T = TypeVar("T")


def attempt(read: Callable[[], T]) -> T | Unknown:
    """Return what `read` returns, or why it could not."""
    try:
        return read()
    except IptTraceError as error:
        return Unknown(error.message, error.hint)
    except OSError as error:
        return Unknown(error.strerror or str(error))
    except (ValueError, IndexError) as error:
        return Unknown(f"it reads strangely ({error})")


def text_of(path: Path) -> str | None:
    """Return what a file says, None if there is none; OSError if it is closed."""
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None
