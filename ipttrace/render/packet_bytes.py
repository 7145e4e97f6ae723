"""The bytes of a traced packet: as the kernel reported them, else rebuilt from what is known.

RFC 791 (IPv4), RFC 8200 (IPv6), RFC 9293 (TCP), RFC 768 (UDP), RFC 792 and RFC 4443 (ICMP).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from struct import Struct

from ipttrace.headers import FRAGMENT, PROTOCOL_WORDS, TCP_FLAGS
from ipttrace.netfilter import PacketFamily
from ipttrace.packet import PacketSummary, parse_packet

NO_NEXT_HEADER = 59
UNKNOWN_PROTOCOL = 255
"""Reserved (IANA protocol numbers)."""
NUMBERS = {word: number for number, word in PROTOCOL_WORDS.items()}
MOST = 0xFFFF

_IPV4 = Struct("!BBHHHBBH4s4s")
_IPV6 = Struct("!IHBB16s16s")
_FRAGMENT = Struct("!BBHI")
_TCP = Struct("!HHIIBBHHH")
_UDP = Struct("!HHHH")
_ICMP = Struct("!BBHHH")
_PORTS = Struct("!HH")


@dataclass(frozen=True, slots=True)
class PacketBytes:
    """The first bytes of one packet, from its network header."""

    data: bytes
    length: int
    """Of the whole packet, in bytes; at least that of `data`."""
    reported: bool
    """The kernel reported these very bytes; otherwise they are rebuilt."""

    @property
    def note(self) -> str:
        """What a reader must know about the bytes, in a sentence."""
        if not self.reported:
            return (
                "headers rebuilt from the trace: TOS, flow label, DF, options, window and transport"
                " checksum are not known and stand here as zero or are left out"
            )
        if len(self.data) == self.length:
            return "all bytes as the kernel reported them when the packet was first seen"
        return (
            f"the first {len(self.data)} of {self.length} bytes, as the kernel reported them when"
            " the packet was first seen"
        )


def packet_bytes(packet: PacketSummary) -> PacketBytes:
    """Return what is known of a packet's bytes."""
    data = packet.head if _is_of(packet.head, packet) else b""
    reported = bool(data)
    data = data or _rebuilt(packet)
    if packet.length >= 20:
        data = data[: packet.length]
    return PacketBytes(data, max(packet.length, len(data)), reported)


def _is_of(head: bytes, packet: PacketSummary) -> bool:
    """Tell whether `head` says of the packet what its summary says; NAT may lie between."""
    read = parse_packet(head, packet.family) if head else None
    if read is None:
        return packet.partial and bool(head)
    said = (read.src, read.dst, read.sport, read.dport, read.ttl)
    known = (packet.src, packet.dst, packet.sport, packet.dport, packet.ttl)
    if packet.partial:
        return said[:2] == known[:2]
    return all(one == other or one is None for one, other in zip(said, known, strict=True))


def _rebuilt(packet: PacketSummary) -> bytes:
    body = b"" if packet.fragment_offset else _transport(packet)
    if packet.family is PacketFamily.IPV4:
        return _ipv4(packet) + body
    if packet.extended is not None and packet.ip_id is None:
        return _ipv6(packet, NO_NEXT_HEADER)
    if packet.ip_id is None:
        return _ipv6(packet, _number(packet)) + body
    more = packet.fragment_offset & 0xFFF8 | packet.more_fragments
    fragment = _FRAGMENT.pack(_number(packet), 0, more, packet.ip_id & 0xFFFFFFFF)
    return _ipv6(packet, FRAGMENT) + fragment + body


def _number(packet: PacketSummary) -> int:
    known = NUMBERS.get(packet.protocol)
    if known is not None:
        return known
    return int(packet.protocol) & 0xFF if packet.protocol.isdecimal() else UNKNOWN_PROTOCOL


def _ipv4(packet: PacketSummary) -> bytes:
    fragment = packet.fragment_offset // 8 & 0x1FFF | packet.more_fragments << 13
    values = (packet.length & MOST, (packet.ip_id or 0) & MOST, fragment, packet.ttl & 0xFF)
    ends = _number(packet), _address(packet.src, 4), _address(packet.dst, 4)
    bare = _IPV4.pack(0x45, 0, *values, ends[0], 0, *ends[1:])
    return bare[:10] + _checksum(bare).to_bytes(2) + bare[12:]


def _ipv6(packet: PacketSummary, following: int) -> bytes:
    ends = _address(packet.src, 16), _address(packet.dst, 16)
    length = max(0, packet.length - 40) & MOST
    return _IPV6.pack(6 << 28, length, following, packet.ttl & 0xFF, *ends)


def _address(text: str, length: int) -> bytes:
    """Return the address, or that of the network of which more is not known."""
    try:
        packed = ip_address(text.split("/", maxsplit=1)[0]).packed
    except ValueError:
        packed = b""
    return packed if len(packed) == length else bytes(length)


def _checksum(header: bytes) -> int:
    """Return the Internet checksum of a header (RFC 1071)."""
    total = sum(int.from_bytes(header[at : at + 2]) for at in range(0, len(header), 2))
    while total >> 16:
        total = (total & MOST) + (total >> 16)
    return ~total & MOST


def _transport(packet: PacketSummary) -> bytes:
    if packet.icmp is not None:
        head = packet.icmp
        quoted = _rebuilt(packet.quoted) if packet.quoted is not None else packet.payload
        return _ICMP.pack(head.type, head.code, 0, head.id or 0, head.seq or 0) + quoted
    if packet.sport is None or packet.dport is None:
        return b""
    match packet.protocol:
        case "tcp":
            flags = TCP_FLAGS.index(packet.tcp_flags) if packet.tcp_flags in TCP_FLAGS else 0
            numbers = packet.tcp_seq or 0, packet.tcp_ack or 0
            return _TCP.pack(packet.sport, packet.dport, *numbers, 5 << 4, flags, 0, 0, 0)
        case "udp":
            header = 20 if packet.family is PacketFamily.IPV4 else 40
            length = max(8, packet.length - header) & MOST
            return _UDP.pack(packet.sport, packet.dport, length, 0) + packet.payload
    return _PORTS.pack(packet.sport, packet.dport)
