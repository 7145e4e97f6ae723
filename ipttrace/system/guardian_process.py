"""The process that changes a namespace for a session, and takes it all back when that one ends.

Started by `guardian.Guardian`.  It enters the namespace for good, does what it is told over its
channel, and undoes everything when it is told to or when the channel ends, which it does when the
main process dies, however it dies.  Signals from a terminal do not reach it (setsid), and those
that ask a process to end are ignored: its end is the end of the channel.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace

import msgspec

from ipttrace.errors import IptTraceError, KernelError
from ipttrace.request import Disarmed
from ipttrace.system import legacy_rules, nf_log, presence
from ipttrace.system.arming import Arming, Bequest
from ipttrace.system.borrowed import Setting, inherited
from ipttrace.system.guardian_messages import (
    MESSAGE_LIMIT,
    Answer,
    Arm,
    Bequeath,
    Borrow,
    Command,
    Disarm,
    Done,
    Farewell,
    IsArmed,
    IsDisarmed,
    Notice,
    Quiet,
    Rearm,
    Release,
    Reply,
    Request,
    Start,
    Sweep,
    Swept,
    failure,
)
from ipttrace.system.namespaces import enter_descriptor

PERSISTENCE = 60.0
"""Seconds to keep trying to undo what could not be undone at once (a lock that is held)."""

RETRY = 0.2
"""Seconds between two tries."""


class GuardianProcess:
    """Serves one main process, then undoes."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._channel = socket.socket(fileno=start.channel)
        self._presence = None if start.presence is None else socket.socket(fileno=start.presence)
        self._number = 0
        self._was_told_to_end = False
        self._arming = Arming(self._notify)
        self._arming.undo_last(self._put_loggers_back)

    def serve(self) -> None:
        """Obey until the channel ends, then undo; returns when nothing is left or time is up."""
        try:
            while self._obey_next():
                pass
        finally:
            self._take_back_at_last()

    def _obey_next(self) -> bool:
        if not self._wait():
            return True
        try:
            message, descriptors, _, _ = socket.recv_fds(self._channel, MESSAGE_LIMIT, 2)
            if not message:
                return False
            request = msgspec.json.decode(message, type=Request)
            self._number = request.number
            self._send(self._answer(request.command, descriptors))
        except OSError:  # the main process is gone
            return False
        return True

    def _wait(self) -> bool:
        """Wait for a command; look after those who ask whether this session is alive."""
        watched = [self._channel] + ([self._presence] if self._presence else [])
        ready, _, _ = select.select(watched, [], [])
        if self._presence in ready:
            with suppress(OSError):
                self._presence.accept()[0].close()
        return self._channel in ready

    def _answer(self, command: Command, descriptors: list[int]) -> Answer:
        try:
            return self._do(command, descriptors)
        except IptTraceError as error:
            return failure(error)
        except Exception as error:  # noqa: BLE001 - reported to the main process
            return failure(KernelError(f"the guardian process failed: {error!r}"))

    def _do(self, command: Command, descriptors: list[int]) -> Answer:
        match command:
            case Arm(request):
                return IsArmed(self._arming.arm(request))
            case Rearm(request, whole):
                return IsArmed(self._arming.rearm(request, whole=whole))
            case Bequeath():
                self._arming.bequeath(_bequest(*descriptors))
            case Borrow(name, value, held, note):
                self._borrow(Setting(name, value, note), held, *descriptors)
            case Release():
                self._arming.release()
            case Quiet():
                self._arming.quiet()
            case Disarm():
                self._was_told_to_end = True
                return IsDisarmed(self._disarm())
            case Sweep(session):
                from ipttrace.system import leftovers

                return Swept(leftovers.sweep(session, self._notify))
        return Done()

    def _borrow(self, setting: Setting, held: str, namespace: int, holder: int) -> None:
        borrowed = inherited(setting, held, (namespace, holder))
        self._arming.undo_last(borrowed.put_back)
        borrowed.apply()

    def _disarm(self) -> Disarmed:
        disarmed = self._arming.take_back()
        if self._arming.finished:
            return disarmed
        still = f"still trying to take back what is left, for {PERSISTENCE:g} s"
        return replace(disarmed, warnings=(*disarmed.warnings, still))

    def _notify(self, text: str) -> None:
        with suppress(OSError):
            self._send(Notice(text))

    def _send(self, answer: Answer) -> None:
        self._channel.send(msgspec.json.encode(Reply(self._number, answer)))

    def _take_back_at_last(self) -> None:
        deadline = time.monotonic() + PERSISTENCE
        pause = threading.Event()
        self._arming.take_back()
        while not self._arming.finished and time.monotonic() < deadline:
            pause.wait(RETRY)
            self._arming.take_back()
        if not self._was_told_to_end:
            self._remove_trace_instance(deadline, pause)

    def _remove_trace_instance(self, deadline: float, pause: threading.Event) -> None:
        """Remove what the main process left in tracefs when it was killed: nobody reads it."""
        from ipttrace.system import own_traces

        while time.monotonic() < deadline:
            try:
                own_traces.remove(self._start.session)
            except KernelError:
                pause.wait(RETRY)
            else:
                return

    def _put_loggers_back(self) -> None:
        """Put nf_log back, unless another session here needs it: then the last one does it."""
        with presence.only_one():
            others = [s for s in presence.living() if s.name != self._start.session]
            if not others:
                nf_log.put_back(self._start.loggers)
            if self._presence is not None:
                self._presence.close()
                self._presence = None


def _bequest(device: int, memory: int) -> Bequest:
    try:
        text = os.pread(memory, os.fstat(memory).st_size, 0)
    finally:
        os.close(memory)
    farewell = msgspec.json.decode(text, type=Farewell)
    return Bequest(device, farewell.frames, farewell.flows)


def main() -> None:
    """Run the guardian process; its argument is a `Start` as JSON."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    start = msgspec.json.decode(sys.argv[1], type=Start)
    enter_descriptor(start.namespace)
    os.close(start.namespace)
    if start.legacy:
        with suppress(ImportError, OSError, AttributeError):  # said when a rule is asked for
            legacy_rules.preload()
    GuardianProcess(start).serve()
    os._exit(0)  # an orderly end of the interpreter costs 20 ms


if __name__ == "__main__":
    main()
