"""The kernel's tracepoints, through an instance of tracefs of our own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from ipttrace.decode.tracepoint import EventFormat, InOrder, decode_page, parse_format
from ipttrace.errors import NotSupportedError
from ipttrace.event import KernelEvent
from ipttrace.ports import EventSource
from ipttrace.system import own_traces, tracefs
from ipttrace.system.kallsyms import Kallsyms
from ipttrace.system.ready_probe import ReadyProbe

PAGE = 1 << 16
"""A sub-buffer is a page of memory unless somebody set buffer_subbuf_size_kb."""

WANTED: Mapping[str, str] = {
    "skb/kfree_skb": "protocol == 0x800 || protocol == 0x86dd",
    "net/netif_receive_skb": "",
    "net/net_dev_queue": "",
    "tcp/tcp_send_reset": "",
    "icmp/icmp_send": "",
    "neigh/neigh_event_send_done": "err == 1",
}
"""Events, and the filters that the kernel applies."""

MOST_PAGES = 400
"""More than the buffer of a processor has (1,408 KiB): what comes while it is read can wait."""

READY = "sk_data_ready"
"""Tells when and where each message came into one of our netlink sockets."""
READY_EVENT = f"sock/{READY}"
OUR_QUEUES = "family == 16 && protocol == 12"
"""AF_NETLINK, NETLINK_NETFILTER."""

SENT = "net/net_dev_queue"
"""Of these only events of the traced namespaces' interfaces are wanted.  What others receive must
be seen: the same processor serves it in between, and the kernel gives it the addresses of ours."""

MOST_INTERFACES = 20
"""More names make a filter that costs more than the events it saves."""


class TraceInstance:
    """The events of the whole host from its making on (a `ports.KernelEvents`)."""

    def __init__(self, session: str) -> None:
        """Make the instance; NotSupportedError where that cannot be, nothing stays behind."""
        self.name = own_traces.instance_name(session)
        self._session = session
        self.missing: tuple[str, ...] = ()
        self._epoch = 0.0
        self._pipes: dict[int, int] = {}
        self._pending: list[KernelEvent] = []
        self._pending_lost = 0
        self._in_order = InOrder()
        self._functions: Kallsyms | None = None
        self._formats: dict[int, EventFormat] = {}
        self._enabled: list[str] = []
        self._probe: ReadyProbe | None = None
        self._root = -1
        try:
            self._root = tracefs.root()
            os.mkdir(f"{tracefs.INSTANCES}/{self.name}", dir_fd=self._root)
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
        self._enabled = [event for event, only in WANTED.items() if self._knows(event, only)]
        self.missing = tuple(event for event in WANTED if event not in self._enabled)
        if self._knows(READY_EVENT, OUR_QUEUES):
            self._write(f"events/{READY_EVENT}/enable", "1")
        elif not self._set_probe():
            self.missing = (*self.missing, READY_EVENT)
        for cpu in self._processors():
            path = self._at(f"per_cpu/cpu{cpu}/trace_pipe_raw")
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            self._pipes[cpu] = os.open(path, flags, dir_fd=self._root)

    def _knows(self, event: str, condition: str, name: str = "") -> bool:
        """Learn an event's format, and filter it; False if the kernel has no such event."""
        if not tracefs.has(self._root, self._at(f"events/{event}")):
            return False
        known = parse_format(tracefs.read(self._root, self._at(f"events/{event}/format")))
        if known is None:
            return False
        self._formats[known.id] = replace(known, name=name or known.name)
        if condition:
            self._write(f"events/{event}/filter", condition)
        return True

    def _set_probe(self) -> bool:
        """Make the event that tells of messages, where the kernel has probes but no such event."""
        try:
            self._probe = ReadyProbe(self._root, self._session, self._at(""))
        except OSError:
            return False
        return self._knows(self._probe.event, "", READY)

    def _processors(self) -> Iterator[int]:
        names = tracefs.names(self._root, self._at("per_cpu"))
        yield from sorted(int(name.removeprefix("cpu")) for name in names)

    def _at(self, path: str) -> str:
        return f"{tracefs.INSTANCES}/{self.name}/{path}"

    def _write(self, path: str, text: str) -> None:
        tracefs.write(self._root, self._at(path), text)

    def address_of(self, source: EventSource) -> int | None:
        """Return the address of a queue's socket: the one that its announcement is written to.

        What the kernel wrote to it before (the answers to its set-up) counts for nothing.
        """
        me = threading.get_native_id()
        if self._probe is not None and not self._probe.listen(me):
            return None
        before = self._take()
        source.announce()
        after = self._take()
        own = [n for n, event in enumerate(after) if event.name == READY and event.pid == me]
        if len(own) != 1:
            self._pending += before
            return None
        address = after[own[0]].number("skaddr")
        if self._probe is not None and not (address and self._probe.keep(address)):
            self._pending += [*before, *after]
            return None
        earlier = (e for e in before if e.name != READY or e.number("skaddr") != address)
        self._pending += [*earlier, *after[own[0] + 1 :]]
        return address

    def start(self, interfaces: Sequence[str]) -> None:
        """Enable the events; of what is sent only that by the interfaces named, and by us."""
        for event in self._enabled:
            if event == SENT and 0 < len(interfaces) <= MOST_INTERFACES:
                words = [f'name == "{name}"' for name in interfaces if '"' not in name]
                words.append(f"common_pid == {threading.get_native_id()}")
                with suppress(OSError):  # then all come, and are sorted out later
                    self._write(f"events/{event}/filter", " || ".join(words))
            self._write(f"events/{event}/enable", "1")

    def drain(self) -> tuple[Sequence[KernelEvent], int]:
        """Return what was written since, in the order of time, and how often some was lost.

        If some was, that was all: with a gap nothing can be tied, and reading more is in vain.
        """
        events = [*self._pending, *self._take()]
        lost, self._pending_lost = self._pending_lost, 0
        if self._probe is not None:
            lost += self._probe.missed()
        self._pending.clear()
        if lost:
            self._stop()
        return events, lost

    def _take(self) -> list[KernelEvent]:
        now = self._epoch + time.monotonic()
        events: list[KernelEvent] = []
        for cpu, pipe in self._pipes.items():
            for _ in range(MOST_PAGES):
                data = _read_page(pipe)
                if not data:
                    break
                page = decode_page(data, self._formats, cpu, self._epoch)
                events += page.events
                self._pending_lost += page.missed + page.undecoded
        return self._in_order.take(events, now)

    def _stop(self) -> None:
        with suppress(OSError):
            self._write("tracing_on", "0")
        for pipe in self._pipes.values():
            os.close(pipe)
        self._pipes = {}

    def function(self, address: int) -> str | None:
        """Return the name of the kernel function at an address, None where it cannot be known."""
        if self._functions is None:
            self._functions = Kallsyms()
        name = self._functions.name(address)
        return name and name.partition(".")[0]  # without the compiler's `.constprop.0`

    def close(self) -> None:
        """Stop and remove the instance; may be called more than once."""
        self._stop()
        if self._root < 0:
            return
        try:
            with suppress(OSError):  # ipttrace clean finds it by its name
                os.rmdir(f"{tracefs.INSTANCES}/{self.name}", dir_fd=self._root)
            if self._probe is not None:
                self._probe.close()
        finally:
            os.close(self._root)
            self._root = -1


def _read_page(pipe: int) -> bytes:
    try:
        return os.read(pipe, PAGE)
    except BlockingIOError:
        return b""
