"""The selected rule among its neighbours, and rules that are no longer what the packet met."""

from __future__ import annotations

from ipttrace.netfilter import Backend, Basis, Hook, Verdict
from ipttrace.path import Decision, RouteHop
from ipttrace_tui.chain_view import ChainLine, ChainView, chain_view, changed_since
from ipttrace_tui.view_model import Tone
from tests.builders import (
    DROP_MARKED,
    MARK_RULE,
    TIME,
    article_rules,
    chain,
    local_path,
    mark_drop_path,
    path,
    policy_hop,
    rule_hop,
    ruleset,
)

LONG = ruleset(
    chain("mangle", "PREROUTING", [MARK_RULE]),
    chain("filter", "INPUT", ["-p udp -j ACCEPT", DROP_MARKED, "-j ACCEPT"], policy=Verdict.DROP),
)
SECOND = path(rule_hop("filter", "INPUT", 2, DROP_MARKED))


def lines(view: ChainView) -> list[ChainLine]:
    return [view.line(index) for index in range(len(view))]


def test_a_rule_stands_among_its_neighbours() -> None:
    view = chain_view(SECOND, 0, LONG)
    assert (view.title, view.note, view.cursor) == ("chain filter INPUT", "rule 2 of 3", 1)
    assert [(line.number, line.text, line.here, line.verdict) for line in lines(view)] == [
        ("1", "-p udp -j ACCEPT", False, ""),
        ("2", "-m mark --mark 0x1 -j DROP", True, "DROP ✗"),
        ("3", "-j ACCEPT", False, ""),
        ("", "policy DROP", False, ""),
    ]


def test_the_policy_is_the_last_line() -> None:
    view = chain_view(mark_drop_path(), 2, article_rules())
    assert (view.note, view.cursor) == ("no rule of 1 decided", 1)
    first, last = lines(view)
    assert (first.met, first.tone) == (True, Tone.CHANGED)
    assert (last.here, last.verdict) == (True, "ACCEPT")


def test_a_chain_without_rules_says_so() -> None:
    view = chain_view(mark_drop_path(), 0, article_rules())
    assert (view.note, view.cursor, len(view)) == ("holds no rule", 0, 1)


def test_without_the_rules_only_those_are_shown_that_the_packet_met() -> None:
    view = chain_view(mark_drop_path(), 1, None)
    assert view.note == "its other rules are not known"
    assert [line.number for line in lines(view)] == ["1"]


def test_a_chain_that_has_other_rules_by_now_is_not_shown_as_the_one_that_was_met() -> None:
    other = ruleset(chain("filter", "INPUT", ["-p udp -j ACCEPT", "-p icmp -j ACCEPT"]))
    view = chain_view(SECOND, 0, other)
    assert view.note == "its rules are others now"
    assert [(line.number, line.text) for line in lines(view)] == [
        ("2", "-m mark --mark 0x1 -j DROP"),
    ]


def test_another_hop_is_said_in_words() -> None:
    hop = RouteHop(TIME, Decision.LOCAL, Basis.INFERRED, table="local")
    view = chain_view(path(hop), 0, LONG)
    assert (view.title, view.cursor) == ("route", 0)
    assert view.line(0).text == "local (table local)"


def test_no_hop_is_no_chain() -> None:
    assert len(chain_view(None, None, None)) == 0
    assert len(chain_view(path(), None, LONG)) == 0
    assert len(chain_view(path(), 3, LONG)) == 0


def test_nft_rules_are_known_by_their_handles() -> None:
    rules = ruleset(chain("filter", "INPUT", ["-j A", "-j B"], backend=Backend.NFT))
    hop = rule_hop("filter", "INPUT", 9, "-j B", hook=Hook.INPUT, backend=Backend.NFT, handle=12)
    assert chain_view(path(hop), 0, rules).cursor == 1


def test_rules_that_still_stand_are_not_stale() -> None:
    assert not changed_since(mark_drop_path(), article_rules())
    assert not changed_since(local_path(), article_rules())
    assert not changed_since(path(policy_hop("raw", "PREROUTING")), ruleset())


def test_another_rule_in_its_place_is_stale() -> None:
    other = ruleset(
        chain("mangle", "PREROUTING", [MARK_RULE]), chain("filter", "INPUT", ["-j ACCEPT"])
    )
    assert changed_since(mark_drop_path(), other)
    assert changed_since(mark_drop_path(), ruleset())
