"""What of ours is in tracefs: an instance for each session, and where it is needed a probe.

They stay when we die: they are found by their names, and the session's guardian removes them.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress

from ipttrace.errors import KernelError
from ipttrace.ruleset import OWN_TABLE
from ipttrace.system import ready_probe
from ipttrace.system.tracefs import INSTANCES, names, opened


def instance_name(session: str) -> str:
    """Return the name of a session's instance."""
    return OWN_TABLE + session


def instances(older_than: float = 0.0) -> list[str]:
    """Return the names of the instances of ours that are older than so many seconds.

    None where tracefs cannot be reached.
    """
    latest = time.time() - older_than
    with suppress(OSError), opened() as directory:
        return [name for name, made in _made(directory.descriptor) if made <= latest]
    return []


def _made(directory: int) -> list[tuple[str, float]]:
    """Return name and time of making of each instance of ours."""
    found = [name for name in names(directory, INSTANCES) if is_ours(name)]
    return [(name, os.stat(f"{INSTANCES}/{name}", dir_fd=directory).st_mtime) for name in found]


def is_ours(name: str) -> bool:
    """Tell whether an instance of that name is of a session of ipttrace."""
    return name.startswith(OWN_TABLE)


def sessions(older_than: float = 0.0) -> list[str]:
    """Return the sessions that have an instance or a probe, and none that is younger than that."""
    latest = time.time() - older_than
    with suppress(OSError), opened() as directory:
        made = _made(directory.descriptor)
        young = {name.removeprefix(OWN_TABLE) for name, at in made if at > latest}
        old = {name.removeprefix(OWN_TABLE) for name, at in made if at <= latest}
        return sorted((old | ready_probe.sessions(directory.descriptor)) - young)
    return []


def remove(session: str) -> list[str]:
    """Remove what a session has in tracefs; return a line for each thing.

    Raises KernelError if somebody still reads it: EBUSY of instance_rmdir in kernel/trace/trace.c.
    """
    name = instance_name(session)
    removed: list[str] = []
    try:
        with opened() as directory:
            with suppress(FileNotFoundError):
                os.rmdir(f"{INSTANCES}/{name}", dir_fd=directory.descriptor)
                removed.append(f"trace instance {name}")
            if session in ready_probe.sessions(directory.descriptor):
                ready_probe.remove(directory.descriptor, session)
                removed.append(f"probe of session {session} at {ready_probe.FUNCTION}")
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENODEV}:
            raise KernelError(f"cannot remove trace instance {name}: {error.strerror}") from error
    return removed
