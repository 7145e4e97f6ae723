"""The event that Linux lacks before 6.3: a message came into a socket's queue.

`sk_data_ready` is written at the head of sock_def_readable (net/core/sock.c).  Where there is no
such event, a probe at that function writes the same (Documentation/trace/kprobetrace.rst).  It is
of a group of our own, and the whole kernel's: other instances may see it, but nobody enables it.
"""

from __future__ import annotations

import re
from contextlib import suppress

from ipttrace.system import tracefs

PROBES, PROFILE = "kprobe_events", "kprobe_profile"
NAME = "ready_"
"""And the session: the profile names no groups."""
FUNCTION = "sock_def_readable"

_DEFINED = re.compile(rf"^p\d*:ipttrace/{NAME}([0-9a-z]+) ", re.MULTILINE)


def sessions(root: int) -> set[str]:
    """Return the sessions that have a probe; `root` is that of tracefs."""
    with suppress(OSError):
        return set(_DEFINED.findall(tracefs.read(root, PROBES)))
    return set()


def remove(root: int, session: str) -> None:
    """Remove a session's probe; raises OSError, EBUSY as long as an instance has it enabled."""
    tracefs.write(root, PROBES, f"-:{_event(session)}\n")


def _event(session: str) -> str:
    return f"ipttrace/{NAME}{session}"


class ReadyProbe:
    """The probe of one session, and the event that it makes in the session's instance."""

    def __init__(self, root: int, session: str, instance: str) -> None:
        """Set the probe; OSError where the kernel has none.  `instance` is a path in tracefs."""
        self.event = _event(session)
        """The event's folder, in `events`."""
        self._root = root
        self._session = session
        self._folder = f"{instance}/events/{self.event}"
        self._addresses: list[int] = []
        self._missed = 0
        where = f"p:{self.event} {FUNCTION} skaddr=$arg1:x64"
        tracefs.write(root, PROBES, where + "\n")

    def listen(self, thread: int) -> bool:
        """Have what this thread does told, too; False if the kernel refuses."""
        if not self._let_through(f"common_pid == {thread}"):
            return False
        with suppress(OSError):
            tracefs.write(self._root, f"{self._folder}/enable", "1")
            return True
        return False

    def keep(self, address: int) -> bool:
        """Have only the sockets told that were to be kept, and this one; False as above."""
        self._addresses.append(address)
        return self._let_through()

    def _let_through(self, *conditions: str) -> bool:
        known = (f"skaddr == {address:#x}" for address in self._addresses)
        with suppress(OSError):
            tracefs.write(self._root, f"{self._folder}/filter", " || ".join([*known, *conditions]))
            return True
        return False

    def missed(self) -> int:
        """Return how often since the last time the kernel was busy with another probe.

        The file is of all probes: event, hits, misses (probes_profile_seq_show, trace_kprobe.c).
        """
        before = self._missed
        with suppress(OSError, ValueError):
            for line in tracefs.read(self._root, PROFILE).splitlines():
                name, _, misses = line.split()
                if name == NAME + self._session:
                    self._missed = int(misses)
        return self._missed - before

    def close(self) -> None:
        """Remove the probe: the instance is gone."""
        with suppress(OSError):  # ipttrace clean finds it by its name
            remove(self._root, self._session)
