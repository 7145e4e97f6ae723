"""What this process may do, and modules that the kernel loads for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ipttrace.errors import IptTraceError, NotPermittedError
from ipttrace.system import commands

NEEDED = {12: "CAP_NET_ADMIN", 13: "CAP_NET_RAW", 21: "CAP_SYS_ADMIN"}
"""Bit numbers of uapi/linux/capability.h."""

STATUS = Path("/proc/thread-self/status")
LOADED = Path("/proc/modules")
"""Absent in a kernel that cannot load modules."""

BUILT_IN = Path("/sys/module")
MODPROBE_WAIT = 5.0
"""Seconds."""


def require_privilege(status: str | None = None, *, aim: str = "trace packets") -> None:
    """Raise NotPermittedError unless this process may change networks and enter namespaces.

    To read rules takes the same: the kernel lists them for CAP_NET_ADMIN only.
    """
    missing = missing_privileges(STATUS.read_text() if status is None else status)
    if missing:
        raise NotPermittedError(
            f"cannot {aim}: this process lacks {', '.join(missing)}",
            "Run as root: sudo ipttrace ...",
        )


def missing_privileges(status: str) -> list[str]:
    """Return the needed capabilities that /proc/<pid>/status (CapEff) does not show."""
    line = next((line for line in status.splitlines() if line.startswith("CapEff:")), "CapEff: 0")
    effective = int(line.split()[1], 16)
    return [name for bit, name in NEEDED.items() if not effective >> bit & 1]


def load_modules(names: Sequence[str]) -> None:
    """Load modules that the kernel does not ask for itself, where there are any; never fails."""
    missing = [name for name in names if not (BUILT_IN / name).exists()]
    if not missing or not LOADED.exists() or commands.find("modprobe") is None:
        return
    for name in missing:
        try:
            commands.start(["modprobe", "-q", name], what=f"cannot load {name}").finish(
                MODPROBE_WAIT
            )
        except IptTraceError:
            continue
