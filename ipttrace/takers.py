"""Which socket takes a packet, by the socket tables (__inet_lookup in the kernel)."""

from __future__ import annotations

from collections.abc import Sequence

from ipttrace.evidence import SocketEntry
from ipttrace.packet import PacketSummary

WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, never bound to
MAPPED = "::ffff:"
LOOPBACK = "lo"


def opens(packet: PacketSummary) -> bool:
    """Tell whether a packet asks for a new TCP connection: only a listener takes it."""
    return packet.protocol == "tcp" and {"SYN", "ACK", "RST", "FIN"} & {*packet.tcp_flags} == {
        "SYN"
    }


def taking(
    sockets: Sequence[SocketEntry], packet: PacketSummary, interface: str | None = None
) -> SocketEntry | None:
    """Return the socket that takes a packet: the most particular one (__inet_lookup in the kernel).

    A connected one comes first, then one that is bound to the address, then one that is not.
    `interface` is where it came in, None for a packet made here.
    """
    return max(
        fitting(sockets, packet, interface),
        key=lambda each: (each.remote is not None, not _is_wild(each), each.interface is not None),
        default=None,
    )


def fitting(
    sockets: Sequence[SocketEntry], packet: PacketSummary, interface: str | None
) -> list[SocketEntry]:
    """Return the sockets that would take a packet that came in there, in no order."""
    return [
        each
        for each in sockets
        if _takes(each, packet) and each.interface in (None, interface or LOOPBACK)
    ]


def _takes(entry: SocketEntry, packet: PacketSummary) -> bool:
    if entry.protocol != packet.protocol or entry.port != packet.dport:
        return False
    if entry.remote is not None and opens(packet):
        return False
    if entry.remote is not None and (_plain(entry.remote[0]), entry.remote[1]) != (
        packet.src,
        packet.sport,
    ):
        return False
    address = _plain(entry.address)
    if address == "::":
        return packet.family == "ipv6" or not entry.v6_only
    return address in (packet.dst, "0.0.0.0") and (  # noqa: S104 - compared with
        (":" in address) == (packet.family == "ipv6")
    )


def _plain(address: str) -> str:
    """Return an IPv4 address that an IPv6 socket holds as it is written in IPv4."""
    return address.removeprefix(MAPPED)


def _is_wild(entry: SocketEntry) -> bool:
    return entry.address in WILDCARDS
