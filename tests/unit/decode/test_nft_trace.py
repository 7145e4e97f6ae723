"""NFT_MSG_TRACE messages that no recording has."""

from __future__ import annotations

import struct

import pytest

from ipttrace.decode.attributes import Malformed
from ipttrace.decode.nft_trace import decode_nft_trace
from ipttrace.event import TraceEvent, TraceKind
from ipttrace.netfilter import PacketFamily, TableFamily, Verdict

UDP4 = bytes.fromhex("4500002010920000401115d1c6336402c63364019c4114e9000cf83c00010203")
BRIDGE, NETDEV, INET, ARP = 7, 5, 1, 3
POLICY, RETURN, RULE = 1, 2, 3


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def verdict(code: int, chain: bytes = b"") -> bytes:
    nested = attribute(1, struct.pack("!i", code))
    return attribute(5 | 0x8000, nested + (attribute(2, chain + b"\0") if chain else b""))


def report(kind: int = RULE, family: int = 2, more: bytes = b"", *, handle: int = 9) -> TraceEvent:
    body = attribute(1, b"t\0") + attribute(2, b"c\0") + attribute(4, struct.pack("!I", kind))
    body += attribute(3, struct.pack("!Q", handle)) if handle else b""
    return decode_nft_trace(body + more, family, 0.0)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (-1, Verdict.CONTINUE),
        (-2, Verdict.CONTINUE),
        (-3, Verdict.JUMP),
        (-4, Verdict.GOTO),
        (-5, Verdict.RETURN),
        (0, Verdict.DROP),
        (1, Verdict.ACCEPT),
        (2, Verdict.STOLEN),
        (3, Verdict.QUEUE),
        (5 << 16 | 3, Verdict.QUEUE),
        (13 << 16, Verdict.DROP),
        (-(13 << 16), Verdict.DROP),
        (4, None),
    ],
)
def test_verdict_codes(code: int, expected: Verdict | None) -> None:
    assert report(more=verdict(code)).verdict is expected


@pytest.mark.parametrize("kind", [RULE, RETURN])
def test_a_rule_that_returns_is_a_rule_whichever_type_the_kernel_gives_it(kind: int) -> None:
    assert report(kind, more=verdict(-5)).kind is TraceKind.RULE


def test_a_jump_says_where_to() -> None:
    event = report(more=verdict(-3, b"a:b"))
    assert (event.verdict, event.target_chain) == (Verdict.JUMP, "a:b")


@pytest.mark.parametrize(("code", "expected"), [(0, Verdict.DROP), (1, Verdict.ACCEPT)])
def test_a_policy_is_no_rule_and_its_verdict_is_the_policy(code: int, expected: Verdict) -> None:
    event = report(POLICY, more=attribute(16, struct.pack("!I", code)))
    assert (event.kind, event.verdict, event.handle) == (TraceKind.POLICY, expected, None)
    assert not event.header_only


@pytest.mark.parametrize("kind", [RETURN, RULE])
def test_only_reports_without_handle_are_bare(kind: int) -> None:
    assert report(kind, handle=0, more=verdict(-1)).header_only
    assert not report(kind, more=verdict(-5)).header_only


def test_a_handle_has_64_bits() -> None:
    assert report(handle=2**64 - 1).handle == 2**64 - 1


def test_the_mark_is_zero_when_left_out_but_unknown_of_a_stolen_packet() -> None:
    assert report(more=verdict(1)).mark == 0
    assert report(more=verdict(2)).mark is None
    assert report(more=verdict(1) + attribute(14, b"\x00\x01\x00\x02")).mark == 0x10002


def test_attributes_of_newer_kernels_are_passed_over() -> None:
    newer = b"".join(attribute(kind, b"\0\0\0\1") for kind in range(17, 30))
    assert report(more=verdict(1) + newer) == report(more=verdict(1))


def headers(protocol: int, ethertype: bytes = b"") -> bytes:
    frame = attribute(7, bytes(12) + ethertype) if ethertype else b""
    network = attribute(8, UDP4[:20]) + attribute(9, UDP4[20:])
    return attribute(15, struct.pack("!I", protocol)) + frame + network


@pytest.mark.parametrize(
    ("family", "protocol", "ethertype"),
    [
        (2, 2, b""),
        (INET, 2, b""),
        (BRIDGE, BRIDGE, b"\x08\x00"),
        (NETDEV, NETDEV, b"\x81\x00\x00\x07\x08\x00"),
        (NETDEV, NETDEV, b""),
    ],
)
def test_every_family_of_table_shows_its_packets(
    family: int, protocol: int, ethertype: bytes
) -> None:
    event = report(family=family, more=headers(protocol, ethertype))
    assert event.packet is not None
    assert (event.packet.family, event.packet.dport) == (PacketFamily.IPV4, 5353)


@pytest.mark.parametrize(
    ("family", "protocol", "ethertype"),
    [(BRIDGE, BRIDGE, b"\x08\x06"), (ARP, ARP, b""), (NETDEV, NETDEV, b"\x81\x00\x00\x07")],
)
def test_what_is_no_ip_packet_is_none(family: int, protocol: int, ethertype: bytes) -> None:
    assert report(family=family, more=headers(protocol, ethertype)).packet is None


def test_the_table_family_is_the_messages_own() -> None:
    assert report(family=INET, more=headers(2)).table_family is TableFamily.INET


@pytest.mark.parametrize(
    ("body", "family"),
    [
        (b"", 2),
        (attribute(1, b"t\0") + attribute(2, b"c\0"), 2),
        (attribute(1, b"t\0") + attribute(4, b"\0\0\0\3"), 2),
        (attribute(1, b"t\0") + attribute(2, b"c\0") + attribute(4, b"\0\0\0\3"), 200),
        (attribute(1, b"t\0") + attribute(2, b"c\0") + attribute(4, b"\0\0\0\x09"), 2),
        (attribute(1, b"t\0") + attribute(2, b"c\0") + attribute(4, b"\0\3"), 2),
    ],
)
def test_a_report_that_names_no_place_is_malformed(body: bytes, family: int) -> None:
    with pytest.raises(Malformed):
        decode_nft_trace(body, family, 0.0)
