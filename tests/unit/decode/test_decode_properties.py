"""Garbage is data: any bytes and any text give values, nothing is raised."""

from __future__ import annotations

import struct
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttrace.decode.iptables_save import decode_iptables_save
from ipttrace.decode.netlink import CT_DELETE, CT_NEW, NFT_MSG_TRACE, NFULNL_MSG_PACKET
from ipttrace.decode.netlink import decode_datagram as decode
from ipttrace.decode.nft_list import decode_nft_list, merge_nft
from ipttrace.decode.text import clean_text
from ipttrace.event import FlowEvent, ForeignLog, Lost, TraceEvent, Undecoded
from ipttrace.netfilter import Backend, TableFamily
from ipttrace.ruleset import Ruleset
from tests import recordings

VALUES = TraceEvent | FlowEvent | ForeignLog | Lost | Undecoded
KINDS = st.sampled_from([NFULNL_MSG_PACKET, NFT_MSG_TRACE, CT_NEW, CT_DELETE])


@cache
def recorded_messages() -> tuple[bytes, ...]:
    names = recordings.names()
    return tuple(m.data for name in names for m in recordings.read_recording(name).messages)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, family: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHIIBBH", 20 + len(body), kind, flags, 0, 0, family, 0, 0) + body


VALUE = st.binary(max_size=8) | st.binary(min_size=20, max_size=90)
ATTRIBUTE = st.builds(attribute, st.integers(0, 25), VALUE)
NESTED = st.builds(
    attribute,
    st.integers(1, 5).map(lambda kind: kind | 0x8000),
    st.lists(ATTRIBUTE, max_size=4).map(b"".join),
)
MESSAGES = st.builds(
    message,
    KINDS,
    st.sampled_from([0, 1, 2, 3, 5, 7, 10, 200]),
    st.sampled_from([0, 0x600]),
    st.lists(ATTRIBUTE | NESTED, max_size=12).map(b"".join) | st.binary(max_size=60),
)


def values_only(data: bytes) -> bool:
    return all(isinstance(event, VALUES) for event in decode(data, 1.0))


@given(st.binary(max_size=300))
def test_any_bytes_give_values(data: bytes) -> None:
    assert values_only(data)


@given(st.lists(MESSAGES, max_size=3).map(b"".join))
def test_any_attributes_give_values(data: bytes) -> None:
    assert values_only(data)


@given(st.data())
def test_any_change_to_a_recording_gives_values(data: st.DataObject) -> None:
    changed = bytearray(data.draw(st.sampled_from(recorded_messages())))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at] = data.draw(st.integers(0, 255))
    assert values_only(bytes(changed))


@pytest.mark.parametrize("name", recordings.names())
def test_every_truncation_of_a_recording_gives_values(name: str) -> None:
    shapes = {len(m.data): m.data for m in recordings.read_recording(name).messages}
    for data in shapes.values():
        for kept in range(len(data)):
            events = decode(data[:kept], 1.0)
            assert len(events) == (1 if kept else 0)
            assert all(isinstance(event, Undecoded) for event in events)


@pytest.mark.parametrize("name", recordings.names())
def test_every_message_that_says_it_is_shorter_gives_values(name: str) -> None:
    shapes = {len(m.data): m.data for m in recordings.read_recording(name).messages}
    for data in shapes.values():
        for kept in range(20, len(data)):
            assert values_only(struct.pack("=I", kept) + data[4:kept])


@given(st.lists(st.sampled_from(range(10_000)), max_size=4))
def test_messages_of_one_datagram_decode_as_they_do_alone(picks: list[int]) -> None:
    known = recorded_messages()
    chosen = [known[pick % len(known)] for pick in picks]
    together = b"".join(data.ljust((len(data) + 3) & ~3, b"\0") for data in chosen)
    assert decode(together, 1.0) == [event for data in chosen for event in decode(data, 1.0)]


LINES = st.lists(
    st.sampled_from(["*filter", ":INPUT ACCEPT [1:2]", ":U - [0:0]", "-A INPUT -j U", "COMMIT"])
    | st.text(max_size=30)
    | st.text(alphabet='-AINPUTjg [:]" \\\n', max_size=30),
    max_size=12,
).map("\n".join)


@given(LINES)
def test_any_text_is_a_ruleset(text: str) -> None:
    ruleset = decode_iptables_save(text, Backend.LEGACY, TableFamily.IP)
    for chain in ruleset.chains.values():
        assert [rule.position for rule in chain.rules] == list(range(1, len(chain.rules) + 1))


NFT_LINES = st.lists(
    st.sampled_from(["table ip t {", "\tchain c {", "\tset s {", "\t}", "}", "\t\tdrop # handle 4"])
    | st.text(max_size=30),
    max_size=12,
).map("\n".join)


@given(NFT_LINES, NFT_LINES)
def test_any_list_is_a_ruleset_and_merges(saved: str, listed: str) -> None:
    one, two = decode_nft_list(saved), decode_nft_list(listed)
    assert isinstance(merge_nft(one, two), Ruleset)
    assert merge_nft(two, two) == two


def save_word(text: str) -> str:
    """Quote as xtables_save_string does."""
    plain = all(char.isascii() and (char.isalnum() or char in "-_") for char in text)
    if text and plain:
        return text
    return '"' + "".join("\\" + char if char in "\"\\'" else char for char in text) + '"'


@given(st.lists(st.text(max_size=20) | st.sampled_from(["-j", "-g DROP", "--comment"]), max_size=6))
def test_no_comment_changes_the_target_or_the_number_of_rules(comments: list[str]) -> None:
    rules = [f"-A INPUT -m comment --comment {save_word(text)} -j LOG" for text in comments]
    save = "\n".join(["*filter", ":INPUT ACCEPT [0:0]", *rules, "COMMIT", ""])
    ruleset = decode_iptables_save(save, Backend.LEGACY, TableFamily.IP)
    assert [(rule.text, rule.target) for rule in ruleset.rules()] == [(t, "LOG") for t in rules]


@given(st.text())
def test_clean_text_is_printable_and_leaves_the_printable_alone(text: str) -> None:
    clean = clean_text(text)
    assert clean.isprintable()
    assert clean_text(clean) == clean
    assert not text.isprintable() or clean == text
