"""Finding a report's place in the rules, and what the counters of two moments say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.decode.iptables_save import decode_iptables_save
from ipttrace.event import TraceEvent, TraceKind
from ipttrace.netfilter import Backend, ChainRef, RuleRef, TableFamily, Verdict
from ipttrace.ruleset import Chain, Counter, Rule, Ruleset, counter_changes

SAVE = """*filter
:INPUT ACCEPT [5:300]
:U - [0:0]
[1:60] -A INPUT -m comment --comment "ipttrace:s1" -j TRACE
[1:60] -A INPUT -p tcp -j U
[2:80] -A INPUT -j DROP
COMMIT
"""

INPUT = ChainRef(Backend.LEGACY, TableFamily.IP, "filter", "INPUT")
NFT_CHAIN = ChainRef(Backend.NFT, TableFamily.INET, "t", "c")


def saved(text: str = SAVE) -> Ruleset:
    return decode_iptables_save(text, Backend.LEGACY, TableFamily.IP)


def legacy(kind: TraceKind, number: int, chain: str = "INPUT") -> TraceEvent:
    return TraceEvent(0.0, Backend.LEGACY, TableFamily.IP, "filter", chain, kind, number)


def nft(kind: TraceKind, handle: int | None) -> TraceEvent:
    return TraceEvent(
        0.0, Backend.NFT, TableFamily.INET, "t", "c", kind, handle=handle, verdict=Verdict.ACCEPT
    )


def found(ruleset: Ruleset, event: TraceEvent) -> tuple[TraceKind, int | None] | None:
    place = ruleset.locate(event)
    return None if place is None else (place.kind, place.rule.position if place.rule else None)


@pytest.mark.parametrize("kind", TraceKind)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_number_within_the_chain_is_that_rule_whatever_the_kind(
    kind: TraceKind, number: int
) -> None:
    assert found(saved(), legacy(kind, number)) == (TraceKind.RULE, number)


def test_our_own_rule_is_found_as_such() -> None:
    place = saved().locate(legacy(TraceKind.RULE, 1))
    assert place is not None
    assert place.rule is not None
    assert place.rule.own


@pytest.mark.parametrize("kind", [TraceKind.POLICY, TraceKind.RETURN])
def test_one_past_the_last_rule_is_the_end_of_the_chain(kind: TraceKind) -> None:
    assert found(saved(), legacy(kind, 4)) == (kind, None)


def test_an_empty_chain_ends_at_number_one() -> None:
    assert found(saved(), legacy(TraceKind.RETURN, 1, "U")) == (TraceKind.RETURN, None)


@pytest.mark.parametrize(
    "event",
    [
        legacy(TraceKind.RULE, 4),
        legacy(TraceKind.POLICY, 5),
        legacy(TraceKind.RULE, 0),
        legacy(TraceKind.RULE, 1, "V"),
        replace(legacy(TraceKind.RULE, 1), table="nat"),
        replace(legacy(TraceKind.RULE, 1), table_family=TableFamily.IP6),
    ],
)
def test_these_rules_cannot_have_said_it(event: TraceEvent) -> None:
    assert saved().locate(event) is None


def nft_rules() -> Ruleset:
    rules = tuple(Rule(NFT_CHAIN, at, at, "drop", "drop", handle=at * 10) for at in (1, 2))
    return Ruleset({NFT_CHAIN: Chain(NFT_CHAIN, rules)})


def test_nft_is_found_by_handle() -> None:
    assert found(nft_rules(), nft(TraceKind.RULE, 20)) == (TraceKind.RULE, 2)
    assert found(nft_rules(), nft(TraceKind.RETURN, 10)) == (TraceKind.RULE, 1)


def test_an_nft_report_without_handle_is_the_chain() -> None:
    assert found(nft_rules(), nft(TraceKind.POLICY, None)) == (TraceKind.POLICY, None)


def test_an_unknown_nft_handle_has_no_place() -> None:
    assert nft_rules().locate(nft(TraceKind.RULE, 30)) is None


def test_counters_that_rose() -> None:
    after = saved(SAVE.replace("[2:80]", "[4:200]").replace("[5:300]", "[6:360]"))
    assert counter_rises(saved(), after) == {
        (None, Counter(1, 60)),
        (1, Counter(0, 0)),
        (2, Counter(2, 120)),
    }


def counter_rises(before: Ruleset, after: Ruleset) -> set[tuple[int | None, Counter]]:
    changes = counter_changes(before, after)
    assert all(ref.chain == INPUT for ref in changes)
    return {(ref.number, change) for ref, change in changes.items()}


def test_our_rule_coming_or_going_moves_no_counter() -> None:
    without = SAVE.replace('[1:60] -A INPUT -m comment --comment "ipttrace:s1" -j TRACE\n', "")
    assert counter_rises(saved(without), saved()) == counter_rises(saved(), saved(without))
    assert (2, Counter(0, 0)) in counter_rises(saved(without), saved())


def test_a_counter_that_fell_is_left_out() -> None:
    after = saved(SAVE.replace("[2:80]", "[0:0]"))
    assert {number for number, _ in counter_rises(saved(), after)} == {None, 1}


def test_a_rule_that_is_another_one_now_is_left_out() -> None:
    after = saved(SAVE.replace("-j DROP", "-j ACCEPT"))
    assert {number for number, _ in counter_rises(saved(), after)} == {None, 1}


def test_a_chain_that_only_one_moment_has_is_left_out() -> None:
    assert counter_rises(Ruleset(), saved()) == set()
    assert counter_rises(saved(), Ruleset()) == set()


def test_rule_references_print_number_before_handle() -> None:
    assert str(RuleRef(INPUT, 3, 9)) == "filter/INPUT 3"
    assert str(RuleRef(INPUT, None, 9)) == "filter/INPUT handle 9"


def test_backends_and_rules_of_a_union() -> None:
    both = saved() | nft_rules()
    assert both.backends() == frozenset(Backend)
    assert len(list(both.rules())) == 5


def test_our_own_table_makes_no_backend() -> None:
    own = ChainRef(Backend.NFT, TableFamily.INET, "ipttrace-s1", "prerouting")
    assert Ruleset({own: Chain(own)}).backends() == frozenset()
