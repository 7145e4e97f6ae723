"""Becoming a shell, or a command, inside a namespace of a lab that is up."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ipttrace.errors import KernelError, NotSupportedError
from ipttrace.system import commands, user_namespace
from ipttrace.system.lab_records import Record
from ipttrace.system.namespaces import NAMED, Namespace
from ipttrace.system.netns_files import MNT_DETACH, mount, unmount

CLONE_NEWNS = 0x00020000
MS_REC, MS_SLAVE = 16384, 1 << 19
"""uapi/linux/sched.h, mount.h."""
SYSFS = Path("/sys")

_libc = ctypes.CDLL(None, use_errno=True)


def become(record: Record, namespace: str, command: Sequence[str]) -> None:
    """Enter a namespace and replace this process by a command, or by the user's shell.

    As `ip netns exec` does, /sys is that of the namespace.  Raises UsageError, NotPermittedError,
    NotSupportedError.
    """
    if record.user_namespace and record.keeper is not None:
        user_namespace.join(record.keeper.pid)
    real = record.namespaces[namespace]
    Namespace(real, NAMED / real).enter()
    _own_sysfs()
    arguments = list(command) or [os.environ.get("SHELL") or "/bin/sh"]
    path = commands.find(arguments[0])
    if path is None:
        raise NotSupportedError(f"cannot run {arguments[0]!r}: there is no such program")
    environment = {**os.environ, "IPTTRACE_LAB": record.name, "IPTTRACE_NETNS": real}
    try:
        os.execve(path, arguments, environment)  # noqa: S606
    except OSError as error:
        raise KernelError(f"cannot run {arguments[0]!r}: {error.strerror}") from error


def _own_sysfs() -> None:
    """Show the namespace's own devices below /sys; otherwise netlink alone tells of them."""
    with suppress(OSError):
        if _libc.unshare(CLONE_NEWNS) != 0:
            return
        mount(None, Path("/"), None, MS_SLAVE | MS_REC)
        with suppress(OSError):
            unmount(SYSFS, MNT_DETACH)
        mount(Path("lab"), SYSFS, "sysfs", 0)
