"""Copies that the kernel makes of one packet, and packets that it joins from several."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from ipttrace.copies import may_be_group
from ipttrace.correlate import Correlator
from ipttrace.event import TraceEvent, TraceKind
from ipttrace.netfilter import Backend, Hook, TableFamily
from ipttrace.packet import PacketSummary
from ipttrace.path import Outcome, PacketPath
from ipttrace.ruleset import Ruleset
from tests.builders import SERVER, chain, ruleset, udp

ETH0 = 2
HOOKS = (Hook.PREROUTING, Hook.INPUT, Hook.OUTPUT, Hook.POSTROUTING)
MULTICAST = udp(SERVER, "224.0.0.251", length=33, payload=b"hello")
WHOLE = udp(length=4028, payload=b"whole")
PARTS = (
    replace(WHOLE, length=1500, more_fragments=True),
    replace(WHOLE, length=1500, more_fragments=True, fragment_offset=1480, sport=None, dport=None),
    replace(WHOLE, length=1068, fragment_offset=2960, sport=None, dport=None),
)


def rules() -> Ruleset:
    return ruleset(*(chain("mangle", hook.value) for hook in HOOKS))


def report(hook: Hook, packet: PacketSummary) -> TraceEvent:
    """Return the report of a policy."""
    received = hook in (Hook.PREROUTING, Hook.INPUT)
    return TraceEvent(
        1.0,
        Backend.LEGACY,
        TableFamily.IP,
        "mangle",
        hook.value,
        TraceKind.POLICY,
        1,
        hook=hook,
        packet=packet,
        mark=0,
        in_index=ETH0 if received else None,
        out_index=None if received else ETH0,
    )


def paths(*events: TraceEvent) -> tuple[PacketPath, ...]:
    correlator = Correlator(rules(), ids=count(1), interfaces={1: "lo", ETH0: "eth0"})
    for event in events:
        correlator.feed(event)
    assert correlator.tally.orphans == 0
    return correlator.paths()


def ways(found: tuple[PacketPath, ...]) -> list[tuple[list[Hook | None], Outcome]]:
    return [([hop.hook for hop in path.chain_hops], path.outcome) for path in found]


@pytest.mark.parametrize(
    "order",
    [
        (Hook.OUTPUT, Hook.POSTROUTING, Hook.PREROUTING, Hook.INPUT, Hook.POSTROUTING),
        (Hook.OUTPUT, Hook.POSTROUTING, Hook.POSTROUTING, Hook.PREROUTING, Hook.INPUT),
    ],
    ids=["IPv4", "IPv6"],
)
def test_a_multicast_packet_goes_out_and_its_copy_comes_back(order: tuple[Hook, ...]) -> None:
    found = paths(*(report(hook, MULTICAST) for hook in order))
    assert ways(found) == [
        ([Hook.OUTPUT, Hook.POSTROUTING], Outcome.SENT),
        ([Hook.POSTROUTING, Hook.PREROUTING, Hook.INPUT], Outcome.DELIVERED),
    ]
    assert [path.in_interface for path in found] == [None, None]
    assert not any(path.ambiguous for path in found)


@pytest.mark.parametrize("fields", [{"ttl": 63}, {"payload": b"other"}, {"sport": 1}])
def test_what_is_not_as_it_was_sent_did_not_come_back(fields: dict[str, object]) -> None:
    other = replace(MULTICAST, **fields)  # type: ignore[arg-type]
    events = [report(hook, MULTICAST) for hook in (Hook.OUTPUT, Hook.POSTROUTING)]
    found = paths(*events, report(Hook.PREROUTING, other), report(Hook.INPUT, other))
    assert [path.in_interface for path in found] == [None, "eth0"]


def test_a_packet_for_one_host_does_not_come_back() -> None:
    packet = replace(MULTICAST, dst="203.0.113.7")
    order = (Hook.OUTPUT, Hook.POSTROUTING, Hook.PREROUTING, Hook.INPUT)
    found = paths(*(report(hook, packet) for hook in order))
    assert [path.in_interface for path in found] == [None, "eth0"]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("224.0.0.1", True),
        ("239.255.0.1", True),
        ("255.255.255.255", True),
        ("198.51.100.255", True),
        ("ff02::fb", True),
        ("240.0.0.1", False),
        ("223.1.1.1", False),
        ("2001:db8::ff", False),
        ("::/0", False),
    ],
)
def test_addresses_of_several_hosts(address: str, expected: bool) -> None:
    assert may_be_group(address) is expected


def test_the_first_fragment_goes_on_as_the_whole_packet() -> None:
    found = paths(*(report(Hook.PREROUTING, part) for part in PARTS), report(Hook.INPUT, WHOLE))
    assert ways(found) == [
        ([Hook.PREROUTING, Hook.INPUT], Outcome.DELIVERED),
        ([Hook.PREROUTING], Outcome.DELIVERED),
        ([Hook.PREROUTING], Outcome.DELIVERED),
    ]
    assert (found[0].packet, found[0].last_packet) == (PARTS[0], WHOLE)


def test_fragments_of_another_packet_stay_where_they_are() -> None:
    other = replace(PARTS[1], ip_id=7)
    events = [report(Hook.PREROUTING, part) for part in (*PARTS, other)]
    found = paths(*events, report(Hook.INPUT, WHOLE))
    assert [path.outcome for path in found] == [Outcome.DELIVERED] * 3 + [Outcome.LOST]


def test_fragments_are_given_out_with_the_fate_of_the_whole_and_forgotten() -> None:
    correlator = Correlator(rules(), ids=count(1))
    for event in (*(report(Hook.PREROUTING, part) for part in PARTS), report(Hook.INPUT, WHOLE)):
        correlator.feed(event)
    assert [path.outcome for path in correlator.take(9.0)] == [Outcome.DELIVERED] * 3
    correlator.feed(report(Hook.PREROUTING, WHOLE))
    assert len(correlator.paths()) == 1
