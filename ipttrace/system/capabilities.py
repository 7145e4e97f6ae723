"""What this process may do, and what this machine can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ipttrace.errors import IptTraceError, NotPermittedError, NotSupportedError
from ipttrace.system import commands, nft_rules
from ipttrace.system.namespaces import Namespace

NEEDED = {12: "CAP_NET_ADMIN", 13: "CAP_NET_RAW", 21: "CAP_SYS_ADMIN"}
"""Bit numbers of uapi/linux/capability.h."""

STATUS = Path("/proc/thread-self/status")
MODULES = ("nf_tables", "nfnetlink_log", "nf_log_syslog", "xt_TRACE")
LOADED = Path("/proc/modules")
"""Absent in a kernel that cannot load modules."""

BUILT_IN = Path("/sys/module")
LEGACY = Path("/proc/thread-self/net/ip_tables_names")
PROGRAMS = (
    "iptables-legacy",
    "ip6tables-legacy",
    "iptables-nft",
    "ip6tables-nft",
    "nft",
)
MODPROBE_WAIT = 5.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What was found on this machine."""

    programs: frozenset[str]
    nf_tables: bool
    ip_tables: bool


def require(namespace: Namespace) -> None:
    """Raise an error unless tracing is possible in `namespace`; load what that needs.

    NotPermittedError without privilege, NotSupportedError without any rule engine.
    """
    require_privilege()
    load_modules()
    if not namespace.run(nft_rules.available) and not namespace.run(LEGACY.exists):
        raise NotSupportedError(
            f"cannot trace in {namespace}: the kernel has neither nf_tables nor ip_tables",
            "Load one of them: modprobe nf_tables, or modprobe ip_tables.",
        )


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


def look() -> Capabilities:
    """Return what this machine has; asking the kernel for nf_tables loads the module."""
    return Capabilities(
        programs=frozenset(name for name in PROGRAMS if commands.find(name)),
        nf_tables=nft_rules.available(),
        ip_tables=LEGACY.exists(),
    )


def load_modules(names: Sequence[str] = MODULES) -> None:
    """Load the modules that tracing needs, where there are modules; never fails.

    A trace rule asks the kernel for its own modules, but nobody asks for the loggers.
    """
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
