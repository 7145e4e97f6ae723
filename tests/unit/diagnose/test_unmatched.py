from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.netfilter import Backend, ChainRef, Hook, TableFamily, Verdict
from ipttrace.path import (
    Change,
    Outcome,
)
from tests import builders as b
from tests.unit.diagnose.cases import dropped, filter_rule, why


def near_misses(rules: list[str], *, table: str = "filter") -> list[tuple[int | None, str, str]]:
    path = b.path(
        b.rule_hop("nat", "PREROUTING", 1, "-j X", Change("dport", 8443, 80)),
        b.policy_hop(table, "INPUT", Verdict.DROP),
        outcome=Outcome.DROPPED,
    )
    found = why(path, b.ruleset(b.chain(table, "INPUT", rules))).unmatched
    return [(each.rule.number, each.criterion, each.actual) for each in found]


def test_a_rule_for_the_port_of_before_is_a_near_miss() -> None:
    assert near_misses(["-p tcp --dport 22 -j ACCEPT", "-p tcp --dport 8443 -j ACCEPT"]) == [
        (2, "--dport 8443", "80")
    ]


def test_a_rule_for_the_port_but_for_another_place_is_a_near_miss() -> None:
    rules = ["-s 10.0.0.0/8 -p tcp --dport 80 -j ACCEPT", "-i lo -p tcp --dport 80 -j ACCEPT"]
    assert near_misses(rules) == [(1, "-s 10.0.0.0/8", "203.0.113.7"), (2, "-i lo", "eth0")]


@pytest.mark.parametrize(
    "rule",
    [
        "-p udp --dport 80 -j ACCEPT",
        "-s 10.0.0.0/8 -p tcp --dport 8443 -j ACCEPT",
        "! -p tcp -j ACCEPT",
        "-m conntrack --ctstate ESTABLISHED -j ACCEPT",
        "-p tcp --dport 80 -m conntrack --ctstate ESTABLISHED -j ACCEPT",
    ],
)
def test_rules_that_nobody_would_expect_are_left_out(rule: str) -> None:
    assert near_misses([rule]) == []


def test_a_rule_for_a_state_that_an_untracked_packet_does_not_have() -> None:
    path = b.path(
        b.rule_hop("raw", "PREROUTING", 1, "-p tcp -j NOTRACK"),
        b.policy_hop("filter", "INPUT", Verdict.DROP),
        outcome=Outcome.DROPPED,
    )
    rules = ["-m conntrack --ctstate ESTABLISHED -j ACCEPT"]
    (found,) = why(path, b.ruleset(b.chain("filter", "INPUT", rules))).unmatched
    assert (found.criterion, found.actual) == ("--ctstate ESTABLISHED", "UNTRACKED")


def test_only_rules_before_the_deciding_one_were_asked() -> None:
    rules = ["-s 10.0.0.0/8 -p tcp --dport 8443 -j ACCEPT"] * 4
    path = b.path(filter_rule("-j DROP", number=3), outcome=Outcome.DROPPED)
    found = why(path, b.ruleset(b.chain("filter", "INPUT", rules))).unmatched
    assert [each.rule.number for each in found] == [1, 2]


def test_a_call_of_another_chain_asks_no_rule_twice() -> None:
    rules = ["-s 10.0.0.0/8 -p tcp --dport 8443 -j ACCEPT"] * 5
    path = b.path(
        filter_rule("-j WEB", number=2),
        filter_rule("-j RETURN", "WEB"),
        filter_rule("-j DROP", number=5),
        outcome=Outcome.DROPPED,
    )
    found = why(path, b.ruleset(b.chain("filter", "INPUT", rules))).unmatched
    assert [each.rule.number for each in found] == [1, 3, 4]


def test_a_chain_of_thousands_gives_a_few() -> None:
    rules = ["-s 10.0.0.0/8 -p tcp --dport 80 -j ACCEPT"] * 1000
    assert len(near_misses(rules)) == 10


def test_over_lo_the_interface_is_lo() -> None:
    rules = b.ruleset(b.chain("filter", "INPUT", ["-i eth0 -p tcp --dport 8443 -j ACCEPT"]))
    last = filter_rule("-j DROP", number=2)
    path = b.path(b.policy_hop("raw", "OUTPUT"), last, outcome=Outcome.DROPPED)
    assert [each.actual for each in why(path, rules).unmatched] == ["lo"]


def test_a_ruleset_that_lacks_the_chain_gives_none() -> None:
    ref = ChainRef(Backend.NFT, TableFamily.IP, "filter", "INPUT")
    hop = replace(filter_rule("-j DROP"), chain=ref, hook=Hook.INPUT)
    assert dropped(hop).unmatched == ()


def test_the_deciding_chain_is_not_crowded_out() -> None:
    many = ["-s 10.0.0.0/8 -p tcp --dport 8443 -j ACCEPT"] * 30
    ruleset = b.ruleset(b.chain("mangle", "INPUT", many), b.chain("filter", "INPUT", many[:2]))
    path = b.path(
        b.policy_hop("mangle", "INPUT"),
        b.policy_hop("filter", "INPUT", Verdict.DROP),
        outcome=Outcome.DROPPED,
    )
    found = why(path, ruleset).unmatched
    assert len(found) == 10
    assert [str(each.rule) for each in found[-2:]] == ["filter/INPUT 1", "filter/INPUT 2"]
