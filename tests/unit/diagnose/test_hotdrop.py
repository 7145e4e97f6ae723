from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.evidence import Scene, Trail
from ipttrace.netfilter import Backend, Verdict
from ipttrace.path import Hop, Outcome, PacketPath, Strength
from ipttrace.ruleset import Counter, Ruleset
from tests import builders as b
from tests.unit.diagnose.cases import filter_rule, freed, why

REFUSING = "-p tcp -m tcp --dport 8443 -j ACCEPT"
MANGLE = b.policy_hop("mangle", "INPUT")


def ended(*hops: Hop, outcome: Outcome = Outcome.DROPPED) -> PacketPath:
    return replace(b.path(*hops, outcome=outcome), reports=(0, 1))


def rules(*texts: str, chain: str = "INPUT", table: str = "filter") -> Ruleset:
    return b.ruleset(b.chain(table, chain, texts), b.chain("mangle", "INPUT"))


def dropped_silently(*hops: Hop, ruleset: Ruleset, **words: object) -> str:
    scene = Scene(freed(), **words)  # type: ignore[arg-type]
    return why(ended(*hops), ruleset, scene=scene).cause


def test_a_table_that_says_nothing_of_a_packet_that_the_kernel_freed() -> None:
    diagnosis = why(ended(MANGLE), rules("-j LOG", REFUSING), scene=Scene(freed()))
    assert diagnosis.cause == "match-hotdrop"
    assert [str(ref) for ref in diagnosis.rules] == ["filter/INPUT 2"]
    assert diagnosis.summary.startswith(
        "dropped in filter/INPUT by a match, not by a target: -m tcp"
    )


@pytest.mark.parametrize(
    "rule",
    [
        "-j ACCEPT",
        "-m mark --mark 1 -j ACCEPT",
        "-p udp -m udp --dport 8443 -j ACCEPT",
        "-i lo -p tcp -m tcp --dport 8443 -j ACCEPT",
    ],
)
def test_rules_that_cannot_have_refused_it_are_not_blamed(rule: str) -> None:
    assert dropped_silently(MANGLE, ruleset=rules(rule)) != "match-hotdrop"


@pytest.mark.parametrize(
    "trail",
    [None, Trail(), freed("nft_do_chain"), freed("ip_rcv_finish", "IP_RPFILTER"), freed(None)],
)
def test_no_table_is_blamed_for_a_death_elsewhere(trail: Trail | None) -> None:
    assert why(ended(MANGLE), rules(REFUSING), scene=Scene(trail)).cause != "match-hotdrop"


def test_conntracks_own_drops_are_not_a_matchs() -> None:
    counters = {"nf_conntrack.drop": 1}
    assert dropped_silently(MANGLE, ruleset=rules(REFUSING), counters=counters) != "match-hotdrop"


def test_the_table_spoke_but_was_not_through() -> None:
    log = filter_rule("-j LOG", number=1)
    assert dropped_silently(log, ruleset=rules("-j LOG", REFUSING)) == "match-hotdrop"


def test_a_rule_before_the_last_report_was_asked_already() -> None:
    log = filter_rule("-j LOG", number=2)
    assert dropped_silently(log, ruleset=rules(REFUSING, "-j LOG")) != "match-hotdrop"


def test_within_a_chain_that_was_called() -> None:
    jump = filter_rule("-j WEB")
    ruleset = rules("-j WEB", REFUSING) | b.ruleset(b.chain("filter", "WEB", [REFUSING]))
    diagnosis = why(ended(jump), ruleset, scene=Scene(freed()))
    assert diagnosis.cause == "match-hotdrop"
    assert [str(ref) for ref in diagnosis.rules] == ["filter/WEB 1"]


def test_no_chain_at_all_had_reported() -> None:
    ruleset = b.ruleset(b.chain("filter", "INPUT", [REFUSING]))
    assert dropped_silently(ruleset=ruleset) == "match-hotdrop"


@pytest.mark.parametrize(
    ("local", "place"), [(True, "filter/INPUT 1"), (False, "filter/FORWARD 1")]
)
def test_where_it_went_tells_which_table_was_silent(local: bool, place: str) -> None:
    ruleset = b.ruleset(
        b.chain("filter", "INPUT", [REFUSING]), b.chain("filter", "FORWARD", [REFUSING])
    )
    path = ended(b.policy_hop("mangle", "PREROUTING"))
    diagnosis = why(path, ruleset, scene=Scene(freed(), local=local))
    assert [str(ref) for ref in diagnosis.rules] == [place]
    assert why(path, ruleset, scene=Scene(freed())).cause != "match-hotdrop"


LIMIT = "-p tcp -m hashlimit --hashlimit-upto 9/sec --hashlimit-name h"
FREED = Scene(freed("nft_do_chain"))


@pytest.mark.parametrize(
    ("target", "counted", "cause"),
    [
        ("ACCEPT", 0, "match-hotdrop"),
        ("ACCEPT", 1, "match-hotdrop"),
        ("DROP", 0, "match-hotdrop"),
        ("DROP", 1, "rule-drop"),
    ],
)
def test_what_nft_reports_of_a_match_that_refuses(target: str, counted: int, cause: str) -> None:
    hop = filter_rule(
        f"{LIMIT} -j {target}",
        backend=Backend.NFT,
        verdict=Verdict.DROP,
        counter=Counter(counted, 60 * counted),
    )
    assert why(ended(hop), scene=FREED).cause == cause


def test_an_nft_rule_without_such_a_match_is_taken_at_its_word() -> None:
    hop = filter_rule("-s 10.0.0.0/8 -j DROP", backend=Backend.NFT, counter=Counter(0, 0))
    assert why(ended(hop), scene=FREED).cause == "rule-drop"


def test_a_death_that_is_only_likely_its_own_blames_no_match() -> None:
    (drop,) = freed().drops
    trail = Trail(drops=(replace(drop, basis=Strength.MATCHED),))
    assert why(ended(MANGLE), rules(REFUSING), scene=Scene(trail)).cause != "match-hotdrop"
