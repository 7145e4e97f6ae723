"""Which process holds a netlink port of NETLINK_NETFILTER in the calling thread's namespace.

/proc/net/netlink gives the port's socket by its inode, /proc/<pid>/fd the process.  A port's
number alone is no process: only a program's first netlink socket is numbered so (netlink(7)).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ipttrace.checkup.facts import Listener
from ipttrace.system.nfnetlink import NETLINK_NETFILTER

PROC = Path("/proc")
SOCKETS = Path("/proc/thread-self/net/netlink")


def owner_of_port(port: int) -> Listener:
    """Return the port with its process, as far as this user may see it."""
    inode = _inode(port)
    if inode is None:
        return Listener(port)
    target = f"socket:[{inode}]"
    pid = next((pid for pid in _candidates(port) if _holds(pid, target)), None)
    return Listener(port) if pid is None else Listener(port, pid, _name(pid))


def _inode(port: int) -> str | None:
    """Columns: socket, protocol, port, groups, ..., inode (netlink_native_seq_show)."""
    for line in SOCKETS.read_text().splitlines()[1:]:
        words = line.split()
        if words[1:3] == [str(NETLINK_NETFILTER), str(port)]:
            return words[-1]
    return None


def _candidates(port: int) -> Iterator[int]:
    yield port
    yield from (int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal())


def _holds(pid: int, target: str) -> bool:
    directory = PROC / str(pid) / "fd"
    try:
        return any(str(entry.readlink()) == target for entry in directory.iterdir())
    except OSError:  # it is gone, or somebody else's
        return False


def _name(pid: int) -> str | None:
    try:
        return (PROC / str(pid) / "comm").read_text(errors="replace").strip()
    except OSError:
        return None
