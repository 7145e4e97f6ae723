"""The bytes of a traced packet: reported ones stay, rebuilt ones decode to what was known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.decode.netlink import decode_datagram
from ipttrace.event import TraceEvent
from ipttrace.netfilter import PacketFamily
from ipttrace.packet import PacketSummary, parse_packet
from ipttrace.render.packet_bytes import packet_bytes
from tests import builders as b
from tests.recordings import names, read_recording
from tests.transcripts import correlate

V6 = ("2001:db8::2", "2001:db8::1")
REPORTED = bytes.fromhex("45b8002801024000400600000a0000010a000002") + bytes(20)


@pytest.mark.parametrize(
    "packet",
    [
        b.tcp(tcp_seq=7, tcp_ack=9, flags=("SYN", "ACK")),
        b.tcp(*V6, tcp_seq=7),
        b.udp(payload=b"hello", length=33),
        b.icmp(),
        b.icmp(kind=3, code=1, quoted=b.udp(length=28)),
        b.icmp(*V6, kind=1, quoted=b.tcp(*V6, tcp_seq=3, tcp_ack=0)),
        b.tcp(flags=(), fragment_offset=1480, more_fragments=True),
    ],
    ids=str,
)
def test_what_is_rebuilt_says_what_was_known(packet: PacketSummary) -> None:
    made = packet_bytes(packet)
    read = parse_packet(made.data, packet.family)
    assert read is not None
    same = ("src", "dst", "protocol", "ttl", "ip_id", "length", "tcp_flags", "icmp")
    assert [getattr(read, name) for name in same] == [getattr(packet, name) for name in same]
    if not packet.fragment_offset:
        assert (read.sport, read.dport, read.tcp_seq) == (
            packet.sport,
            packet.dport,
            packet.tcp_seq,
        )
    assert made.length == packet.length
    assert not made.reported
    assert "rebuilt" in made.note


def test_reported_bytes_stay_as_they_are() -> None:
    packet = parse_packet(REPORTED, PacketFamily.IPV4)
    assert packet is not None
    made = packet_bytes(packet)
    assert (made.data, made.length, made.reported) == (REPORTED, 40, True)
    assert made.note.startswith("all bytes as the kernel reported them")


def test_cut_bytes_keep_the_whole_length() -> None:
    packet = parse_packet(REPORTED[:30], PacketFamily.IPV4)
    assert packet is not None
    made = packet_bytes(packet)
    assert (len(made.data), made.length) == (30, 40)
    assert "the first 30 of 40 bytes" in made.note


def test_bytes_of_another_state_are_not_taken() -> None:
    packet = parse_packet(REPORTED, PacketFamily.IPV4)
    assert packet is not None
    assert not packet_bytes(replace(packet, dst="10.0.0.9")).reported


def test_bytes_make_no_packet_different() -> None:
    packet = parse_packet(REPORTED, PacketFamily.IPV4)
    assert packet is not None
    assert packet == replace(packet, head=b"")
    assert hash(packet) == hash(replace(packet, head=b""))


@pytest.mark.parametrize("name", names())
def test_every_recorded_packet_has_its_bytes(name: str) -> None:
    messages = read_recording(name).messages
    events = [event for message in messages for event in decode_datagram(message.data, 0.0)]
    packets = [event.packet for event in events if isinstance(event, TraceEvent) and event.packet]
    for packet in packets:
        made = packet_bytes(packet)
        assert made.reported
        assert len(made.data) >= 20
        assert packet.head.startswith(made.data)


def test_the_longest_look_of_both_backends_is_kept() -> None:
    """The kernel shows 20 bytes of the transport header in nft; legacy reports the whole packet."""
    recording = read_recording("both4")
    events = [e for message in recording.messages for e in decode_datagram(message.data, 0.0)]
    paths = correlate(recording.ruleset, events).take(float("inf"))
    sizes = [(made.length, len(made.data)) for made in (packet_bytes(p.packet) for p in paths)]
    assert sizes
    assert all(min(length, 128) == size for length, size in sizes)
