"""tracefs: where it is, and its files.

Where nobody has mounted tracefs it is mounted nowhere: fsmount(2) gives a descriptor of a mount
that no path leads to, and that is gone with it.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

MOUNTED = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
INSTANCES = "instances"

FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432
"""Numbers of the system calls: the same on every architecture (scripts/syscall.tbl)."""
FSOPEN_CLOEXEC, FSCONFIG_CMD_CREATE, FSMOUNT_CLOEXEC = 1, 6, 1
"""uapi/linux/mount.h."""

_libc = ctypes.CDLL(None, use_errno=True)


def root() -> int:
    """Return a descriptor of the root of tracefs; raises OSError."""
    for path in MOUNTED:
        with suppress(OSError):
            found = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if has(found, INSTANCES):
                return found
            os.close(found)
    return _detached_mount()


def _detached_mount() -> int:
    context = _call(FSOPEN, b"tracefs", FSOPEN_CLOEXEC)
    try:
        _call(FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0)
        return _call(FSMOUNT, context, FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)


def _call(number: int, *words: int | bytes | None) -> int:
    result = int(_libc.syscall(number, *words))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def has(directory: int, name: str) -> bool:
    """Tell whether there is a file of that name, from a descriptor of a folder on."""
    try:
        os.stat(name, dir_fd=directory)
    except OSError:
        return False
    return True


def read(directory: int, path: str) -> str:
    """Return what a file says; raises OSError."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)) as file:
        return file.read()


def write(directory: int, path: str, text: str) -> None:
    """Write `text` into a file that is there; raises OSError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory), "w") as file:
        file.write(text)


def names(directory: int, path: str) -> list[str]:
    """Return the names in a folder, in order; raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries)
    finally:
        os.close(folder)


@dataclass(frozen=True, slots=True)
class Directory:
    """A descriptor that is closed behind the block."""

    descriptor: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


def opened() -> Directory:
    """Return the root of tracefs, for a `with`; raises OSError."""
    return Directory(root())
