"""The setting that says who receives trace reports: net.netfilter.nf_log.<family>.

Binding an NFLOG listener to a family sets it to `nfnetlink_log`, and the kernel leaves it so when
the socket closes (nfulnl_recv_config, net/netfilter/nfnetlink_log.c).
"""

from __future__ import annotations

from pathlib import Path

from ipttrace.errors import KernelError

SETTINGS = Path("/proc/sys/net/netfilter/nf_log")
FAMILIES = (2, 10)
"""NFPROTO_IPV4, NFPROTO_IPV6."""

LISTENER = "nfnetlink_log"
"""The logger that our queue binds."""

NONE = "NONE"
"""What the kernel calls the absence of a logger; writing it unbinds."""

Loggers = tuple[str, ...]
"""The logger of each of FAMILIES; empty where the kernel has no such setting."""


def read_loggers() -> Loggers:
    """Return the loggers of the calling thread's namespace."""
    try:
        return tuple((SETTINGS / str(family)).read_text().strip() for family in FAMILIES)
    except OSError:
        return ()


def put_back(original: Loggers) -> None:
    """Undo what our queue bound; a setting that somebody else changed since is left alone."""
    now = read_loggers()
    for family, before, current in zip(FAMILIES, original, now, strict=False):
        if current == LISTENER and before != LISTENER:
            _write(family, before)


def _write(family: int, logger: str) -> None:
    try:
        (SETTINGS / str(family)).write_text(logger)
    except OSError as error:
        raise KernelError(
            f"cannot put {SETTINGS / str(family)} back to {logger}: {error.strerror}",
            f"Put it back with: sysctl net.netfilter.nf_log.{family}={logger}",
        ) from error
