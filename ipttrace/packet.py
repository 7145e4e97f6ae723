"""The headers of one packet, read from bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ipttrace.netfilter import PacketFamily


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
