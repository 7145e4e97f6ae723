"""Where a namespace's trace reports are read from: NFLOG group 0, else the kernel log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ipttrace.checkup.facts import Listener
from ipttrace.netfilter import Backend, PacketFamily
from ipttrace.ports import Clock, EventSource, RulesetReader
from ipttrace.request import Armed, TraceRequest
from ipttrace.system import kernel_log, presence
from ipttrace.system.kernel_log import Borrower, Fallback, open_kernel_log
from ipttrace.system.namespaces import Namespace
from ipttrace.system.netlink_queue import (
    LogGroupAbsentError,
    LogGroupTakenError,
    NetlinkQueue,
    owner_text,
)

LOG_GROUP_WAIT = 10.0
"""Seconds to wait for another session of ipttrace that holds the log group."""

POLL = 0.05
"""Seconds between two tries."""

Note = Callable[[str], None]


class _UnreachableError(Exception):
    """Legacy reports cannot come through the log group."""

    def __init__(self, reason: str, listener: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.listener = listener


@dataclass(frozen=True, slots=True)
class Sources:
    """Opens the source of one session in one namespace."""

    namespace: Namespace
    session: str
    family: PacketFamily | None
    """None: packets of both."""
    guardian: Borrower
    rules: RulesetReader
    clock: Clock
    note: Note

    def reserve(self, request: TraceRequest) -> EventSource | None:
        """Open the queue before anything is armed; None where reports come from elsewhere.

        Only one session at a time has legacy rules of its own: another one's would shift the
        numbers of rules in its reports.
        """
        try:
            return self._queue(request)
        except _UnreachableError:
            return None

    def open(self, request: TraceRequest, armed: Armed) -> EventSource:
        """Open the source of what is traced; without legacy rules no log group is needed."""
        try:
            return self._queue(request)
        except _UnreachableError as error:
            return self._fall_back(request, armed, error.reason, error.listener)

    def _queue(self, request: TraceRequest) -> EventSource:
        """Open the queue; another session that holds the log group is waited for."""
        if Backend.LEGACY not in request.backends:
            return NetlinkQueue(self.namespace, legacy=False)
        if kernel_log.is_in_use(self.namespace, self._families):
            raise _UnreachableError("another session of ipttrace reads the kernel log here")
        deadline = self.clock.monotonic() + LOG_GROUP_WAIT
        told = False
        while True:
            try:
                return NetlinkQueue(self.namespace)
            except LogGroupAbsentError as error:
                raise _UnreachableError("the kernel has no nfnetlink_log") from error
            except LogGroupTakenError as error:
                late = self.clock.monotonic() >= deadline
                if late if error.owner is None else not self._is_session(error.owner):
                    who = owner_text(error.owner)
                    raise _UnreachableError(f"NFLOG group 0 is held by {who}", who) from error
                if late:
                    raise
                if not told:
                    self.note(f"{error.message}; waiting up to {LOG_GROUP_WAIT:g} s")
                    told = True
            self.clock.wait((), POLL)

    @property
    def _families(self) -> tuple[PacketFamily, ...]:
        return tuple(PacketFamily) if self.family is None else (self.family,)

    def _is_session(self, owner: Listener) -> bool:
        """Tell whether another session of ours holds the group: it would be left without reports.

        Where the process of its port is not to be seen, any other session here counts as it.
        """
        sessions = self.namespace.run(presence.living)
        if owner.pid is None:
            return any(each.name != self.session for each in sessions)
        return any(each.pid == owner.pid for each in sessions)

    def _fall_back(
        self, request: TraceRequest, armed: Armed, reason: str, listener: str | None = None
    ) -> EventSource:
        wanted = Fallback(self.namespace, request, armed, self._families, reason, listener)
        source = open_kernel_log(wanted, self.guardian, self.rules)
        if request.filter is not None:  # a watch gives its warnings at its end, which may be far
            for warning in source.warnings:
                self.note(warning)
        return source
