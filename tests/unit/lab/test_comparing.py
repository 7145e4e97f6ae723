"""What differs from an expectation, as values; and both ways side by side, as steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ipttrace.checks import Agreement, Difference, Step
from ipttrace.diagnose.walk import name
from ipttrace.lab.comparing import compare, meetings, same_endpoint
from ipttrace.lab.expectation import Expectation, NatExpectation
from ipttrace.lab.hop_names import HopName
from ipttrace.lab.stepping import parting_ways, steps
from ipttrace.netfilter import Backend, RuleRef, TableFamily, Verdict
from ipttrace.path import ChainHop, Diagnosis, Outcome, PacketPath, WireHop
from ipttrace.result import TraceResult
from tests import builders as b

DROPPED = b.mark_drop_path()
REDIRECTED = b.redirect_path()
LOCAL = b.local_path()


def diagnosed(path: PacketPath, cause: str, *rules: RuleRef) -> PacketPath:
    return replace(path, diagnosis=Diagnosis(cause, "", rules))


def differing(expect: Expectation, *paths: PacketPath, client: tuple[str, ...] = ()) -> list[str]:
    return [str(each) for each in compare(expect, "server", b.result(*paths, client=client))]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (DROPPED, {"outcome": Outcome.DROPPED}),
        (diagnosed(DROPPED, "mark-drop"), {"cause": "mark-drop"}),
        (DROPPED, {"rule": "filter/INPUT 1"}),
        (DROPPED, {"rule": "legacy ip filter/INPUT 1"}),
        (DROPPED, {"crosses": ("mangle/PREROUTING 1", "nat/PREROUTING", "filter/INPUT 1")}),
        (DROPPED, {"crosses": ("mangle/PREROUTING", "mangle/PREROUTING 1", "mangle/INPUT policy")}),
        (DROPPED, {"crosses": ("mangle/PREROUTING 1", "mangle/PREROUTING", "filter/INPUT")}),
        (DROPPED, {"crosses_not": ("filter/FORWARD", "nat/PREROUTING 1", "filter/INPUT policy")}),
        (REDIRECTED, {"rule": "nat/PREROUTING 1"}),
        (REDIRECTED, {"rule": "filter/INPUT policy"}),
        (REDIRECTED, {"nat": NatExpectation(destination="198.51.100.1:8443")}),
        (REDIRECTED, {"nat": NatExpectation(destination="198.51.100.1", source="203.0.113.7")}),
        (LOCAL, {"crosses": ("nat/OUTPUT 1", "mangle/PREROUTING 1", "filter/INPUT 1")}),
    ],
)
def test_as_expected(path: PacketPath, fields: dict[str, Any]) -> None:
    assert differing(Expectation(**fields), path) == []


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        (DROPPED, {"outcome": Outcome.DELIVERED}, "outcome: expected delivered, got dropped"),
        (DROPPED, {"cause": "mark-drop"}, "cause: expected mark-drop, got none"),
        (
            diagnosed(DROPPED, "rule-drop"),
            {"cause": "mark-drop"},
            "cause: expected mark-drop, got rule-drop",
        ),
        (DROPPED, {"rule": "filter/INPUT 2"}, "rule: expected filter/INPUT 2, got filter/INPUT 1"),
        (
            DROPPED,
            {"rule": "mangle/PREROUTING policy"},
            "rule: expected mangle/PREROUTING policy, got filter/INPUT 1",
        ),
        (
            DROPPED,
            {"rule": "nft filter/INPUT 1"},
            "rule: expected nft filter/INPUT 1, got filter/INPUT 1",
        ),
        (
            REDIRECTED,
            {"nat": NatExpectation(destination="198.51.100.1:8445")},
            "nat.destination: expected 198.51.100.1:8445, got 198.51.100.1:8443",
        ),
        (
            DROPPED,
            {"crosses": ("mangle/PREROUTING 1", "nat/PREROUTING 1")},
            "crosses: expected nat/PREROUTING 1 after mangle/PREROUTING 1, which was not met",
        ),
        (
            DROPPED,
            {"crosses": ("filter/INPUT", "mangle/PREROUTING")},
            "crosses: expected mangle/PREROUTING after filter/INPUT, which was not met",
        ),
        (
            DROPPED,
            {"crosses_not": ("mangle/PREROUTING",)},
            "crosses-not: expected no mangle/PREROUTING, got mangle/PREROUTING 1",
        ),
    ],
)
def test_one_difference(path: PacketPath, fields: dict[str, Any], words: str) -> None:
    assert differing(Expectation(**fields), path) == [words]


def test_the_packet_that_never_came() -> None:
    missing = Difference("packet", "client", "none")
    assert compare(Expectation(outcome=Outcome.SENT), "client", b.result(DROPPED)) == (missing,)
    assert str(missing) == "no packet of the probe was seen in client"


def test_this_namespace_has_no_name() -> None:
    here = replace(DROPPED, netns=None)
    assert compare(Expectation(outcome=Outcome.DROPPED), None, b.result(here)) == ()
    [missing] = compare(Expectation(outcome=Outcome.DROPPED), None, b.result(DROPPED))
    assert str(missing) == "no packet of the probe was seen in this namespace"


def test_answers_and_others_are_not_compared() -> None:
    assert differing(Expectation(outcome=Outcome.DROPPED), DROPPED, b.reply_path()) == []


def test_each_client_counts_and_a_difference_is_told_once() -> None:
    expect = Expectation(client="TIMEOUT", outcome=Outcome.DELIVERED)
    words = differing(expect, DROPPED, replace(DROPPED, id=2), client=("TIMEOUT", "CONNECTED"))
    assert words == [
        "outcome: expected delivered, got dropped",
        "client: expected TIMEOUT, got CONNECTED",
    ]
    assert differing(Expectation(client="TIMEOUT"), DROPPED) == [
        "client: expected TIMEOUT, got nothing"
    ]


def test_a_killed_packet_is_decided_by_its_killer_alone() -> None:
    policy = b.path(
        b.rule_hop("filter", "INPUT", 1, "-j LOG"),
        b.policy_hop("filter", "INPUT", Verdict.DROP),
        outcome=Outcome.DROPPED,
    )
    assert differing(Expectation(rule="filter/INPUT policy"), policy) == []
    assert differing(Expectation(rule="filter/INPUT 1"), policy) == [
        "rule: expected filter/INPUT 1, got filter/INPUT policy"
    ]


def test_without_a_killer_the_diagnosis_names_the_rule() -> None:
    silent = b.path(b.policy_hop("raw", "PREROUTING"), outcome=Outcome.DROPPED)
    ref = RuleRef(b.chain_ref("raw", "PREROUTING"), 3)
    hot = diagnosed(silent, "match-hotdrop", ref)
    assert differing(Expectation(rule="raw/PREROUTING 3"), hot) == []
    assert differing(Expectation(rule="raw/PREROUTING 1"), hot) == [
        "rule: expected raw/PREROUTING 1, got raw/PREROUTING 3"
    ]


def test_a_rule_that_dropped_the_answer_decides_too() -> None:
    ref = RuleRef(b.chain_ref("filter", "OUTPUT"), 2)
    path = diagnosed(REDIRECTED, "asymmetric-reply", ref)
    assert differing(Expectation(rule="filter/OUTPUT 2"), path) == []
    assert shown(Expectation(rule="filter/OUTPUT 2"), path) == [
        "= filter/OUTPUT 2 decides | rule named as the cause"
    ]
    assert differing(Expectation(rule="filter/OUTPUT 1"), path) == [
        "rule: expected filter/OUTPUT 1, got filter/OUTPUT 2"
    ]


def test_a_packet_without_hops_was_decided_by_nothing() -> None:
    empty = b.path(outcome=Outcome.LOST)
    assert differing(Expectation(rule="filter/INPUT 1"), empty) == [
        "rule: expected filter/INPUT 1, got none"
    ]


def test_a_rule_in_a_user_chain_ends_its_table() -> None:
    path = b.path(
        b.rule_hop("filter", "INPUT", 2, "-j ALLOWED"),
        b.rule_hop("filter", "ALLOWED", 1, "-j ACCEPT"),
    )
    assert differing(Expectation(rule="filter/ALLOWED 1"), path) == []
    assert differing(Expectation(crosses=("filter/INPUT 2", "filter/ALLOWED")), path) == []


def test_source_after_masquerade() -> None:
    path = b.forward_path(WireHop(b.TIME, "sent", "eth1"))
    expect = Expectation(nat=NatExpectation(source="203.0.113.1:40000"))
    assert differing(expect, path) == []
    assert differing(Expectation(nat=NatExpectation(source="203.0.113.2")), path) == [
        "nat.source: expected 203.0.113.2, got 203.0.113.1:40000"
    ]


@pytest.mark.parametrize(
    ("wanted", "got", "same"),
    [
        ("[2001:db8::1]:80", "[2001:db8::1]:80", True),
        ("2001:db8::1", "[2001:db8::1]:80", True),
        ("2001:db8:0::1", "2001:db8::1", True),
        ("198.51.100.1:80", "198.51.100.1", False),
        ("198.51.100.1:80", "198.51.100.1:81", False),
    ],
)
def test_endpoints(wanted: str, got: str, same: bool) -> None:
    assert same_endpoint(wanted, got) is same


def test_a_rule_and_its_chain_are_met_at_one_hop_but_a_rule_not_twice() -> None:
    hops = DROPPED.chain_hops
    assert meetings(("filter/INPUT", "filter/INPUT 1"), hops) == [5, 5]
    assert meetings(("filter/INPUT 1", "filter/INPUT 1"), hops) == [5, None]
    assert meetings(("nat/OUTPUT", "filter/INPUT"), hops) == [None, 5]


# ---------------------------------------------------------------- side by side


def shown(expect: Expectation, path: PacketPath, client: tuple[str, ...] = ()) -> list[str]:
    return [line(step) for step in steps(expect, path, client) if step.agreement]


def line(step: Step) -> str:
    happened = name(step.hop) if isinstance(step.hop, ChainHop) else f"{step.topic} {step.actual}"
    return f"{step.agreement} {step.expected} | {happened}"


def test_every_hop_is_there_and_the_met_ones_are_marked() -> None:
    expect = Expectation(crosses=("mangle/PREROUTING 1",), rule="filter/INPUT 1")
    assert shown(expect, DROPPED) == [
        "= mangle/PREROUTING 1 | mangle/PREROUTING 1",
        "= filter/INPUT 1 decides | filter/INPUT 1",
    ]
    hops = [step.hop for step in steps(expect, DROPPED) if step.hop is not None]
    assert hops == list(DROPPED.hops)


def test_a_missing_rule_stands_beside_its_own_chain() -> None:
    expect = Expectation(crosses=("nat/PREROUTING 1", "filter/INPUT"), outcome=Outcome.DELIVERED)
    assert shown(expect, DROPPED) == [
        "! nat/PREROUTING 1 | nat/PREROUTING policy",
        "= filter/INPUT | filter/INPUT 1",
        "! delivered | outcome dropped",
    ]


def test_a_missing_chain_stands_alone_where_it_was_due() -> None:
    expect = Expectation(crosses=("nat/PREROUTING", "filter/FORWARD", "filter/INPUT"))
    assert shown(expect, DROPPED) == [
        "= nat/PREROUTING | nat/PREROUTING policy",
        "! filter/FORWARD | - not met",
        "= filter/INPUT | filter/INPUT 1",
    ]
    last = Expectation(crosses=("filter/INPUT", "nat/INPUT"))
    assert shown(last, DROPPED)[-1] == "! nat/INPUT | - not met"


def test_what_must_not_be_crossed_is_marked_at_every_hop() -> None:
    expect = Expectation(crosses_not=("mangle/PREROUTING",))
    assert shown(expect, DROPPED) == [
        "! no mangle/PREROUTING | mangle/PREROUTING 1",
        "! no mangle/PREROUTING | mangle/PREROUTING policy",
    ]


def test_another_decision_stands_beside_the_expected_chain() -> None:
    assert shown(Expectation(rule="filter/INPUT 2"), DROPPED) == [
        "! filter/INPUT 2 decides | filter/INPUT 1"
    ]
    assert shown(Expectation(rule="filter/FORWARD 1"), DROPPED) == [
        "! filter/FORWARD 1 decides | filter/INPUT 1"
    ]
    assert shown(Expectation(rule="filter/INPUT 1"), b.path(outcome=Outcome.LOST)) == [
        "! filter/INPUT 1 decides | - "
    ]


def test_the_ending_has_what_was_expected_of_it() -> None:
    expect = Expectation(
        cause="mark-drop", client="TIMEOUT", nat=NatExpectation(destination="198.51.100.1:8443")
    )
    assert shown(expect, diagnosed(LOCAL, "mark-drop"), ("CONNECTED",)) == [
        "= mark-drop | cause mark-drop",
        "= 198.51.100.1:8443 | destination 198.51.100.1:8443",
        "! TIMEOUT | client CONNECTED",
    ]


def test_only_packets_that_differ_are_shown() -> None:
    result: TraceResult = b.result(DROPPED, replace(REDIRECTED, id=2))
    expect = Expectation(outcome=Outcome.DROPPED)
    [way] = parting_ways(expect, "server", result)
    assert [step.hop for step in way if step.hop] == list(REDIRECTED.hops)
    assert way[-1].agreement is Agreement.PARTS


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("filter/INPUT", HopName("filter", "INPUT")),
        ("filter/INPUT 12", HopName("filter", "INPUT", 12)),
        ("filter/INPUT policy", HopName("filter", "INPUT", policy=True)),
        ("inet my/in", HopName("my", "in", family=TableFamily.INET)),
        (
            "nft ip filter/INPUT 1",
            HopName("filter", "INPUT", 1, backend=Backend.NFT, family=TableFamily.IP),
        ),
    ],
)
def test_names(text: str, parsed: HopName) -> None:
    assert HopName.parse(text) == parsed


@pytest.mark.parametrize(
    "text",
    ["", "filter", "filter/", "/INPUT", "filter/INPUT 0", "filter/INPUT -1", "filter/INPUT 1 2",
     "filter/INPUT ²", "inet", "ipx filter/INPUT", "filter/INPUT drop"],
)  # fmt: skip
def test_no_names(text: str) -> None:
    with pytest.raises(ValueError, match=r"names no chain|neither the number"):
        HopName.parse(text)
