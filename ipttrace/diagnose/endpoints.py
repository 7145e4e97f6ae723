"""Words for sockets and for the ends of packets."""

from __future__ import annotations

from ipttrace.evidence import SocketEntry
from ipttrace.packet import PacketSummary
from ipttrace.path import PacketPath, SocketState


def joined(address: str, port: int | None) -> str:
    """Return `address:port`, `[address]:port` in IPv6, or the bare address."""
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def destination(packet: PacketSummary) -> str:
    """Return where a packet is sent to."""
    return joined(packet.dst, packet.dport)


def port_words(packet: PacketSummary) -> str:
    """Return `tcp port 80`."""
    return f"{packet.protocol} port {packet.dport}"


def where(path: PacketPath) -> str:
    """Return where a command is to be run, to be put behind what it is for."""
    return f" (in namespace {path.netns})" if path.netns else ""


def socket_words(entry: SocketEntry) -> str:
    """Return a socket with its process: `nginx (pid 812), listening on 127.0.0.1:80`."""
    where = joined(entry.address, entry.port)
    if entry.state is SocketState.LISTEN:
        does = "listening on" if entry.protocol == "tcp" else "receiving on"
    else:
        does = "connected at"
    return f"{holder(entry)}, {does} {where}{_limits(entry)}"


def holder(entry: SocketEntry) -> str:
    """Return the process that has a socket open."""
    if entry.process and entry.pid:
        return f"{entry.process} (pid {entry.pid})"
    return f"pid {entry.pid}" if entry.pid else "a socket"


def place(entry: SocketEntry) -> str:
    """Return where a socket listens, without its process: `[::]:80 (IPv6 only)`."""
    return f"{joined(entry.address, entry.port)}{_limits(entry)}"


def _limits(entry: SocketEntry) -> str:
    limits = ["IPv6 only"] if entry.v6_only and entry.address == "::" else []
    limits += [f"bound to {entry.interface}"] if entry.interface else []
    return f" ({', '.join(limits)})" if limits else ""
