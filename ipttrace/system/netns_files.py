"""Making and deleting named network namespaces, as `ip netns` keeps them.

A name is an empty file on which the namespace's file of nsfs is mounted (ip-netns(8)).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from ipttrace.errors import KernelError, NotPermittedError
from ipttrace.system.namespaces import CLONE_NEWNET, NAMED

MS_BIND, MS_REC, MS_SHARED = 4096, 16384, 1 << 20
MNT_DETACH = 2
"""uapi/linux/mount.h, umount(2)."""

_libc = ctypes.CDLL(None, use_errno=True)


def create_namespace(name: str) -> None:
    """Make a network namespace called `name`; raises KernelError or NotPermittedError."""
    path = NAMED / name
    try:
        _prepare_directory()
        path.touch(mode=0o444, exist_ok=False)
        try:
            _in_thread(lambda: _mount_new(path))
        except BaseException:
            delete_namespace(name)  # Ctrl-C comes here while the thread mounts it all the same
            raise
    except OSError as error:
        kind = NotPermittedError if error.errno in (errno.EPERM, errno.EACCES) else KernelError
        raise kind(
            f"cannot make namespace {name}: {error.strerror}", "Run as root, or see ip-netns(8)."
        ) from error


def delete_namespace(name: str) -> bool:
    """Delete the name; whether it was there.  The kernel removes what nobody uses any more."""
    path = NAMED / name
    if not path.exists():
        return False
    with suppress(OSError):
        unmount(path, MNT_DETACH)
    path.unlink(missing_ok=True)
    return True


def _prepare_directory() -> None:
    """Make the directory a shared mount, so that a deleted name goes in all mount namespaces.

    Only the kernel knows whether it is a mount already: mount(2) refuses to change the propagation
    of what is none (EINVAL).  A second bind mount on a shared one would double all mounts below.
    """
    NAMED.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(NAMED, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _share_directory()
    finally:
        os.close(descriptor)


def _share_directory() -> None:
    try:
        mount(None, NAMED, None, MS_SHARED | MS_REC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        mount(NAMED, NAMED, None, MS_BIND | MS_REC)
        mount(None, NAMED, None, MS_SHARED | MS_REC)


def _mount_new(path: Path) -> None:
    _call(_libc.unshare, CLONE_NEWNET)
    mount(Path("/proc/thread-self/ns/net"), path, None, MS_BIND)


def mount(source: Path | None, target: Path, kind: str | None, flags: int) -> None:
    """Mount a file system or a file (mount(2)); raises OSError."""
    from_ = os.fsencode(source) if source else None
    type_ = kind.encode() if kind else b"none"
    _call(_libc.mount, from_, os.fsencode(target), type_, ctypes.c_ulong(flags), None)


def unmount(target: Path, flags: int) -> None:
    """Take a mount away (umount2(2)); raises OSError."""
    _call(_libc.umount2, os.fsencode(target), flags)


def _call(function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _in_thread(function: Callable[[], None]) -> None:
    with ThreadPoolExecutor(1, thread_name_prefix="netns") as pool:
        pool.submit(function).result()
