"""NFLOG messages that no recording has."""

from __future__ import annotations

import struct

import pytest

from ipttrace.decode.attributes import Malformed
from ipttrace.decode.nflog import decode_nflog, trace_point
from ipttrace.event import ForeignLog, TraceEvent, TraceKind
from ipttrace.netfilter import PacketFamily, TableFamily

PREFIX = b"TRACE: filter:INPUT:rule:1 \0"
HEADER = b"\x08\x00\x01\x00"
UDP4 = bytes.fromhex("4500002010920000401115d1c6336402c63364019c4114e9000cf83c00010203")


def attributes(*pairs: tuple[int, bytes]) -> bytes:
    return b"".join(
        struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
        for kind, value in pairs
    )


@pytest.mark.parametrize(
    ("prefix", "point"),
    [
        (b"TRACE: raw:PREROUTING:policy:2 \0", ("raw", "PREROUTING", TraceKind.POLICY, 2)),
        (b"TRACE: nat:a b:return:12 \0", ("nat", "a b", TraceKind.RETURN, 12)),
        (b"TRACE: nat:a:rule:1:rule:3 \0", ("nat", "a:rule:1", TraceKind.RULE, 3)),
        (b"TRACE: nat:x:y:policy:0 \0\0\0", ("nat", "x:y", TraceKind.POLICY, 0)),
        (b"TRACE: nat:\xff:rule:1 \0", ("nat", "\udcff", TraceKind.RULE, 1)),
        (b"TRACE: nat:a\nb:rule:1 \0", ("nat", "a\nb", TraceKind.RULE, 1)),
        (b"TRACE: filter:INPUT:rule:1\0", None),
        (b" TRACE: filter:INPUT:rule:1 \0", None),
        (b"TRACE: filter:INPUT:rules:1 \0", None),
        (b"TRACE: filter::rule:1 \0", None),
        (b"TRACE: filter:INPUT:rule:-1 \0", None),
        (b"TRACE: filter:INPUT:rule:" + b"9" * 60 + b" \0", None),
        ("TRACE: filter:INPUT:rule:٣ \0".encode(), None),
        (b"TRACE: filter:INPUT:rule:1 more\0", None),
        (b"", None),
    ],
)
def test_the_prefix_is_parsed_from_both_ends(
    prefix: bytes, point: tuple[str, str, TraceKind, int] | None
) -> None:
    assert trace_point(prefix) == point


def test_the_mark_is_zero_when_the_kernel_leaves_it_out() -> None:
    event = decode_nflog(attributes((1, HEADER), (9, UDP4), (10, PREFIX)), 2, 0.0)
    assert isinstance(event, TraceEvent)
    assert (event.mark, event.sequence, event.in_index, event.out_index) == (0, None, None, None)


def test_a_bridges_ports_stand_beside_the_bridge() -> None:
    indexes = [(kind, struct.pack(">I", kind * 10)) for kind in (4, 5, 6, 7)]
    event = decode_nflog(attributes((1, HEADER), (9, UDP4), (10, PREFIX), *indexes), 2, 0.0)
    assert isinstance(event, TraceEvent)
    assert (event.in_index, event.out_index) == (40, 50)
    assert (event.physical_in, event.physical_out) == (60, 70)


def test_a_trace_prefix_in_another_family_is_foreign() -> None:
    event = decode_nflog(attributes((1, HEADER), (9, UDP4), (10, PREFIX)), 7, 0.0)
    assert isinstance(event, ForeignLog)
    assert event.packet is not None
    assert event.packet.family is PacketFamily.IPV4


def test_a_packet_of_no_ip_protocol_is_no_packet() -> None:
    arp = decode_nflog(attributes((1, b"\x08\x06\x00\x00"), (9, UDP4)), 3, 0.0)
    assert arp == ForeignLog(0.0, "", None)


def test_the_family_of_the_table_is_the_messages() -> None:
    event = decode_nflog(attributes((10, PREFIX)), 10, 0.0)
    assert isinstance(event, TraceEvent)
    assert (event.table_family, event.packet, event.hook) == (TableFamily.IP6, None, None)


@pytest.mark.parametrize("pair", [(2, b"\0\0\0"), (12, b""), (4, b"\0" * 8), (1, b"\x08")])
def test_values_of_a_wrong_length_are_malformed(pair: tuple[int, bytes]) -> None:
    with pytest.raises(Malformed):
        decode_nflog(attributes((10, PREFIX), pair), 2, 0.0)
