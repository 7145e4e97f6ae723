"""The envelope of messages: control messages, strangers, and what is cut off."""

from __future__ import annotations

import struct

import pytest

from ipttrace.decode.netlink import decode_datagram
from ipttrace.event import FlowEvent, Lost, TraceEvent, Undecoded
from tests import recordings


def message(kind: int, body: bytes = b"") -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def recorded() -> bytes:
    return recordings.read_recording("legacy4-walk").messages[0].data


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_noop_error_and_done_are_nothing(kind: int) -> None:
    assert decode_datagram(message(kind, bytes(8)), 1.0) == []


def test_an_answer_to_our_own_configuration_is_nothing() -> None:
    assert decode_datagram(message(4 << 8 | 1, bytes(4)), 1.0) == []


def test_an_overrun_is_a_loss() -> None:
    assert decode_datagram(message(4), 1.0) == [Lost(1.0, None, "netlink overrun")]


def test_a_stranger_is_undecoded_and_kept_whole() -> None:
    stranger = message(0x0777, b"what?")
    assert decode_datagram(stranger, 1.0) == [
        Undecoded(1.0, "a message of unknown type 0x0777", stranger)
    ]


def test_what_follows_a_bad_message_is_still_read() -> None:
    bad = message(10 << 8 | 17, bytes(4) + b"\xff\xff\x01\x00")
    first, second = decode_datagram(bad + recorded(), 1.0)
    assert isinstance(first, Undecoded)
    assert isinstance(second, TraceEvent)


@pytest.mark.parametrize("length", [0, 15, 10_000, 2**32 - 1])
def test_an_impossible_length_ends_the_datagram(length: int) -> None:
    (event,) = decode_datagram(struct.pack("=I", length) + recorded()[4:], 1.0)
    assert isinstance(event, Undecoded)


@pytest.mark.parametrize("length", range(16, 20))
def test_a_message_without_its_family_is_undecoded(length: int) -> None:
    short = message(4 << 8, bytes(length - 16))
    assert decode_datagram(short, 1.0) == [
        Undecoded(1.0, "a message is cut off in its header", short)
    ]


@pytest.mark.parametrize(
    ("flags", "change"),
    [(0x600, "new"), (0x400, "update"), (0x200, "update"), (0, "update"), (0x2, "update")],
)
def test_only_an_event_with_create_and_excl_is_new(flags: int, change: str) -> None:
    messages = recordings.read_recording("flows4").messages
    data = next(m.data for m in messages if m.expected[0]["event"] == "FlowEvent")
    (event,) = decode_datagram(data[:6] + struct.pack("=H", flags) + data[8:], 1.0)
    assert isinstance(event, FlowEvent)
    assert event.change == change


def test_nothing_is_nothing() -> None:
    assert decode_datagram(b"", 1.0) == []


def test_the_time_is_the_callers() -> None:
    (event,) = decode_datagram(recorded(), 12.5)
    assert event.time == 12.5
