"""Headers from bytes, among them the ones that real traffic seldom shows."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest

from ipttrace.netfilter import PacketFamily
from ipttrace.packet import Flow, IcmpHeader, PacketSummary, parse_headers, parse_packet

V4, V6 = PacketFamily.IPV4, PacketFamily.IPV6
SYN = struct.pack("!HHIIBBHHH", 40000, 443, 1000, 7, 0x50, 0x02, 8192, 0, 0)


def ipv4(
    body: bytes,
    protocol: int = 6,
    *,
    options: bytes = b"",
    fragment: int = 0,
    src: str = "198.51.100.2",
    dst: str = "203.0.113.9",
) -> bytes:
    words = 5 + len(options) // 4
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | words,
        0,
        words * 4 + len(body),
        4242,
        fragment,
        63,
        protocol,
        0,
        ip_address(src).packed,
        ip_address(dst).packed,
    )
    return header + options + body


def ipv6(body: bytes, following: int = 6, dst: str = "2001:db8::1") -> bytes:
    addresses = ip_address("2001:db8::2").packed + ip_address(dst).packed
    return struct.pack("!IHBB", 6 << 28, len(body), following, 62) + addresses + body


def summary(packet: PacketSummary | None) -> PacketSummary:
    assert packet is not None
    return packet


def test_a_tcp_syn_says_all_that_a_fingerprint_needs() -> None:
    assert parse_packet(ipv4(SYN + b"data"), V4) == PacketSummary(
        V4,
        "tcp",
        "198.51.100.2",
        "203.0.113.9",
        40000,
        443,
        ip_id=4242,
        length=44,
        ttl=63,
        tcp_flags=("SYN",),
        tcp_seq=1000,
        tcp_ack=7,
        payload=b"data",
    )


def test_flags_come_in_wire_order() -> None:
    everything = bytearray(SYN)
    everything[13] = 0xFF
    flags = summary(parse_packet(ipv4(bytes(everything)), V4)).tcp_flags
    assert flags == ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")


def test_ip_options_are_skipped() -> None:
    assert summary(parse_packet(ipv4(SYN, options=b"\x01" * 40), V4)).dport == 443


def test_tcp_options_are_no_payload() -> None:
    long = bytearray(SYN + b"\x01" * 8 + b"hello")
    long[12] = 7 << 4
    assert summary(parse_packet(ipv4(bytes(long)), V4)).payload == b"hello"


@pytest.mark.parametrize(
    ("number", "word"), [(1, "icmp"), (6, "tcp"), (17, "udp"), (58, "icmp6"), (132, "sctp")]
)
def test_five_protocols_have_words(number: int, word: str) -> None:
    assert summary(parse_packet(ipv4(b"", number), V4)).protocol == word


def test_another_protocol_is_its_number_and_has_no_ports() -> None:
    packet = summary(parse_packet(ipv4(b"\x00\x01\x00\x02", 47), V4))
    assert (packet.protocol, packet.sport, packet.payload) == ("47", None, b"\x00\x01\x00\x02")


@pytest.mark.parametrize(("number", "header"), [(17, 8), (132, 12), (33, 8), (136, 8)])
def test_ports_of_udp_sctp_dccp_and_udplite(number: int, header: int) -> None:
    body = struct.pack("!HH", 53, 54).ljust(header, b"\0") + b"body"
    packet = summary(parse_packet(ipv4(body, number), V4))
    assert (packet.sport, packet.dport, packet.payload[-4:]) == (53, 54, b"body")


def test_an_echo_has_id_and_seq() -> None:
    packet = summary(parse_packet(ipv4(bytes([8, 0, 0, 0, 0, 77, 0, 3]) + b"ping", 1), V4))
    assert packet.icmp == IcmpHeader(8, 0, 77, 3)
    assert packet.flow == Flow(V4, "icmp", "198.51.100.2", "203.0.113.9", icmp_id=77)
    assert packet.payload == b"ping"


def test_an_error_has_neither_id_nor_seq_but_quotes() -> None:
    inner = ipv4(SYN[:8], src="203.0.113.9", dst="198.51.100.2")
    packet = summary(parse_packet(ipv4(bytes([3, 1, 0, 0, 0, 0, 0, 0]) + inner, 1), V4))
    quoted = summary(packet.quoted)
    assert packet.icmp == IcmpHeader(3, 1)
    assert (quoted.src, quoted.sport, quoted.tcp_seq) == ("203.0.113.9", 40000, 1000)
    assert (quoted.tcp_flags, quoted.tcp_ack) == ((), None)


def test_errors_quoting_errors_end_after_one_step() -> None:
    packet = ipv4(b"")
    for _ in range(2000):
        packet = ipv4(bytes([3, 1, 0, 0, 0, 0, 0, 0]) + packet[:60000], 1)
    assert summary(summary(parse_packet(packet, V4)).quoted).quoted is None


def test_icmp6_errors_quote_ipv6() -> None:
    error = bytes([1, 4, 0, 0, 0, 0, 0, 0]) + ipv6(SYN)
    packet = summary(parse_packet(ipv6(error, 58), V6))
    assert (packet.protocol, packet.icmp) == ("icmp6", IcmpHeader(1, 4))
    assert summary(packet.quoted).dport == 443


def test_a_first_fragment_has_ports_and_a_later_one_has_not() -> None:
    first = summary(parse_packet(ipv4(SYN, fragment=0x2000), V4))
    later = summary(parse_packet(ipv4(SYN, fragment=0x0003), V4))
    assert (first.sport, first.more_fragments, first.fragment_offset) == (40000, True, 0)
    assert (later.sport, later.more_fragments, later.fragment_offset) == (None, False, 24)
    assert later.protocol == "tcp"


HOP_BY_HOP = bytes([60, 0, 1, 4, 0, 0, 0, 0])
DESTINATION = bytes([43, 1]) + bytes(14)
ROUTING = bytes([51, 2]) + bytes(22)
AUTHENTICATION = bytes([6, 4]) + bytes(22)


def test_ipv6_extension_headers_are_walked() -> None:
    body = HOP_BY_HOP + DESTINATION + ROUTING + AUTHENTICATION + SYN
    packet = summary(parse_packet(ipv6(body, 0), V6))
    assert (packet.protocol, packet.dport, packet.ip_id) == ("tcp", 443, None)
    assert (packet.length, packet.ttl) == (40 + len(body), 62)


@pytest.mark.parametrize(
    ("offset", "sport", "more"), [(0x0001, 40000, True), (0x0018, None, False)]
)
def test_an_ipv6_fragment_header_gives_the_id(offset: int, sport: int | None, more: bool) -> None:
    body = struct.pack("!BBHI", 6, 0, offset, 99) + SYN
    packet = summary(parse_packet(ipv6(body, 44), V6))
    assert (packet.protocol, packet.ip_id, packet.sport) == ("tcp", 99, sport)
    assert (packet.more_fragments, packet.fragment_offset) == (more, offset & 0xFFF8)


def test_a_later_ipv6_fragment_is_not_searched_for_extension_headers() -> None:
    body = struct.pack("!BBHI", 60, 0, 0x0018, 99) + bytes([6, 0]) + bytes(6) + SYN
    packet = summary(parse_packet(ipv6(body, 44), V6))
    assert (packet.protocol, packet.sport, packet.payload[:2]) == ("60", None, b"\x06\x00")


def test_an_ipv6_packet_with_nothing_after_its_header() -> None:
    packet = summary(parse_packet(ipv6(b"", 59), V6))
    assert (packet.protocol, packet.length) == ("59", 40)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("2001:db8:0:0:1::", "2001:db8:0:0:1::"),
        ("0:0:0:0:0:0:0:0", "::"),
        ("::ffff:198.51.100.7", "::ffff:198.51.100.7"),
    ],
)
def test_addresses_are_canonical(text: str, canonical: str) -> None:
    assert summary(parse_packet(ipv6(SYN, dst=text), V6)).dst == canonical


@pytest.mark.parametrize("length", range(20))
def test_less_than_a_network_header_is_nothing(length: int) -> None:
    assert parse_packet(ipv4(SYN)[:length], V4) is None
    assert parse_packet(ipv6(SYN)[: length * 2], V6) is None


@pytest.mark.parametrize(
    ("data", "family"), [(ipv4(SYN), V6), (ipv6(SYN), V4), (b"\x44" + ipv4(SYN)[1:], V4)]
)
def test_a_header_of_another_kind_is_nothing(data: bytes, family: PacketFamily) -> None:
    assert parse_packet(data.ljust(60, b"\0"), family) is None


@pytest.mark.parametrize(
    ("kept", "fields"),
    [
        (1, (None, None, None, None, ())),
        (2, (40000, None, None, None, ())),
        (4, (40000, 443, None, None, ())),
        (8, (40000, 443, 1000, None, ())),
        (12, (40000, 443, 1000, 7, ())),
        (14, (40000, 443, 1000, 7, ("SYN",))),
    ],
)
def test_a_cut_tcp_header_gives_what_is_left(kept: int, fields: tuple[object, ...]) -> None:
    packet = summary(parse_packet(ipv4(SYN[:kept]), V4))
    seen = (packet.sport, packet.dport, packet.tcp_seq, packet.tcp_ack, packet.tcp_flags)
    assert seen == fields


def test_a_cut_extension_header_leaves_the_protocol_unsaid() -> None:
    packet = summary(parse_packet(ipv6(HOP_BY_HOP + DESTINATION, 0)[:52], V6))
    assert (packet.protocol, packet.sport) == ("60", None)


def test_two_headers_apart_say_the_same_as_one_packet() -> None:
    for whole, end, family in ((ipv4(SYN), 20, V4), (ipv6(SYN), 40, V6)):
        assert parse_headers(whole[:end], whole[end:], family) == parse_packet(whole, family)


def test_long_ip_options_are_cut_from_the_network_header_that_nft_reports() -> None:
    whole = ipv4(SYN, options=b"\x01" * 40)
    assert summary(parse_headers(whole[:40], SYN, V4)).dport == 443


def test_behind_extension_headers_nft_does_not_say_the_protocol() -> None:
    whole = ipv6(HOP_BY_HOP + SYN, 0)
    packet = summary(parse_headers(whole[:40], SYN, V6))
    assert (packet.protocol, packet.sport, packet.payload) == ("0", None, SYN)


def test_headers_apart_need_a_network_header() -> None:
    assert parse_headers(ipv4(SYN)[:19], SYN, V4) is None
