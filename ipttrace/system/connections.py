"""What connection tracking and NFQUEUE say of a packet, in the calling thread's namespace.

Entries are asked for one by one (IPCTNL_MSG_CT_GET with a tuple, ctnetlink_get_conntrack): that
switches nothing on, and costs the same however many connections there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ipttrace.decode.conntrack import IPCTNL_MSG_CT_NEW, decode_conntrack, decode_tcp_state
from ipttrace.decode.queues import decode_queues
from ipttrace.evidence import Connection
from ipttrace.packet import Flow
from ipttrace.system.conntrack import IPCTNL_MSG_CT_GET, tuple_message
from ipttrace.system.nfnetlink import NfnetlinkSocket, explaining

QUEUES = Path("/proc/thread-self/net/netfilter/nfnetlink_queue")

SETTINGS = tuple(
    f"net/netfilter/nf_conntrack_{name}"
    for name in ("count", "max", "tcp_loose", "tcp_be_liberal", "log_invalid", "checksum")
)
"""Below /proc/sys: what conntrack's verdicts depend on; `count` is what it holds now."""


def read_connections(flows: Iterable[Flow]) -> tuple[Connection, ...]:
    """Return the entries of these flows, each once, whichever direction a flow is.

    IptTraceError if the kernel cannot be asked.
    """
    found: dict[Flow, Connection] = {}
    with explaining("read conntrack entries"):
        opened = NfnetlinkSocket()
        try:
            for flow in flows:
                entry = _entry(opened, flow)
                if entry is not None:
                    found.setdefault(entry.original, entry)
        finally:
            opened.close()
    return tuple(found.values())


def _entry(opened: NfnetlinkSocket, flow: Flow) -> Connection | None:
    message = tuple_message(IPCTNL_MSG_CT_GET, flow)
    if message is None:
        return None
    try:
        data = opened.get(message)
    except FileNotFoundError:
        return None
    event = decode_conntrack(data, IPCTNL_MSG_CT_NEW, 0, 0.0)
    return Connection(event.original, event.reply, event.status, decode_tcp_state(data), event.mark)


def concerning(connections: Sequence[Connection], flows: Sequence[Flow]) -> tuple[Connection, ...]:
    """Return the entries that packets of these flows belong to."""
    known = frozenset(flows)
    return tuple(each for each in connections if not known.isdisjoint((each.original, each.reply)))


def read_queues() -> frozenset[int]:
    """Return the queues that have a listener: none where the kernel has no nfnetlink_queue."""
    try:
        return decode_queues(QUEUES.read_text())
    except FileNotFoundError:
        return frozenset()


def read_conntrack_settings(root: Path = Path("/proc/sys")) -> dict[str, str]:
    """Return conntrack's sysctls; those that this kernel does not have are left out."""
    return {name: (root / name).read_text().strip() for name in SETTINGS if (root / name).exists()}
