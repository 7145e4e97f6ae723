from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.evidence import Scene
from ipttrace.netfilter import Backend, Hook, TableFamily, Verdict
from ipttrace.path import Change, Hop, Outcome, Strength
from ipttrace.ruleset import Chain, Ruleset
from tests import builders as b
from tests.unit.diagnose.cases import BACKENDS, filter_rule, freed, texts, why

ACCEPT = "-p tcp -m tcp --dport 8443 -j ACCEPT"
DROP = "-p tcp -m tcp --dport 8443 -j DROP"
OTHER = {Backend.LEGACY: Backend.NFT, Backend.NFT: Backend.LEGACY}


def both(mine: Backend, *theirs: Chain) -> Ruleset:
    return b.ruleset(b.chain("filter", "INPUT", [DROP], backend=mine), *theirs)


def other_chain(mine: Backend, *rules: str, name: str = "INPUT", table: str = "filter") -> Chain:
    return b.chain(table, name, rules, backend=OTHER[mine])


@pytest.mark.parametrize("mine", BACKENDS)
def test_the_other_backend_would_have_accepted(mine: Backend) -> None:
    path = b.path(filter_rule(DROP, backend=mine), outcome=Outcome.DROPPED)
    location = "nf_hook_slow" if mine is Backend.LEGACY else "nft_do_chain"
    ruleset = both(mine, other_chain(mine, "-i lo -j ACCEPT", ACCEPT))
    diagnosis = why(path, ruleset, scene=Scene(freed(location)))
    assert diagnosis.cause == "other-backend-drop"
    assert [(ref.chain.backend, str(ref)) for ref in diagnosis.rules] == [
        (mine, "filter/INPUT 1"),
        (OTHER[mine], "filter/INPUT 2"),
    ]
    assert "by itself this is a rule-drop" in texts(diagnosis)
    said = next(e for e in diagnosis.evidence if "every chain of both backends" in e.text)
    assert said.strength is Strength.INFERRED
    assert any(text.startswith(f"{location} is where a drop of") for text in texts(diagnosis))


@pytest.mark.parametrize("mine", BACKENDS)
def test_the_other_backend_had_accepted(mine: Backend) -> None:
    hops = (filter_rule(ACCEPT, backend=OTHER[mine]), filter_rule(DROP, backend=mine))
    diagnosis = why(b.path(*hops, outcome=Outcome.DROPPED))
    assert diagnosis.cause == "other-backend-drop"
    assert "accepted it" in diagnosis.summary


def test_a_rejection_is_told_alike() -> None:
    hops = (
        filter_rule(ACCEPT, backend=Backend.NFT),
        filter_rule("-p tcp -j REJECT --reject-with tcp-reset"),
    )
    diagnosis = why(b.path(*hops, outcome=Outcome.REJECTED))
    assert diagnosis.cause == "other-backend-drop"
    assert diagnosis.summary.startswith("rejected at filter/INPUT 1 by iptables-legacy, though")
    assert "by itself this is a rule-reject" in texts(diagnosis)


@pytest.mark.parametrize(
    "rules",
    [
        (),
        ("-p tcp -m tcp --dport 22 -j ACCEPT",),
        ("-p tcp -j DROP", ACCEPT),
        ("-m limit --limit 1/sec -j DROP", ACCEPT),
        ("-p tcp -m limit --limit 1/sec -j ACCEPT",),
        ("-p tcp -j ELSEWHERE", ACCEPT),
        ("-p tcp -j RETURN", ACCEPT),
        ("-p tcp -j NFQUEUE", ACCEPT),
        ("-p tcp -j LOG",),
    ],
)
def test_what_the_other_backend_does_not_surely_accept(rules: tuple[str, ...]) -> None:
    path = b.path(filter_rule(DROP), outcome=Outcome.DROPPED)
    ruleset = both(Backend.LEGACY, other_chain(Backend.LEGACY, *rules))
    assert why(path, ruleset).cause == "rule-drop"


@pytest.mark.parametrize(
    ("called", "cause"),
    [
        ([ACCEPT], "other-backend-drop"),
        (["-p udp -j ACCEPT"], "other-backend-drop"),
        (["-p tcp -j DROP"], "rule-drop"),
        (["-p tcp -m limit --limit 1/sec -j DROP"], "rule-drop"),
    ],
)
def test_chains_that_it_calls_are_followed(called: list[str], cause: str) -> None:
    path = b.path(filter_rule(DROP), outcome=Outcome.DROPPED)
    ruleset = both(
        Backend.LEGACY,
        other_chain(Backend.LEGACY, "-p tcp -j WEB", ACCEPT),
        other_chain(Backend.LEGACY, *called, name="WEB"),
    )
    # A DROP in the called chain ends the walk; it must not be passed over.
    assert why(path, ruleset).cause == cause


@pytest.mark.parametrize(("table", "name"), [("mangle", "INPUT"), ("filter", "FORWARD")])
def test_another_table_or_hook_does_not_let_in(table: str, name: str) -> None:
    path = b.path(filter_rule(DROP), outcome=Outcome.DROPPED)
    chain = other_chain(Backend.LEGACY, ACCEPT, name=name, table=table)
    assert why(path, both(Backend.LEGACY, chain)).cause == "rule-drop"


def native(rule: str) -> Ruleset:
    made = b.chain("fw", "in", [rule], backend=Backend.NFT, family=TableFamily.INET)
    rules = tuple(replace(each, target="accept") for each in made.rules)
    chain = Chain(made.ref, rules, Hook.INPUT, 10, Verdict.ACCEPT)
    return both(Backend.LEGACY, chain)


@pytest.mark.parametrize(
    ("rule", "cause"),
    [
        ("tcp dport 8443 accept", "other-backend-drop"),
        ('iifname "eth0" tcp dport { 22, 8443 } accept', "other-backend-drop"),
        ("tcp dport 8443 limit rate 5/second accept", "rule-drop"),
        ("tcp dport @open accept", "rule-drop"),
        ("tcp dport 22 accept", "rule-drop"),
    ],
)
def test_native_rules_are_judged_where_they_are_plain(rule: str, cause: str) -> None:
    path = b.path(filter_rule(DROP), outcome=Outcome.DROPPED)
    assert why(path, native(rule)).cause == cause


def accepted_by_nft(*hops: Hop) -> str:
    accepted = filter_rule(ACCEPT, backend=Backend.NFT)
    return why(b.path(accepted, *hops, outcome=Outcome.DROPPED)).cause


def test_marks_and_conntrack_come_first() -> None:
    marker = b.rule_hop("mangle", "PREROUTING", 1, "-j MARK", Change("mark", 0, 1))
    assert accepted_by_nft(marker, filter_rule(b.DROP_MARKED)) == "mark-drop"
    invalid = filter_rule("-m conntrack --ctstate INVALID -j DROP")
    assert accepted_by_nft(invalid) == "conntrack-invalid"
    assert accepted_by_nft(b.policy_hop("filter", "INPUT", Verdict.DROP)) == "other-backend-drop"
