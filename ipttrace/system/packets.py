"""The bytes of injected packets: scapy builds one template, later packets change its bytes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any

from ipttrace.netfilter import PacketFamily
from ipttrace.packet import Flow, IcmpHeader, PacketSummary
from ipttrace.probe import NETWORK_HEADER, TRANSPORT_HEADER, ProbeSpec, family_of, smallest_size

NONCE_BYTES = 16
ECHO_DATA = 56
"""Bytes of data in an echo request, as ping sends."""
DEFAULT_TTL = 64
SYN_OPTIONS = 20
"""Bytes of options in the SYN of a Linux host."""
CAPTURED = 64
"""Bytes of payload that `PacketSummary` keeps."""

PROTOCOL_NUMBER = {"tcp": 6, "udp": 17, "icmp": 1, "icmp6": 58}
ECHO_REQUEST = {"icmp": 8, "icmp6": 128}
"""RFC 792, RFC 4443 section 4.1."""
CHECKSUM_OFFSET = {"tcp": 16, "udp": 6, "icmp": 2, "icmp6": 2}
"""In the transport header."""

CLOSERS = frozenset({"RST", "FIN", "ACK"})


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes one packet different from all others, and from all other probes'."""

    ip_id: int = field(default_factory=lambda: 1 + secrets.randbelow(0xFFFF))
    """Never 0: Linux itself sends 0 where fragmentation is forbidden (ip_select_ident)."""
    tcp_seq: int = field(default_factory=lambda: secrets.randbits(32))
    icmp_id: int = field(default_factory=lambda: 1 + secrets.randbelow(0xFFFF))
    icmp_seq: int = 1
    nonce: bytes = field(default_factory=lambda: secrets.token_bytes(NONCE_BYTES))


def warm_up(family: PacketFamily | None = None) -> None:
    """Import what building needs (0.15 s); meant to be called in a thread while others work."""
    import scapy.layers.inet
    import scapy.layers.l2

    if family is not PacketFamily.IPV4:
        import scapy.layers.inet6  # noqa: F401


def opens_connection(flags: tuple[str, ...]) -> bool:
    """Tell whether a segment with `flags` makes a listener answer with SYN-ACK (RFC 9293)."""
    return "SYN" in flags and not CLOSERS & set(flags)


def payload_length(spec: ProbeSpec) -> int:
    """Return how many bytes follow the transport header and its options."""
    if spec.size is not None:
        return spec.size - smallest_size(spec) - _options_length(spec)
    return {"tcp": 0, "udp": NONCE_BYTES}.get(spec.protocol, ECHO_DATA)


def payload(spec: ProbeSpec, nonce: bytes) -> bytes:
    """Return the data of a packet: the nonce, cut or padded with zeros."""
    length = payload_length(spec)
    return nonce[:length].ljust(length, b"\0")


def _options_length(spec: ProbeSpec) -> int:
    """Return the bytes of TCP options: a bare SYN has those of a Linux host where they fit."""
    if spec.protocol != "tcp" or spec.tcp_flags != ("SYN",):
        return 0
    fits = spec.size is None or spec.size >= smallest_size(spec) + SYN_OPTIONS
    return SYN_OPTIONS if fits else 0


def describe(spec: ProbeSpec, flow: Flow, identity: Identity) -> PacketSummary:
    """Return what a decoder will say of the packet."""
    data = payload(spec, identity.nonce)
    echo = ECHO_REQUEST.get(spec.protocol)
    return PacketSummary(
        family=flow.family,
        protocol=flow.protocol,
        src=flow.src,
        dst=flow.dst,
        sport=flow.sport,
        dport=flow.dport,
        ip_id=identity.ip_id if flow.family is PacketFamily.IPV4 else None,
        length=smallest_size(spec) + _options_length(spec) + len(data),
        ttl=spec.ttl or DEFAULT_TTL,
        tcp_flags=spec.tcp_flags if spec.protocol == "tcp" else (),
        tcp_seq=identity.tcp_seq if spec.protocol == "tcp" else None,
        tcp_ack=0 if spec.protocol == "tcp" else None,
        icmp=None if echo is None else IcmpHeader(echo, 0, identity.icmp_id, identity.icmp_seq),
        payload=data[:CAPTURED],
    )


def frames(
    spec: ProbeSpec, flows: list[Flow], identities: list[Identity], macs: tuple[str, str]
) -> Iterator[bytes]:
    """Return one Ethernet frame a packet; `macs` are destination and source."""
    template = bytes(_ethernet(macs, flows[0]) / _network(spec, flows[0]) / _transport(spec))
    for flow, identity in zip(flows, identities, strict=True):
        yield _patched(template, spec.protocol, flow, identity)


def reset_frames(
    spec: ProbeSpec, flows: list[Flow], identities: list[Identity], macs: tuple[str, str]
) -> Iterator[bytes]:
    """Return the RST that takes each half-open connection back (RFC 9293 section 3.10.7.4).

    Its sequence number is the one after the SYN; none for packets that open no connection.
    """
    if spec.protocol != "tcp" or not opens_connection(spec.tcp_flags):
        return
    bare = replace(spec, tcp_flags=("RST",), size=None, ttl=None)
    after = [
        Identity(tcp_seq=(identity.tcp_seq + 1) & 0xFFFFFFFF, nonce=b"") for identity in identities
    ]
    yield from frames(bare, flows, after, macs)


def _ethernet(macs: tuple[str, str], flow: Flow) -> Any:
    from scapy.layers.l2 import Ether

    kind = 0x0800 if flow.family is PacketFamily.IPV4 else 0x86DD
    return Ether(dst=macs[0], src=macs[1], type=kind)


def _network(spec: ProbeSpec, flow: Flow) -> Any:
    number, ttl = PROTOCOL_NUMBER[spec.protocol], spec.ttl or DEFAULT_TTL
    if flow.family is PacketFamily.IPV4:
        from scapy.layers.inet import IP

        return IP(src=flow.src, dst=flow.dst, proto=number, ttl=ttl)
    from scapy.layers.inet6 import IPv6

    return IPv6(src=flow.src, dst=flow.dst, nh=number, hlim=ttl)


def _transport(spec: ProbeSpec) -> Any:
    from scapy.packet import Raw

    header = _transport_header(spec)
    data = payload(spec, b"")
    return header / Raw(data) if data else header


def _transport_header(spec: ProbeSpec) -> Any:
    from scapy.layers.inet import ICMP, TCP, UDP

    if spec.protocol == "tcp":
        letters = "".join("C" if flag == "CWR" else flag[0] for flag in spec.tcp_flags)
        options = _syn_options(spec) if _options_length(spec) else []
        return TCP(sport=1, dport=spec.dport, flags=letters, window=64240, options=options)
    if spec.protocol == "udp":
        return UDP(sport=1, dport=spec.dport)
    if spec.protocol == "icmp":
        return ICMP(type=ECHO_REQUEST["icmp"])
    from scapy.layers.inet6 import ICMPv6EchoRequest

    return ICMPv6EchoRequest()


def _syn_options(spec: ProbeSpec) -> list[tuple[str, Any]]:
    segment = 1500 - NETWORK_HEADER[spec.family] - TRANSPORT_HEADER["tcp"]
    return [
        ("MSS", segment),
        ("SAckOK", b""),
        ("Timestamp", (1, 0)),
        ("NOP", None),
        ("WScale", 7),
    ]


def _patched(template: bytes, protocol: str, flow: Flow, identity: Identity) -> bytes:
    frame = bytearray(template)
    network = memoryview(frame)[14:]
    if flow.family is PacketFamily.IPV4:
        network[4:6] = identity.ip_id.to_bytes(2, "big")
        network[10:12] = b"\0\0"
        network[10:12] = checksum(bytes(network[:20]))
    transport = network[NETWORK_HEADER[flow.family] :]
    _identify(transport, protocol, flow, identity)
    _seal(transport, protocol, flow)
    return bytes(frame)


def _identify(transport: memoryview, protocol: str, flow: Flow, identity: Identity) -> None:
    start = TRANSPORT_HEADER[protocol]
    if protocol in ECHO_REQUEST:
        transport[4:6] = identity.icmp_id.to_bytes(2, "big")
        transport[6:8] = identity.icmp_seq.to_bytes(2, "big")
    else:
        transport[0:2] = (flow.sport or 0).to_bytes(2, "big")
    if protocol == "tcp":
        transport[4:8] = identity.tcp_seq.to_bytes(4, "big")
        start = (transport[12] >> 4) * 4
    data = identity.nonce[: len(transport) - start]
    transport[start : start + len(data)] = data


def _seal(transport: memoryview, protocol: str, flow: Flow) -> None:
    """Write the transport checksum (RFC 1071; pseudo-header of RFC 9293 and RFC 8200)."""
    offset = CHECKSUM_OFFSET[protocol]
    transport[offset : offset + 2] = b"\0\0"
    data = bytes(transport)
    if protocol != "icmp":
        data = _pseudo_header(flow, PROTOCOL_NUMBER[protocol], len(data)) + data
    total = checksum(data)
    if protocol == "udp" and total == b"\0\0":
        total = b"\xff\xff"
    transport[offset : offset + 2] = total


def _pseudo_header(flow: Flow, number: int, length: int) -> bytes:
    ends = ip_address(flow.src).packed + ip_address(flow.dst).packed
    return ends + length.to_bytes(4, "big") + number.to_bytes(4, "big")


def checksum(data: bytes) -> bytes:
    """Return the internet checksum (RFC 1071) of `data`."""
    if len(data) % 2:
        data += b"\0"
    # 2**16 is 1 modulo 2**16 - 1, so the number itself has the sum of its 16-bit words.
    remainder = int.from_bytes(data, "big") % 0xFFFF
    total = remainder if remainder or not any(data) else 0xFFFF
    return (~total & 0xFFFF).to_bytes(2, "big")


def flow_of(spec: ProbeSpec, src: str, sport: int | None, identity: Identity) -> Flow:
    """Return the flow of one packet."""
    return Flow(
        family=family_of(spec.dst),
        protocol=spec.protocol,
        src=src,
        dst=spec.dst,
        sport=sport,
        dport=spec.dport,
        icmp_id=identity.icmp_id if spec.protocol in ECHO_REQUEST else None,
    )
