"""Reads and writes the files that the screen keeps for its user, and trusts no others."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

MOST_BYTES = 1 << 20


class Unusable(Exception):  # noqa: N818
    """A file of ours that is not to be used, and why."""


def read_own(path: Path) -> str | None:
    """Return the text of a regular file that only this user, or root, can have written.

    None if it does not exist; raises Unusable.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unusable(f"cannot read {path}: {error.strerror}") from error
    try:
        _check(path, os.fstat(descriptor))
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return file.read(MOST_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise Unusable(f"cannot read {path}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _check(path: Path, about: os.stat_result) -> None:
    """Raise Unusable unless a file can be trusted."""
    if not stat.S_ISREG(about.st_mode):
        raise Unusable(f"{path} is ignored: it is no regular file")
    if about.st_uid not in (0, os.geteuid()):
        raise Unusable(f"{path} is ignored: it belongs to user {about.st_uid}")
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Unusable(f"{path} is ignored: others may write to it")
    if about.st_size > MOST_BYTES:
        raise Unusable(f"{path} is ignored: it is larger than {MOST_BYTES:,} bytes")


def write_own(path: Path, text: str) -> None:
    """Replace a file by one with mode 0600, whole or not at all; raises Unusable."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.stat().st_uid not in (0, os.geteuid()):
            raise Unusable(f"{path} is not written: {path.parent} belongs to another user")
        with suppress(FileNotFoundError):
            new.unlink()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(new, flags, 0o600), "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
        new.replace(path)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise Unusable(f"cannot write {path}: {error.strerror}") from error


def config_home() -> Path:
    """Return the directory for configuration (XDG Base Directory Specification)."""
    return _home("XDG_CONFIG_HOME", ".config")


def state_home() -> Path:
    """Return the directory for what is remembered (XDG Base Directory Specification)."""
    return _home("XDG_STATE_HOME", ".local/state")


def _home(variable: str, default: str) -> Path:
    """A relative path in the variable is invalid and ignored, says the specification."""
    named = Path(os.environ.get(variable, ""))
    if named.is_absolute():
        return named / "ipttrace"
    home = os.environ.get("HOME", "")
    return Path(home if home.startswith("/") else "/root") / default / "ipttrace"
