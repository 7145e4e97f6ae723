"""IPv6 packets with extension headers are one packet to both backends: nft shows less of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import count, product

import pytest

from ipttrace.correlate import Correlator
from ipttrace.event import TraceEvent
from ipttrace.fingerprint import can_be_one, fingerprint
from ipttrace.matching import PacketFacts, judge
from ipttrace.packet import PacketSummary
from ipttrace.path import PacketPath
from ipttrace.render.words import packet_words
from tests.recordings import read_recording
from tests.transcripts import INTERFACES, events_of

NFT, LEGACY = "nft6-headers", "legacy6-headers"
SENT = range(4)
"""By the client: after two options, after a routing header, and in two fragments."""


def reports(name: str) -> list[list[TraceEvent]]:
    """Return the reports of each of these packets in one of the recordings."""
    found: list[list[TraceEvent]] = []
    seen: PacketSummary | None = None
    for event in events_of(read_recording(name)):
        assert isinstance(event, TraceEvent)
        if event.packet is not None and event.packet is not seen:
            found.append([])
            seen = event.packet
        found[-1].append(replace(event, sequence=None))
    heads = [each[0].packet for each in found]
    return [
        each
        for each, head in zip(found, heads, strict=True)
        if head and head.extended is not None and head.src.startswith("2001:db8::")
    ]


def paths(*events: TraceEvent) -> tuple[PacketPath, ...]:
    """Return the paths where the rules of both recordings stand in one namespace."""
    rules = read_recording(NFT).ruleset | read_recording(LEGACY).ruleset
    correlator = Correlator(rules, ids=count(1), interfaces=INTERFACES)
    for event in events:
        correlator.feed(event)
    return correlator.paths()


def head(events: list[TraceEvent]) -> PacketSummary:
    assert events[0].packet is not None
    return events[0].packet


@pytest.mark.parametrize("number", SENT)
def test_both_looks_have_one_fingerprint(number: int) -> None:
    nft, legacy = head(reports(NFT)[number]), head(reports(LEGACY)[number])
    assert (nft.partial, legacy.partial) == (True, False)
    assert fingerprint(nft) == fingerprint(legacy)
    assert can_be_one(nft, legacy)
    assert can_be_one(legacy, nft)


def test_different_packets_are_told_apart() -> None:
    pairs = product(map(head, reports(NFT)), map(head, reports(LEGACY)))
    same = [can_be_one(*pair) and fingerprint(pair[0]) == fingerprint(pair[1]) for pair in pairs]
    assert sum(same) == len(SENT)


def test_fragments_of_one_length_are_told_apart_where_their_offset_is_known() -> None:
    later = head(reports(LEGACY)[3])
    last = replace(later, fragment_offset=96)
    assert fingerprint(later) == fingerprint(last)
    assert not can_be_one(later, last)


def test_a_fragment_of_another_network_is_another() -> None:
    nft, legacy = head(reports(NFT)[3]), head(reports(LEGACY)[3])
    assert not can_be_one(nft, replace(legacy, src="2001:db8:7::2"))


@pytest.mark.parametrize("number", SENT)
@pytest.mark.parametrize("order", [(NFT, LEGACY), (LEGACY, NFT)], ids=["nft first", "legacy first"])
def test_both_backends_give_one_path_with_all_headers(number: int, order: tuple[str, str]) -> None:
    first, second = (reports(name)[number] for name in order)
    (path,) = paths(*first, *second)
    assert (path.packet, path.last_packet) == (head(reports(LEGACY)[number]),) * 2
    assert {hop.chain.backend for hop in path.chain_hops} == {"nft", "legacy"}
    assert not path.ambiguous
    assert [hop.changes for hop in path.chain_hops] == [()] * len(path.hops)


def test_nft_alone_shows_what_it_knows_of_each_fragment() -> None:
    both = paths(*reports(NFT)[2], *reports(NFT)[3])
    assert [(path.packet.src, path.packet.dst) for path in both] == [
        ("2001:db8::2", "2001:db8::1"),
        ("2001:db8::/96", "::/0"),
    ]
    assert [len(path.hops) for path in both] == [2, 2]


def test_what_nft_does_not_show_is_no_word() -> None:
    assert [packet_words(head(each)) for each in reports(NFT)] == [
        "ipv6 2001:db8::2 > 2001:db8::1  hop-by-hop options  76 bytes",
        "ipv6 2001:db8::2 > 2001:db8::1  routing header  60 bytes",
        "ipv6 2001:db8::2 > 2001:db8::1  fragment  96 bytes",
        "ipv6 2001:db8::/96 > ::/0  fragment  104 bytes",
    ]
    assert packet_words(head(reports(LEGACY)[3])).startswith("udp 2001:db8::2 > 2001:db8::1")


def test_a_rule_is_not_judged_by_what_nft_does_not_show() -> None:
    later = PacketFacts(head(reports(NFT)[3]), "eth0")
    first = PacketFacts(head(reports(NFT)[2]), "eth0")
    assert judge("-A INPUT -p tcp -m tcp --dport 22 -j DROP", first).matches is None
    assert judge("-A INPUT -s 2001:db8:7::/64 -j DROP", first).matches is False
    assert judge("-A INPUT -s 2001:db8:7::/64 -j DROP", later).matches is None
