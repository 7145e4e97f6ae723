"""Which process is meant, also after its id was given to another one."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

START_FIELD = 19
"""`starttime` among the fields after the name in /proc/<pid>/stat (proc_pid_stat(5))."""


@dataclass(frozen=True, slots=True)
class ProcessMark:
    """A process by its id and the time it started, in clock ticks since boot."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether it still runs; one that nobody has waited for yet does not."""
        fields = _fields(self.pid)
        return len(fields) > START_FIELD and fields[0] != "Z" and self._is(fields)

    def end(self, seconds: float) -> bool:
        """Send SIGTERM and wait, then SIGKILL; never to another.  Return whether it is gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            return True
        try:
            if not self._is(_fields(self.pid)):
                return True
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number)
                if select.select([descriptor], [], [], seconds)[0]:
                    return True
        finally:
            os.close(descriptor)
        return False

    def _is(self, fields: list[str]) -> bool:
        return len(fields) > START_FIELD and fields[START_FIELD] == str(self.started)


def mark_of(pid: int) -> ProcessMark:
    """Return the mark of a process that runs now; one that never was has the start time -1."""
    fields = _fields(pid)
    return ProcessMark(pid, int(fields[START_FIELD]) if len(fields) > START_FIELD else -1)


def _fields(pid: int) -> list[str]:
    """Return what stands in /proc/<pid>/stat after the name, which may hold anything."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
