"""Writing a file as a whole: who reads it sees the old one or the new one, never a part."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from ipttrace.decode.text import clean_text
from ipttrace.errors import UsageError

READABLE = 0o666
"""Less the umask, as open(2) does: not tempfile's 0600, for CI reads as another user."""


def check_writable(file: str) -> None:
    """Raise UsageError now, before long work, if a file could not be written then."""
    path = _target(file)
    if path.is_dir():
        raise UsageError(f"cannot write {clean_text(file)}: it is a directory")
    if not path.parent.is_dir():
        raise UsageError(
            f"cannot write {clean_text(file)}: there is no directory {clean_text(str(path.parent))}"
        )
    place = path if path.exists() and not path.is_file() else path.parent
    if not os.access(place, os.W_OK):
        raise UsageError(f"cannot write {clean_text(file)}: Permission denied")


def write_whole(file: str, content: bytes, mode: int = READABLE) -> None:
    """Put `content` in place of the file; raises UsageError, and then the old one is as it was.

    `mode` is less the umask.  A symbolic link stays one.  A pipe or a device is written
    to, for it cannot be replaced.
    """
    path = _target(file)
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
        else:
            _replace(path, content, mode)
    except OSError as error:
        raise UsageError(f"cannot write {clean_text(file)}: {error.strerror}") from error


def _target(file: str) -> Path:
    """Return what is to be replaced; a pipe or a device by the name that leads there."""
    try:
        path = Path(file)
        return path if path.exists() and not path.is_file() else Path(os.path.realpath(file))
    except ValueError as error:
        raise UsageError(f"cannot write {clean_text(file)}: {error}") from error


def _replace(path: Path, content: bytes, mode: int) -> None:
    part = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(descriptor)
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
