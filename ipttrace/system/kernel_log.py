"""The kernel log as the source of legacy trace reports, where NFLOG group 0 cannot be had.

nf_log_ipv4 and nf_log_ipv6 print each report (net/netfilter/nf_log_syslog.c), /dev/kmsg gives them
one record a read() (Documentation/ABI/testing/dev-kmsg).  nf_log_trace() in net/netfilter/nf_log.c
hands a report to the one logger that is bound to the family, so while we read here nobody else
hears of traces; a program's own NFLOG rules name their logger and go on.

The kernel does not limit the rate of these lines, but the log is small (CONFIG_LOG_BUF_SHIFT) and
overwrites the oldest ones.  It is common to all namespaces, and those but the first print only
while net.netfilter.nf_log_all_netns is 1.  nft reports and conntrack events come by netlink all
the same; `interleave` says how the two are put into one order, and what it cannot know.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ipttrace.decode.kernel_log import OVERWRITTEN, KernelLog
from ipttrace.decode.netlink import decode_datagram
from ipttrace.errors import IptTraceError, NotPermittedError, NotSupportedError
from ipttrace.event import Event
from ipttrace.interleave import as_logged, interleave
from ipttrace.netfilter import NFPROTO_NUMBER, Backend, PacketFamily
from ipttrace.ports import Datagram, RulesetReader
from ipttrace.request import Armed, TraceRequest
from ipttrace.ruleset import Ruleset
from ipttrace.sifting import Sieve
from ipttrace.system.borrowed import Borrowed, Setting, borrow, is_borrowed, namespace_number
from ipttrace.system.borrowed import put_back_left as put_back_setting
from ipttrace.system.capabilities import load_modules
from ipttrace.system.namespaces import HERE, Namespace
from ipttrace.system.netlink_queue import NetlinkQueue
from ipttrace.system.nf_log import LISTENER

DEVICE = Path("/dev/kmsg")
READ_SIZE = 16384
"""Bytes; a record is at most half of that (PRINTK_MESSAGE_MAX in kernel/printk/internal.h)."""

MOST_RECORDS = 8192
"""How many one drain reads: in a flood of the log it would never end."""

SEARCH = 1.0
"""Seconds after which the names of the interfaces are read again."""

LOGGERS = {PacketFamily.IPV4: "nf_log_ipv4", PacketFamily.IPV6: "nf_log_ipv6"}
ALL_NAMESPACES = Setting("net.netfilter.nf_log_all_netns", "1", "/run/ipttrace-nf_log_all_netns")
"""It is there in the first namespace only (netfilter_log_sysctl_init, net/netfilter/nf_log.c)."""

STARTED = Namespace("that the tool runs in", HERE.path)
INIT = Namespace("of process 1", Path("/proc/1/ns/net"))

INSTEAD = (
    "{reason}: reading the kernel log instead, which is small and shared with all that the kernel "
    "says: reports can be overwritten before they are read, and those of other namespaces mix in"
)
DEAF = (
    "until this session ends, {who} gets no trace reports of {family} ({setting}); "
    "what its own NFLOG rules log still reaches it"
)
ALL_PRINT = (
    "until this session ends, LOG and TRACE rules of all namespaces print to the kernel log "
    "({setting}=1)"
)
ORDER = (
    "the order of legacy and nft chains at the same hook and priority is a guess: "
    "their reports come by different ways"
)


class Borrower(Protocol):
    """Who changes settings, and puts them back however this process ends."""

    def borrow(self, borrowed: Borrowed, /) -> None:
        """Change a setting that was noted."""
        ...


@dataclass(frozen=True, slots=True)
class LogRecord(Datagram):
    """What one read() of /dev/kmsg returned; `OVERWRITTEN` for one that said EPIPE."""


class LogReader:
    """The records that the kernel log gets from now on."""

    def __init__(self) -> None:
        try:
            self._descriptor = os.open(DEVICE, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            refused = error.errno in (errno.EPERM, errno.EACCES)
            raise (NotPermittedError if refused else NotSupportedError)(
                f"cannot read the kernel log ({DEVICE}): {error.strerror}",
                "Stop the program that listens to NFLOG group 0, and try again.",
            ) from error
        os.lseek(self._descriptor, 0, os.SEEK_END)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._descriptor

    def drain(self, most: int = MOST_RECORDS) -> list[Datagram]:
        """Return the records that wait, at most so many; never blocks."""
        records: list[Datagram] = []
        while len(records) < most:
            try:
                data = os.read(self._descriptor, READ_SIZE)
            except BlockingIOError:
                return records
            except OSError as error:
                if error.errno != errno.EPIPE:
                    raise
                data = OVERWRITTEN
            records.append(LogRecord(time.time(), data))
        return records

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


class KernelLogSource:
    """Legacy reports from the kernel log, all else from netlink (an `ports.EventSource`)."""

    def __init__(
        self,
        log: LogReader,
        queue: NetlinkQueue,
        rules: RulesetReader,
        sieve: Sieve,
        warnings: Sequence[str] = (),
    ) -> None:
        self.warnings = tuple(warnings)
        self._sieve = sieve
        self._log = log
        self._queue = queue
        self._rules = rules
        self._decoder = KernelLog()
        self._interfaces: Mapping[str, int] = {}
        self._searched = float("-inf")
        self._ready = select.epoll()
        for descriptor in (log.fileno(), queue.fileno()):
            self._ready.register(descriptor, select.EPOLLIN)

    @property
    def position(self) -> None:
        """Messages of two sources cannot be counted."""
        return

    def announce(self) -> None:
        """Do nothing: see `position`."""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._ready.fileno()

    def drain(self) -> tuple[Sequence[Datagram], int]:
        """Return what waits in both, and how often netlink said ENOBUFS; never blocks.

        Ends when neither had anything new: what was read is then complete up to one moment, so
        no report is missing that came before one that is there.  In a flood it ends before that.
        """
        found: list[Datagram] = []
        overruns = 0
        left = MOST_RECORDS
        while left > 0:
            queued, full = self._queue.drain()
            logged = self._log.drain(left)
            found += [*queued, *logged]
            overruns += full
            left -= len(logged)
            if not queued and not logged:
                break
        return found, overruns

    def decode(self, datagrams: Sequence[Datagram], ruleset: Ruleset) -> Sequence[Event]:
        """Return the events in the order of each packet's way; see `interleave` for its limits."""
        logged: list[Event] = []
        traced: list[Event] = []
        for each in datagrams:
            if isinstance(each, LogRecord):
                logged += self._decoder.decode(each.data, each.time, self._known(each.time))
            else:
                traced += map(as_logged, decode_datagram(each.data, each.time))
        ours = self._sieve.sift(logged, traced, ruleset)
        return interleave(ours, traced, ruleset)

    def _known(self, now: float) -> Mapping[str, int]:
        """Return the interfaces of this namespace, name to index."""
        if not 0 <= now - self._searched < SEARCH:
            self._interfaces = {name: index for index, name in self._rules.interfaces().items()}
            self._searched = now
        return self._interfaces

    def close(self) -> None:
        """Give all descriptors back."""
        self._ready.close()
        self._queue.close()
        self._log.close()


@dataclass(frozen=True, slots=True)
class Fallback:
    """Why, for whom and where the kernel log is to be read."""

    namespace: Namespace
    request: TraceRequest
    armed: Armed
    families: Sequence[PacketFamily]
    reason: str
    """`NFLOG group 0 is held by pid 812 (ulogd)`."""
    listener: str | None
    """Who listens to the group, in words; None if nobody does."""


def open_kernel_log(wanted: Fallback, guardian: Borrower, rules: RulesetReader) -> KernelLogSource:
    """Let the kernel print trace reports, and read them; what it changes is for `guardian` to undo.

    Nothing is changed unless the log can be read.
    """
    log = LogReader()
    try:
        load_modules(("nf_log_syslog",))
        warnings = (INSTEAD.format(reason=wanted.reason), *_let_print(wanted, guardian))
        if Backend.NFT in wanted.request.backends:
            warnings = (*warnings, ORDER)
        queue = NetlinkQueue(wanted.namespace, legacy=False)
    except BaseException:
        log.close()
        raise
    sieve = Sieve(wanted.request, has_own_table=wanted.armed.own_table is not None)
    return KernelLogSource(log, queue, rules, sieve, warnings)


def is_in_use(namespace: Namespace, families: Sequence[PacketFamily]) -> bool:
    """Return whether a session reads the kernel log: one that binds NFLOG would make it deaf."""
    return any(is_borrowed(_logger(family), namespace) for family in families)


def put_back_left() -> list[str]:
    """Put back what a session changed for all namespaces that died with its guardian."""
    for candidate in (STARTED, INIT):
        if _prints(candidate) and put_back_setting(ALL_NAMESPACES, candidate):
            return [f"{ALL_NAMESPACES.name}={ALL_NAMESPACES.value}"]
    return []


def _let_print(wanted: Fallback, guardian: Borrower) -> list[str]:
    """Change what keeps the kernel from printing; return what that does to others."""
    warnings: list[str] = []
    everywhere = None if _prints(wanted.namespace) else first_namespace(wanted.namespace)
    for family in wanted.families:
        setting = _logger(family)
        borrowed = borrow(setting, wanted.namespace, wanted.request.session)
        guardian.borrow(borrowed)
        if borrowed.before == LISTENER and wanted.listener is not None:
            who = wanted.listener
            warnings.append(DEAF.format(who=who, family=family, setting=setting.name))
    if everywhere is not None:
        user = f"{wanted.request.session}-{namespace_number(wanted.namespace)}"
        borrowed = borrow(ALL_NAMESPACES, everywhere, user)
        guardian.borrow(borrowed)
        if borrowed.changed:
            warnings.append(ALL_PRINT.format(setting=ALL_NAMESPACES.name))
    return warnings


def _logger(family: PacketFamily) -> Setting:
    number = NFPROTO_NUMBER[family.table_family]
    return Setting(f"net.netfilter.nf_log.{number}", LOGGERS[family])


def _prints(namespace: Namespace) -> bool:
    """Return whether it is the first namespace, which may always print."""
    try:
        return namespace.run(ALL_NAMESPACES.path.exists)
    except IptTraceError:
        return False


def first_namespace(traced: Namespace) -> Namespace:
    """Return the host's first namespace, to let `traced` print; NotSupportedError if not here."""
    for candidate in (STARTED, INIT):
        if _prints(candidate):
            return candidate
    raise NotSupportedError(
        f"cannot have trace reports of {traced} in the kernel log: "
        f"{ALL_NAMESPACES.name} is a setting of the host's first namespace, which is not to be "
        "entered from here",
        "Stop the program that listens to NFLOG group 0, or run ipttrace on the host.",
    )
