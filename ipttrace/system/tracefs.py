"""The kernel's tracepoints, through an instance of tracefs of our own.

Where nobody has mounted tracefs it is mounted nowhere: fsmount(2) gives a descriptor of a mount
that no path leads to, and that is gone with it.  An instance stays when we die: it is found by its
name, and the session's guardian removes it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ipttrace.decode.tracepoint import EventFormat, decode_page, parse_format
from ipttrace.errors import KernelError, NotSupportedError
from ipttrace.event import KernelEvent
from ipttrace.ports import EventSource
from ipttrace.ruleset import OWN_TABLE
from ipttrace.system.kallsyms import Kallsyms

MOUNTED = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
INSTANCES = "instances"

FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432
"""Numbers of the system calls: the same on every architecture (scripts/syscall.tbl)."""
FSOPEN_CLOEXEC, FSCONFIG_CMD_CREATE, FSMOUNT_CLOEXEC = 1, 6, 1
"""uapi/linux/mount.h."""

PAGE = 1 << 16
"""A sub-buffer is a page of memory unless somebody set buffer_subbuf_size_kb."""

WANTED: Mapping[str, str] = {
    "skb/kfree_skb": "protocol == 0x800 || protocol == 0x86dd",
    "net/netif_receive_skb": "",
    "net/net_dev_queue": "",
    "tcp/tcp_send_reset": "",
    "icmp/icmp_send": "",
    "neigh/neigh_event_send_done": "err == 1",
    "sock/sk_data_ready": "family == 16 && protocol == 12",
}
"""Events, and the filters that the kernel applies.  The last one tells when and where each message
came into our netlink sockets (AF_NETLINK, NETLINK_NETFILTER)."""

READY = "sk_data_ready"

SENT = "net/net_dev_queue"
"""Of these only events of the traced namespaces' interfaces are wanted.  What others receive must
be seen: the same processor serves it in between, and the kernel gives it the addresses of ours."""

MOST_INTERFACES = 20
"""More names make a filter that costs more than the events it saves."""

_libc = ctypes.CDLL(None, use_errno=True)


def root() -> int:
    """Return a descriptor of the root of tracefs; raises OSError."""
    for path in MOUNTED:
        with suppress(OSError):
            found = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if _has(found, INSTANCES):
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


def _has(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory)
    except OSError:
        return False
    return True


def _read(directory: int, path: str) -> str:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)) as file:
        return file.read()


def _write(directory: int, path: str, text: str) -> None:
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
        names = [name for name in _names(directory.descriptor, INSTANCES) if is_ours(name)]
        return [name for name in names if _made(directory.descriptor, name) <= latest]
    return []


def _made(directory: int, name: str) -> float:
    return os.stat(f"{INSTANCES}/{name}", dir_fd=directory).st_mtime


def is_ours(name: str) -> bool:
    """Tell whether an instance of that name is of a session of ipttrace."""
    return name.startswith(OWN_TABLE)


def _names(directory: int, path: str) -> list[str]:
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


class TraceInstance:
    """The events of the whole host from its making on (a `ports.KernelEvents`)."""

    def __init__(self, session: str) -> None:
        """Make the instance; NotSupportedError where that cannot be, nothing stays behind."""
        self.name = instance_name(session)
        self.missing: tuple[str, ...] = ()
        self._epoch = 0.0
        self._pipes: dict[int, int] = {}
        self._pending: list[KernelEvent] = []
        self._pending_lost = 0
        self._functions: Kallsyms | None = None
        self._formats: dict[int, EventFormat] = {}
        self._enabled: list[str] = []
        self._root = -1
        try:
            self._root = root()
            os.mkdir(f"{INSTANCES}/{self.name}", dir_fd=self._root)
            self._set_up()
        except OSError as error:
            self.close()
            raise NotSupportedError(
                f"cannot read the kernel's trace events: {error.strerror or error}",
                "They need tracefs (CONFIG_TRACING) and root on the host itself.",
            ) from error
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        self._write("trace_clock", "mono")
        self._epoch = time.time() - time.monotonic()
        self._enabled, missing = [], []
        for event, condition in WANTED.items():
            if not _has(self._root, self._at(f"events/{event}")):
                missing.append(event)
                continue
            known = parse_format(_read(self._root, self._at(f"events/{event}/format")))
            if known is None:
                missing.append(event)
                continue
            self._formats[known.id] = known
            if condition:
                self._write(f"events/{event}/filter", condition)
            self._enabled.append(event)
        self.missing = tuple(missing)
        if f"sock/{READY}" in self._enabled:
            self._write(f"events/sock/{READY}/enable", "1")
        for cpu in self._processors():
            path = self._at(f"per_cpu/cpu{cpu}/trace_pipe_raw")
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            self._pipes[cpu] = os.open(path, flags, dir_fd=self._root)

    def _processors(self) -> Iterator[int]:
        names = _names(self._root, self._at("per_cpu"))
        yield from sorted(int(name.removeprefix("cpu")) for name in names)

    def _at(self, path: str) -> str:
        return f"{INSTANCES}/{self.name}/{path}"

    def _write(self, path: str, text: str) -> None:
        _write(self._root, self._at(path), text)

    def address_of(self, source: EventSource) -> int | None:
        """Return the address of a queue's socket: the one that its announcement is written to.

        What the kernel wrote to it before (the answers to its set-up) counts for nothing.
        """
        before = self._take()
        source.announce()
        after = self._take()
        me = threading.get_native_id()
        own = [n for n, event in enumerate(after) if event.name == READY and event.pid == me]
        if len(own) != 1:
            self._pending += before
            return None
        address = after[own[0]].number("skaddr")
        earlier = (e for e in before if e.name != READY or e.number("skaddr") != address)
        self._pending += [*earlier, *after[own[0] + 1 :]]
        return address

    def start(self, interfaces: Sequence[str]) -> None:
        """Enable the events; of what is sent only that by the interfaces named, and by us."""
        for event in self._enabled:
            if event == f"sock/{READY}":
                continue
            if event == SENT and 0 < len(interfaces) <= MOST_INTERFACES:
                words = [f'name == "{name}"' for name in interfaces if '"' not in name]
                words.append(f"common_pid == {threading.get_native_id()}")
                with suppress(OSError):  # then all come, and are sorted out later
                    self._write(f"events/{event}/filter", " || ".join(words))
            self._write(f"events/{event}/enable", "1")

    def drain(self) -> tuple[Sequence[KernelEvent], int]:
        """Return what was written since, in the order of time, and how often some was lost."""
        events = [*self._pending, *self._take()]
        lost, self._pending_lost = self._pending_lost, 0
        self._pending.clear()
        return events, lost

    def _take(self) -> list[KernelEvent]:
        events: list[KernelEvent] = []
        for cpu, pipe in self._pipes.items():
            while data := _read_page(pipe):
                page = decode_page(data, self._formats, cpu, self._epoch)
                events += page.events
                self._pending_lost += page.missed + page.undecoded
        events.sort(key=lambda event: event.time)
        return events

    def function(self, address: int) -> str | None:
        """Return the name of the kernel function at an address, None where it cannot be known."""
        if self._functions is None:
            self._functions = Kallsyms()
        name = self._functions.name(address)
        return name and name.partition(".")[0]  # without the compiler's `.constprop.0`

    def close(self) -> None:
        """Stop and remove the instance; may be called more than once."""
        for pipe in self._pipes.values():
            os.close(pipe)
        self._pipes = {}
        if self._root < 0:
            return
        with suppress(OSError):
            self._write("tracing_on", "0")
        try:
            with suppress(OSError):  # ipttrace clean finds it by its name
                os.rmdir(f"{INSTANCES}/{self.name}", dir_fd=self._root)
        finally:
            os.close(self._root)
            self._root = -1


def _read_page(pipe: int) -> bytes:
    try:
        return os.read(pipe, PAGE)
    except BlockingIOError:
        return b""
