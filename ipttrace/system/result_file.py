"""Writes a file of results whole or not at all, and never over another in silence.

The content may hold addresses, rules and a packet's first bytes: only its owner may read it.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from ipttrace.errors import KernelError, UsageError

MODE = 0o600
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class FileExistsAlready(UsageError):  # noqa: N818 -- it says what is, not that a program failed
    """The user has to say whether a file is to be replaced."""


def check_writable(name: str, *, replace: bool) -> Path:
    """Return the path of a file that can be written, before anything else is done.

    Raises UsageError where it is plain now that writing will fail, and FileExistsAlready.
    """
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            raise UsageError(f"cannot write {path}: it is a directory")
        if not path.parent.is_dir():
            raise UsageError(f"cannot write {path}: there is no directory {path.parent}")
        if path.is_symlink() or path.exists():
            _check_present(path, replace=replace)
    except OSError as error:
        raise _failed(path, error) from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(
            f"cannot write {path}: Permission denied in {path.parent.absolute()}",
            "Name a file in a directory that you may write to.",
        )
    return path


def _check_present(path: Path, *, replace: bool) -> None:
    if not replace:
        raise _taken(path)
    if not (path.is_file() or path.is_symlink()):
        raise UsageError(f"cannot write {path}: it is no regular file")


def write_whole(path: Path, content: bytes, *, replace: bool) -> None:
    """Write beside the file and then give it its name, so that it is never half there.

    A new name is given by link(2), which fails where the name was taken meanwhile; a symbolic link
    is replaced, not followed.  Raises FileExistsAlready and KernelError.
    """
    part = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        _write_new(part, content)
        if replace:
            part.replace(path)
        else:
            _link(part, path)
    except FileExistsError as error:
        raise _taken(path) from error
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        with suppress(OSError):
            part.unlink()


def open_new(path: Path, *, replace: bool) -> int:
    """Return the descriptor of a new file, to be written bit by bit.

    Raises FileExistsAlready and KernelError.
    """
    try:
        if replace:
            path.unlink(missing_ok=True)
        return os.open(path, NEW, MODE)
    except FileExistsError as error:
        raise _taken(path) from error
    except OSError as error:
        raise _failed(path, error) from error


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`; raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _write_new(part: Path, content: bytes) -> None:
    with os.fdopen(os.open(part, NEW, MODE), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _link(part: Path, path: Path) -> None:
    """Give a file its name; file systems without hard links (vfat) take it by rename(2)."""
    try:
        path.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError:
        if path.is_symlink() or path.exists():
            raise FileExistsError from None
        part.rename(path)


def _taken(path: Path) -> FileExistsAlready:
    return FileExistsAlready(
        f"cannot write {path}: there is such a file already",
        "Name another one, or replace it with --force.",
    )


def _failed(path: Path, error: OSError) -> KernelError:
    reason = error.strerror or str(error)
    return KernelError(
        f"cannot write {path}: {reason}", "Nothing was left there; name a file elsewhere."
    )
