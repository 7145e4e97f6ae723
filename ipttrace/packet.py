"""The headers of one packet, read from bytes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import ip_address, ip_network
from struct import Struct

from ipttrace.headers import (
    ICMP,
    ICMPV6,
    NO_TRANSPORT,
    NetworkHeader,
    protocol_word,
    read_cut_ipv6,
    read_network,
    read_transport,
)
from ipttrace.netfilter import PacketFamily

PAYLOAD_KEPT = 64
"""Bytes."""

HEAD_KEPT = 128
"""Bytes of a packet, from its network header, that are kept as the kernel reported them."""

ICMP_ECHO = {ICMP: frozenset({0, 8}), ICMPV6: frozenset({128, 129})}
ICMP_ERRORS = {ICMP: frozenset({3, 4, 5, 11, 12}), ICMPV6: frozenset({1, 2, 3, 4})}
"""Types whose body, 8 bytes in, is the packet they speak of (RFC 792, RFC 4443 section 2.4)."""

_WORDS = Struct("!HH")


SAME_PACKETS = 1024
"""How many packets' headers are remembered: each rule that a packet meets reports them again."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Who speaks to whom; ports are None where the protocol has none (ICMP: see `icmp_id`)."""

    family: PacketFamily
    protocol: str
    """`tcp`, `udp`, `icmp`, `icmp6`, `sctp`, or the number as text."""
    src: str
    dst: str
    sport: int | None = None
    dport: int | None = None
    icmp_id: int | None = None

    def reversed(self) -> Flow:
        """Return the flow of the answers."""
        return replace(self, src=self.dst, dst=self.src, sport=self.dport, dport=self.sport)


@dataclass(frozen=True, slots=True)
class IcmpHeader:
    """Type and code; id and seq in echo messages only (RFC 792, RFC 4443)."""

    type: int
    code: int
    id: int | None = None
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class PacketSummary:
    """What the headers of one packet say; None where they do not say it or were cut off."""

    family: PacketFamily
    protocol: str
    src: str
    dst: str
    sport: int | None = None
    dport: int | None = None
    ip_id: int | None = None
    """IPv4 identification, or that of an IPv6 fragment header."""
    length: int = 0
    """Of the whole packet from the network header, in bytes, as the header says."""
    ttl: int = 0
    """IPv4 TTL or IPv6 hop limit."""
    tcp_flags: tuple[str, ...] = ()
    """In wire order from the right: FIN SYN RST PSH ACK URG ECE CWR."""
    tcp_seq: int | None = None
    tcp_ack: int | None = None
    icmp: IcmpHeader | None = None
    quoted: PacketSummary | None = None
    """The packet that an ICMP error speaks of."""
    fragment_offset: int = 0
    """In bytes; ports are None in all but the first fragment."""
    more_fragments: bool = False
    payload: bytes = b""
    """The first bytes after the transport header, as far as they were captured (at most 64)."""
    extended: bytes | None = None
    """IPv6 with extension headers: bytes 8 to 16 behind these, which NAT never rewrites; empty in
    all but the first fragment.  None in other packets."""
    partial: bool = False
    """nft showed no more than the headers before the extension headers: `parse_headers`."""
    head: bytes = field(default=b"", compare=False, repr=False)
    """The first bytes as the kernel reported them, from the network header (at most 128); empty
    where it told no bytes.  It says nothing that makes one packet differ from another."""

    @property
    def dsfield(self) -> int | None:
        """IPv4's former TOS, IPv6's traffic class; None where the kernel told no bytes."""
        if len(self.head) < 2:
            return None
        word = int.from_bytes(self.head[:2])
        return word & 0xFF if self.family is PacketFamily.IPV4 else word >> 4 & 0xFF

    @property
    def flow(self) -> Flow:
        """Who speaks to whom."""
        return Flow(
            self.family,
            self.protocol,
            self.src,
            self.dst,
            self.sport,
            self.dport,
            self.icmp.id if self.icmp else None,
        )


@lru_cache(maxsize=SAME_PACKETS)
def parse_packet(data: bytes, family: PacketFamily) -> PacketSummary | None:
    """Return what the headers in `data` say, None if not even the network header is there.

    `data` starts with the network header and may be cut off anywhere after it.
    """
    return _parse(data, family, quoted=False)


@lru_cache(maxsize=SAME_PACKETS)
def parse_headers(network: bytes, transport: bytes, family: PacketFamily) -> PacketSummary | None:
    """Return what two separate headers say, None if the network header is not there.

    nft reports at most 40 bytes of the first and 20 of the second
    (nf_trace_fill_pkt_info in net/netfilter/nf_tables_trace.c).  Of an IPv6 packet with extension
    headers that leaves the transport protocol unsaid: `protocol` is then the number of the first
    extension header, there are no ports, and `payload` is the start of the transport header.

    Of an IPv6 fragment that is not the first there is no network header: ipv6_find_hdr leaves the
    offset of the transport header 0, so that the 20 bytes are those of the IPv6 header.
    """
    if not network and family is PacketFamily.IPV6:
        later = read_cut_ipv6(transport)
        if later is None:
            return None
        return _summary(later, b"", family, quoted=False, partial=True, head=transport)
    header = read_network(network, family)
    if header is None:
        return None
    head = network + transport if header.end == len(network) else network
    return _summary(header, transport, family, quoted=False, partial=header.extended, head=head)


def complete(seen: PacketSummary, known: PacketSummary) -> PacketSummary:
    """Return what a partial look has `seen` of a packet, with what else is `known` of it."""
    if known.partial:
        return seen
    if _is_later(seen):
        return replace(known, ttl=seen.ttl)
    return replace(known, src=seen.src, dst=seen.dst, ttl=seen.ttl)


def agree(one: PacketSummary, other: PacketSummary) -> bool:
    """Tell whether two looks, one of them at least partial, can be at the same packet."""
    if one.partial and other.partial:
        return one.protocol == other.protocol and _is_later(one) == _is_later(other)
    part, whole = (one, other) if one.partial else (other, one)
    if not _is_later(part):
        return whole.fragment_offset == 0
    return whole.fragment_offset > 0 and ip_address(whole.src) in ip_network(part.src)


def _is_later(partial: PacketSummary) -> bool:
    """Tell whether this is nft's look at a fragment that is not the first."""
    return "/" in partial.src


def _parse(data: bytes, family: PacketFamily, *, quoted: bool) -> PacketSummary | None:
    header = read_network(data, family)
    if header is None:
        return None
    body = data[header.end :] if header.end is not None else b""
    head = b"" if quoted else data[:HEAD_KEPT]
    return _summary(header, body, family, quoted=quoted, head=head)


def _summary(
    header: NetworkHeader,
    body: bytes,
    family: PacketFamily,
    *,
    quoted: bool,
    partial: bool = False,
    head: bytes = b"",
) -> PacketSummary:
    icmp, inner, transport = None, None, NO_TRANSPORT
    used = 0
    if header.fragment_offset == 0:
        transport = read_transport(body, header.protocol)
        used = transport.length
        if header.protocol in ICMP_ECHO:
            icmp = _read_icmp(body, header.protocol)
            inner = None if quoted else _read_quoted(body, header.protocol, family)
            used = 8
    return PacketSummary(
        family,
        protocol_word(header.protocol),
        header.src,
        header.dst,
        transport.sport,
        transport.dport,
        header.ip_id,
        header.length,
        header.ttl,
        transport.flags,
        transport.seq,
        transport.ack,
        icmp,
        inner,
        header.fragment_offset,
        header.more_fragments,
        body[used : used + PAYLOAD_KEPT],
        _behind(header, body) if header.extended else None,
        partial,
        head,
    )


def _behind(header: NetworkHeader, body: bytes) -> bytes:
    return body[8:16] if header.fragment_offset == 0 else b""


def _read_icmp(body: bytes, protocol: int) -> IcmpHeader | None:
    if len(body) < 2:
        return None
    if body[0] not in ICMP_ECHO[protocol] or len(body) < 8:
        return IcmpHeader(body[0], body[1])
    return IcmpHeader(body[0], body[1], *_WORDS.unpack_from(body, 4))


def _read_quoted(body: bytes, protocol: int, family: PacketFamily) -> PacketSummary | None:
    if len(body) < 8 or body[0] not in ICMP_ERRORS[protocol]:
        return None
    return _parse(body[8:], family, quoted=True)
