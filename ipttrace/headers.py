"""Network and transport headers as they lie in memory: bytes in, plain fields out.

RFC 791 (IPv4), RFC 8200 (IPv6 and its extension headers), RFC 4302 (AH), RFC 9293 (TCP).
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address
from struct import Struct
from typing import NamedTuple

from ipttrace.netfilter import PacketFamily

ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
PROTOCOL_WORDS = {ICMP: "icmp", TCP: "tcp", UDP: "udp", ICMPV6: "icmp6", SCTP: "sctp"}

HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION = 0, 43, 44, 51, 60
EXTENSION_HEADERS = frozenset({HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION})
"""Those that the kernel walks over (ipv6_ext_hdr in net/ipv6/exthdrs_core.c), but for 59: none."""

TCP_FLAG_WORDS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
TCP_FLAGS = tuple(
    tuple(word for bit, word in enumerate(TCP_FLAG_WORDS) if value >> bit & 1)
    for value in range(256)
)
"""Indexed by the flags byte."""

PORT_PROTOCOLS = frozenset({TCP, UDP, 33, SCTP, 136})
"""Also DCCP and UDP-Lite: source and destination port are the first two words of each."""

_IPV4 = Struct("!BxHHHBBxx4s4s")
_IPV6 = Struct("!4xHBB16s16s")
_PORTS = Struct("!HH")
_TCP = Struct("!IIBB")
_FRAGMENT = Struct("!BxHI")


class NetworkHeader(NamedTuple):
    """An IP header; `end` is where the transport header begins, None if that was cut off."""

    src: str
    dst: str
    protocol: int
    length: int
    ttl: int
    ip_id: int | None
    fragment_offset: int
    more_fragments: bool
    end: int | None
    extended: bool = False
    """IPv6 with extension headers."""


class TransportHeader(NamedTuple):
    """What a transport header says; None where it does not say it or was cut off."""

    sport: int | None = None
    dport: int | None = None
    flags: tuple[str, ...] = ()
    seq: int | None = None
    ack: int | None = None
    length: int = 0
    """Of the header, in bytes."""


NO_TRANSPORT = TransportHeader()


def protocol_word(number: int) -> str:
    """Return the protocol's word, or its number as text."""
    return PROTOCOL_WORDS.get(number) or str(number)


@lru_cache(maxsize=8192)
def address_text(address: bytes) -> str:
    """Return 4 or 16 bytes as `inet_ntop` writes them."""
    if len(address) == 4:
        return "{}.{}.{}.{}".format(*address)
    value = IPv6Address(address)
    return f"::ffff:{value.ipv4_mapped}" if value.ipv4_mapped else value.compressed


def read_network(data: bytes, family: PacketFamily) -> NetworkHeader | None:
    """Return the network header that `data` starts with, None if it is not all there."""
    return _read_ipv4(data) if family is PacketFamily.IPV4 else _read_ipv6(data)


def _read_ipv4(data: bytes) -> NetworkHeader | None:
    if len(data) < 20:
        return None
    first, length, ip_id, fragment, ttl, protocol, src, dst = _IPV4.unpack_from(data)
    header = (first & 0xF) * 4
    if first >> 4 != 4 or header < 20:
        return None
    return NetworkHeader(
        address_text(src),
        address_text(dst),
        protocol,
        length,
        ttl,
        ip_id,
        (fragment & 0x1FFF) * 8,
        fragment & 0x2000 != 0,
        header if header <= len(data) else None,
    )


def read_cut_ipv6(data: bytes) -> NetworkHeader | None:
    """Return the IPv6 header that was cut off within its source address, None if before it.

    Addresses are then networks: all that is known of them.
    """
    if len(data) < 8 or data[0] >> 4 != 6:
        return None
    source = data[8:24]
    known = f"{address_text(source.ljust(16, bytes(1)))}/{len(source) * 8}"
    following, length = data[6], int.from_bytes(data[4:6])
    return NetworkHeader(
        src=known,
        dst="::/0",
        protocol=following,
        length=length + 40,
        ttl=data[7],
        ip_id=None,
        fragment_offset=0,
        more_fragments=False,
        end=None,
        extended=True,
    )


def _read_ipv6(data: bytes) -> NetworkHeader | None:
    if len(data) < 40 or data[0] >> 4 != 6:
        return None
    length, following, ttl, src, dst = _IPV6.unpack_from(data)
    header = NetworkHeader(
        src=address_text(src),
        dst=address_text(dst),
        protocol=following,
        length=length + 40,
        ttl=ttl,
        ip_id=None,
        fragment_offset=0,
        more_fragments=False,
        end=40,
    )
    return _skip_extensions(header, data) if following in EXTENSION_HEADERS else header


def _skip_extensions(header: NetworkHeader, data: bytes) -> NetworkHeader:
    """Return `header` with the transport protocol and its place, as far as `data` reaches."""
    at = 40
    header = header._replace(extended=True)
    while header.protocol in EXTENSION_HEADERS and header.fragment_offset == 0:
        if at + 8 > len(data):
            return header._replace(end=None)
        following, units = data[at], data[at + 1]
        if header.protocol == FRAGMENT:
            header = _with_fragment(header, data, at)
            at += 8
        else:
            at += (units + 2) * 4 if header.protocol == AUTHENTICATION else (units + 1) * 8
            header = header._replace(protocol=following)
    return header._replace(end=at if at <= len(data) else None)


def _with_fragment(header: NetworkHeader, data: bytes, at: int) -> NetworkHeader:
    following, offset, ip_id = _FRAGMENT.unpack_from(data, at)
    return header._replace(
        protocol=following,
        ip_id=ip_id,
        fragment_offset=offset & 0xFFF8,
        more_fragments=offset & 1 != 0,
    )


def read_transport(data: bytes, protocol: int) -> TransportHeader:
    """Return the transport header that `data` starts with, as far as it is there."""
    if protocol not in PORT_PROTOCOLS:
        return NO_TRANSPORT
    if len(data) < 4:
        return TransportHeader(int.from_bytes(data[:2]) if len(data) >= 2 else None)
    sport, dport = _PORTS.unpack_from(data)
    if protocol == TCP:
        return _read_tcp(data, sport, dport)
    return TransportHeader(sport, dport, (), None, None, 12 if protocol == SCTP else 8)


def _read_tcp(data: bytes, sport: int, dport: int) -> TransportHeader:
    if len(data) < 14:
        seq = int.from_bytes(data[4:8]) if len(data) >= 8 else None
        ack = int.from_bytes(data[8:12]) if len(data) >= 12 else None
        return TransportHeader(sport, dport, (), seq, ack, 20)
    seq, ack, offset, flags = _TCP.unpack_from(data, 4)
    return TransportHeader(sport, dport, TCP_FLAGS[flags], seq, ack, max(offset >> 4, 5) * 4)
