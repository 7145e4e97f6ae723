"""Containers by the first characters of their id, as the control groups of processes tell it.

Engines name a container's control group after its id, 64 hexadecimal digits, and differ in what
stands around it: docker, containerd, podman and CRI-O, below systemd or not, in kubepods or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ipttrace.errors import UsageError

PROC = Path("/proc")
FEWEST = 4
"""Characters of an id; fewer are a mistake more often than a container."""
SHORT = 12
"""Characters that the engines' own lists show."""
SHOWN = 5

_START = re.compile(rf"[0-9a-f]{{{FEWEST},64}}")
_GROUP = re.compile(r"(?:^|[/:-])(?<!conmon-)([0-9a-f]{64})(?:\.scope)?(?=/|$)")
"""One part of a path; a group `libpod-conmon-ID.scope` holds the monitor, not the container."""


def may_be_id(text: str) -> bool:
    """Tell whether `text` can be the start of a container's id."""
    return _START.fullmatch(text) is not None


def container_id(cgroup: str) -> str | None:
    """Return the id of the innermost container that /proc/<pid>/cgroup names, None without one.

    Lines are `hierarchy:controllers:path` (cgroups(7)), in version 2 a single `0::path`.
    """
    for line in cgroup.splitlines():
        path = line.split(":", 2)[-1]
        found: list[str] = _GROUP.findall(path)
        if found:
            return found[-1]
    return None


def container_of(pid: int, proc: Path = PROC) -> str | None:
    """Return the id of the container that a process is in, None without one."""
    try:
        return container_id((proc / str(pid) / "cgroup").read_text(errors="replace"))
    except OSError:
        return None


def find_container(start: str, proc: Path = PROC) -> int | None:
    """Return the first process of the one container whose id begins with `start`.

    None if there is no such container; raises UsageError if there are several.
    """
    found: dict[str, int] = {}
    for pid in _processes(proc):
        identity = container_of(pid, proc)
        if identity is not None and identity.startswith(start):
            found.setdefault(identity, pid)
    if len(found) > 1:
        raise UsageError(
            f"cannot tell which container {start!r} is: {_list(found)} begin so",
            "Give more characters of its id.",
        )
    return next(iter(found.values()), None)


def _processes(proc: Path) -> Iterator[int]:
    """Yield the processes that have a network namespace (a zombie has none), lowest first."""
    for pid in sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal()):
        if _has_namespace(proc / str(pid) / "ns" / "net"):
            yield pid


def _has_namespace(file: Path) -> bool:
    """Tell whether the file leads to a namespace; one that is not ours to look at does."""
    try:
        file.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _list(found: dict[str, int]) -> str:
    names = [identity[:SHORT] for identity in sorted(found)]
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
