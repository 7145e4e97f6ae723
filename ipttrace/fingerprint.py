"""What tells one packet from others, wherever it is looked at."""

from __future__ import annotations

from ipttrace.packet import PacketSummary, agree

Fingerprint = tuple[object, ...]


def fingerprint(packet: PacketSummary) -> Fingerprint:
    """Return what stays the same of a packet on its whole way, NAT and marks notwithstanding.

    nft reports only the first 20 bytes of the transport header: no more than these is used, and of
    IPv6 packets with extension headers no more than nft tells of these (`packet.parse_headers`).
    """
    if packet.extended is not None:
        return packet.family, packet.length, packet.extended
    return _whole_fingerprint(packet)


def can_be_one(one: PacketSummary, other: PacketSummary) -> bool:
    """Tell whether looks with the same fingerprint can be at the same packet."""
    if one.extended is None:
        return True
    if one.partial or other.partial:
        return agree(one, other)
    return _whole_fingerprint(one) == _whole_fingerprint(other)


def _whole_fingerprint(packet: PacketSummary) -> Fingerprint:
    inner: object = None
    if packet.fragment_offset == 0:
        if packet.protocol == "tcp":
            inner = (packet.tcp_seq, packet.tcp_ack)
        elif packet.icmp is not None:
            inner = (packet.icmp.type, packet.icmp.code, packet.icmp.seq)
        else:
            inner = packet.payload[:8]
    identification = (
        packet.ip_id if packet.family == "ipv4" or packet.extended is not None else None
    )
    return (
        packet.family,
        packet.protocol,
        identification,
        packet.fragment_offset,
        packet.length,
        inner,
    )
