"""Which ways are legs of one packet's journey, and in which order it went them."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from time import process_time

import pytest

from ipttrace.journeys import LONGEST, JourneyBook
from ipttrace.packet import PacketSummary
from ipttrace.path import Outcome, PacketPath, Role
from tests.builders import tcp, udp

SYN = tcp(ttl=64, tcp_seq=100)


def leg(
    netns: str,
    *,
    enters: int = 64,
    leaves: int | None = None,
    packet: PacketSummary = SYN,
    made_here: bool = False,
    time: float = 1.0,
    number: int = 0,
) -> PacketPath:
    """Return one way of a packet; without `leaves` it ends there."""
    return PacketPath(
        id=number,
        netns=netns,
        role=Role.OBSERVED,
        time=time,
        packet=replace(packet, ttl=enters),
        in_interface=None if made_here else "eth0",
        outcome=Outcome.DELIVERED if leaves is None else Outcome.FORWARDED,
        last_packet=replace(packet, ttl=enters if leaves is None else leaves),
    )


def joined(*paths: PacketPath) -> list[tuple[str | None, int, int]]:
    """Return namespace, journey and leg of each."""
    found = JourneyBook().join(paths)
    return [(path.netns, path.journey, path.leg) for path in found]


CLIENT = leg("client", leaves=64, made_here=True)
NEAR_SWITCH = leg("near switch", leaves=64)
ROUTER = leg("router", leaves=63)
SWITCH = leg("switch", enters=63, leaves=63)
SERVER = leg("server", enters=63)
ROW = (CLIENT, NEAR_SWITCH, ROUTER, SWITCH, SERVER)


@pytest.mark.parametrize("paths", list(permutations(ROW)))
def test_legs_are_in_the_order_in_which_the_packet_went(paths: tuple[PacketPath, ...]) -> None:
    late = [replace(path, time=1.0 + place / 100) for place, path in enumerate(paths)]
    names = ["client", "near switch", "router", "switch", "server"]
    assert joined(*late) == [(name, 1, number) for number, name in enumerate(names, 1)]


def test_a_new_destination_is_the_same_packet() -> None:
    translated = replace(SYN, src="198.51.100.9", dst="203.0.113.2", sport=1, dport=8080)
    there = leg("server", enters=63, packet=translated)
    assert joined(ROUTER, there) == [("router", 1, 1), ("server", 1, 2)]


@pytest.mark.parametrize(
    "other", [replace(SYN, tcp_seq=101), replace(SYN, ip_id=1), replace(SYN, length=61), udp()]
)
def test_another_packet_is_another_journey(other: PacketSummary) -> None:
    assert joined(ROUTER, leg("server", enters=63, packet=other)) == [
        ("router", 1, 1),
        ("server", 2, 1),
    ]


def test_a_router_sends_it_back_into_the_same_namespace() -> None:
    paths = (
        leg("host", leaves=64, made_here=True),
        leg("router", leaves=63),
        leg("host", enters=63, time=1.1),
    )
    assert joined(*paths) == [("host", 1, 1), ("router", 1, 2), ("host", 1, 3)]


def test_a_bridge_sends_it_back_into_the_namespace_that_made_it() -> None:
    paths = (
        leg("host", leaves=64, made_here=True),
        leg("switch", leaves=64),
        leg("host", time=1.1),
    )
    assert joined(*paths) == [("host", 1, 1), ("switch", 1, 2), ("host", 1, 3)]


def test_the_same_ttl_again_is_a_copy() -> None:
    assert joined(ROUTER, replace(ROUTER, time=1.1)) == [("router", 1, 1), ("router", 2, 1)]


def test_the_same_packet_made_again_is_a_retransmission() -> None:
    paths = (CLIENT, ROUTER, replace(CLIENT, time=2.0), replace(ROUTER, time=2.0))
    assert joined(*paths) == [
        ("client", 1, 1),
        ("router", 1, 2),
        ("client", 2, 1),
        ("router", 2, 2),
    ]


def test_a_packet_that_comes_much_later_is_another_one() -> None:
    later = replace(SERVER, time=SERVER.time + LONGEST)
    assert joined(ROUTER, later) == [("router", 1, 1), ("server", 2, 1)]


def test_legs_that_come_later_go_on_counting() -> None:
    book = JourneyBook()
    book.join([CLIENT])
    other = leg("other", packet=replace(SYN, ip_id=9))
    (server, stranger) = book.join([SERVER, other])
    assert (server.journey, server.leg) == (1, 2)
    assert (stranger.journey, stranger.leg) == (2, 1)


def test_a_long_watch_forgets_what_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipttrace.journeys.REMEMBERED", 2)
    book = JourneyBook()
    for number in range(3):
        book.join([leg("router", leaves=63, packet=replace(SYN, ip_id=number))])
    (forgotten,) = book.join([leg("server", enters=63, packet=replace(SYN, ip_id=0))])
    (known,) = book.join([leg("server", enters=63, packet=replace(SYN, ip_id=2))])
    assert (forgotten.leg, known.leg) == (1, 2)


def test_no_leg_begins_after_a_later_one() -> None:
    """Times may be those of reading, and the namespaces are read one after the other."""
    late = [replace(path, time=2.0 - place / 100) for place, path in enumerate(ROW)]
    times = [path.time for path in JourneyBook(as_read=True).join(late)]
    assert times == [1.96] * 5


def test_a_flood_of_equal_packets_is_joined_in_good_time() -> None:
    """IPv6 has no id: equal datagrams have one fingerprint, and may be of any of their journeys."""
    flood = [
        leg(name, time=1000 + number / 2000) for number in range(4000) for name in ("near", "far")
    ]
    began = process_time()
    joined = JourneyBook(as_read=True).join(flood)
    assert process_time() - began < 2
    assert {leg.journey for leg in joined} == set(range(1, 4001))
    assert {leg.leg for leg in joined} == {1, 2}
