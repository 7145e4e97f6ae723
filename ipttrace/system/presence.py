"""How the sessions that work in one namespace know of each other, also after a crash.

Each holds a listening unix socket with an abstract name `ipttrace/<session>/<loggers>`.  Such a
name belongs to the network namespace and goes with the last process that holds it (unix(7)), so
none is ever stale.  A name counts only if its owner is our user (SO_PEERCRED).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ipttrace.errors import KernelError
from ipttrace.system import file_lock
from ipttrace.system.nf_log import Loggers, read_loggers

PREFIX = "ipttrace/"
SOCKETS = Path("/proc/thread-self/net/unix")
NAMESPACE = Path("/proc/thread-self/ns/net")
BACKLOG = 64
LOCK_WAIT = 1.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Session:
    """One session at work in this namespace."""

    name: str
    loggers: Loggers
    """The nf_log settings as they were before the first of the sessions came."""
    pid: int = 0
    """The main process; 0 if it is not known."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds an abstract name of ours, or the one that it got it from."""

    name: str
    pid: int
    """Of the process that took the name; 0 if it is not known."""


def claim(session: str) -> tuple[socket.socket, Loggers]:
    """Take the session's name in the calling thread's namespace, and note its nf_log settings.

    KernelError if a session of that name is at work here.
    """
    with only_one():
        others = living()
        loggers = others[0].loggers if others else read_loggers()
        try:
            holder = take_name(f"{PREFIX}{session}/{','.join(loggers)}")
        except OSError as error:
            raise KernelError(
                f"cannot start session {session}: {error.strerror}", "Is it running already?"
            ) from error
    return holder, loggers


def take_name(name: str) -> socket.socket:
    """Hold an abstract name in the calling thread's namespace; OSError if it is taken."""
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        holder.bind(f"\0{name}")
        holder.listen(BACKLOG)
    except OSError:
        holder.close()
        raise
    return holder


def living() -> list[Session]:
    """Return the sessions at work in the calling thread's namespace."""
    return [_parse(holder) for holder in holders(PREFIX)]


def holders(prefix: str) -> list[Holder]:
    """Return who of our user holds a name that starts so, in the calling thread's namespace."""
    found = [(name, _owner(name)) for name in sorted(_names(prefix))]
    return [Holder(name, pid) for name, pid in found if pid is not None]


@contextmanager
def only_one() -> Iterator[None]:
    """Hold the lock of the calling thread's namespace (flock(2) on its nsfs inode).

    Anybody may hold that lock for ever, so it is waited for in vain no longer than LOCK_WAIT.
    """
    descriptor = os.open(NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        file_lock.acquire(descriptor, LOCK_WAIT, notify=lambda _: None)
        yield
    finally:
        os.close(descriptor)


def _names(prefix: str) -> Iterator[str]:
    """Yield the abstract names of ours; /proc/net/unix writes their first byte as @."""
    for line in SOCKETS.read_text(errors="replace").splitlines():
        _, found, name = line.rpartition(f" @{prefix}")
        if found:
            yield prefix + name


def _owner(name: str) -> int | None:
    """Return the process that listens by that name (unix(7), SO_PEERCRED); None if not ours."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(f"\0{name}")
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        except BlockingIOError:  # it lives, but many ask it
            return 0
        except OSError:
            return None
    pid, uid, _ = struct.unpack("iII", credentials)
    return pid if uid == os.geteuid() else None


def _parse(holder: Holder) -> Session:
    session, _, loggers = holder.name.removeprefix(PREFIX).partition("/")
    return Session(session, tuple(loggers.split(",")) if loggers else (), holder.pid)
