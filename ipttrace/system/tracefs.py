"""tracefs: where it is, and the instances of ours that are in it.

Where nobody has mounted tracefs it is mounted nowhere: fsmount(2) gives a descriptor of a mount
that no path leads to, and that is gone with it.  An instance stays when we die: it is found by its
name, and the session's guardian removes it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ipttrace.errors import KernelError
from ipttrace.ruleset import OWN_TABLE

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


def instance_name(session: str) -> str:
    """Return the name of a session's instance."""
    return OWN_TABLE + session


def instances(older_than: float = 0.0) -> list[str]:
    """Return the names of the instances of ours that are older than so many seconds.

    None where tracefs cannot be reached.
    """
    latest = time.time() - older_than
    with suppress(OSError), _opened() as directory:
        found = [name for name in names(directory.descriptor, INSTANCES) if is_ours(name)]
        return [name for name in found if _made(directory.descriptor, name) <= latest]
    return []


def _made(directory: int, name: str) -> float:
    return os.stat(f"{INSTANCES}/{name}", dir_fd=directory).st_mtime


def is_ours(name: str) -> bool:
    """Tell whether an instance of that name is of a session of ipttrace."""
    return name.startswith(OWN_TABLE)


def names(directory: int, path: str) -> list[str]:
    """Return the names in a folder, in order; raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries)
    finally:
        os.close(folder)


def remove_instance(name: str) -> bool:
    """Remove an instance; False if there is none.

    Raises KernelError if somebody still reads it: EBUSY of instance_rmdir in kernel/trace/trace.c.
    """
    try:
        with _opened() as directory:
            os.rmdir(f"{INSTANCES}/{name}", dir_fd=directory.descriptor)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EPERM, errno.ENODEV}:
            return False
        raise KernelError(f"cannot remove trace instance {name}: {error.strerror}") from error
    return True


@dataclass(frozen=True, slots=True)
class _Directory:
    descriptor: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


def _opened() -> _Directory:
    return _Directory(root())
