from __future__ import annotations

from typing import Any

import pytest

from ipttrace.diagnose.tracked import connmark_at, ct_state
from ipttrace.diagnose.unmatched import facts_at, since
from ipttrace.evidence import Connection, Scene
from ipttrace.packet import PacketSummary
from ipttrace.path import Change, Outcome
from tests import builders as b
from tests.unit.diagnose.cases import filter_rule, why

LAST = b.policy_hop("filter", "INPUT")
KNOWN = Scene(connections=())


def state(packet: PacketSummary, scene: Scene = KNOWN, *hops: Any) -> str | None:
    return ct_state(b.path(*hops, LAST, packet=packet), scene)


def with_entry(packet: PacketSummary, status: int, mark: int = 0) -> Scene:
    entry = Connection(packet.flow, packet.flow.reversed(), status, None, mark)
    return Scene(connections=(entry,), before=(entry,))


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (b.tcp(), "NEW"),
        (b.udp(), "NEW"),
        (b.icmp(), "NEW"),
        (b.icmp(b.CLIENT6, b.SERVER6, kind=128), "NEW"),
        (b.icmp(kind=3), None),
        (b.tcp(flags=("ACK",)), None),
        (b.tcp(flags=("SYN", "ACK")), None),
    ],
)
def test_the_state_of_a_packet_without_entry(packet: PacketSummary, expected: str | None) -> None:
    assert state(packet) == expected
    assert state(packet, Scene()) is None


@pytest.mark.parametrize(
    ("packet", "status", "expected"),
    [
        (b.udp(), 8, "NEW"),
        (b.udp(), 10, "ESTABLISHED"),
        (b.tcp(), 10, None),
    ],
)
def test_the_state_of_a_packet_with_an_entry(
    packet: PacketSummary, status: int, expected: str | None
) -> None:
    assert state(packet, with_entry(packet, status)) == expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("-m conntrack --ctstate INVALID -j LOG", "INVALID"),
        ("-m state --state RELATED -j ACCEPT", "RELATED"),
        ("-j CT --notrack", "UNTRACKED"),
        ("-m conntrack ! --ctstate INVALID -j LOG", None),
        ("-m conntrack --ctstate NEW,RELATED -j LOG", None),
    ],
)
def test_a_rule_that_matched_tells(rule: str, expected: str | None) -> None:
    hop = filter_rule(rule)
    assert state(b.tcp(flags=("ACK",)), Scene(), hop) == expected


def test_the_connections_mark() -> None:
    path = b.path(LAST, packet=b.udp())
    assert connmark_at(path, LAST, Scene()) is None
    assert connmark_at(path, LAST, KNOWN) == 0
    assert connmark_at(path, LAST, with_entry(b.udp(), 10, 5)) == 5
    setter = b.rule_hop("mangle", "PREROUTING", 1, "-j CONNMARK --set-xmark 0x1/0xffffffff")
    assert connmark_at(b.path(setter, LAST), LAST, KNOWN) is None


def test_a_rule_for_another_state_is_a_near_miss() -> None:
    rule = "-p tcp -m tcp --dport 8443 -m conntrack --ctstate ESTABLISHED -j ACCEPT"
    ruleset = b.ruleset(b.chain("filter", "INPUT", [rule, "-j DROP"]))
    path = b.path(filter_rule("-j DROP", number=2), outcome=Outcome.DROPPED)
    (near,) = why(path, ruleset, scene=KNOWN).unmatched
    assert (near.criterion, near.actual) == ("--ctstate ESTABLISHED", "NEW")
    assert why(path, ruleset).unmatched == ()


def test_the_hop_since_which_a_rule_does_not_match_is_found() -> None:
    rules = ["-p tcp -m tcp --dport 8445 -j ACCEPT", "-j DROP"]
    ruleset = b.ruleset(b.chain("filter", "INPUT", rules))
    rewrite = b.rule_hop("nat", "PREROUTING", 1, b.REDIRECT_RULE, Change("dport", 8445, 8443))
    path = b.path(
        rewrite,
        filter_rule("-j DROP", number=2),
        outcome=Outcome.DROPPED,
        packet=b.tcp(dport=8445),
    )
    (near,) = why(path, ruleset).unmatched
    assert since(path, near) == "nat/PREROUTING 1"
    assert since(b.path(filter_rule("-j DROP", number=2)), near) is None


def test_addresses_that_are_ours() -> None:
    forwarded = b.path(b.policy_hop("filter", "FORWARD"), outcome=Outcome.FORWARDED)
    assert facts_at(forwarded, forwarded.chain_hops[0]).local == {b.SERVER: False}
    local = b.path(LAST)
    scene = Scene(local=True, last=b.tcp())
    assert facts_at(local, LAST, scene).local == {b.SERVER: True}
    assert facts_at(local, LAST).local == {}
