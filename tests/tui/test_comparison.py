"""Where two ways part, and what is the same."""

from __future__ import annotations

from ipttrace.netfilter import Verdict
from ipttrace.path import Outcome
from ipttrace_tui.comparison import Comparison, Difference, compare, end_of
from tests.builders import (
    DROP_MARKED,
    local_path,
    mark_drop_path,
    path,
    policy_hop,
    redirect_path,
    rule_hop,
    tcp,
)


def shape(found: Comparison) -> list[tuple[int | None, int | None, bool]]:
    return [(pair.left_hop, pair.right_hop, pair.same) for pair in found.pairs]


def test_equal_ways_do_not_part() -> None:
    found = compare(mark_drop_path(number=1), mark_drop_path(number=2))
    assert found.parting is None
    assert found.differences == ()
    assert found.verdict == "their ways are the same, hop by hop"


def test_a_rule_that_only_one_met_is_where_they_part() -> None:
    found = compare(redirect_path(), mark_drop_path(number=2))
    assert shape(found) == [
        (0, 0, True),
        (None, 1, False),
        (1, 2, True),
        (2, 3, False),
        (3, 4, True),
        (4, 5, False),
        (5, None, False),
    ]
    assert found.parting == 1
    assert found.verdict == (
        "their ways part: only B meets rule 1 (CONTINUE mark 0→1) in mangle PREROUTING"
    )
    assert found.differences == (Difference("dport", "8445", "8443"),)


def test_two_verdicts_in_one_chain_are_put_side_by_side() -> None:
    left = path(rule_hop("filter", "INPUT", 1, "-j ACCEPT"))
    right = path(rule_hop("filter", "INPUT", 2, DROP_MARKED), outcome=Outcome.DROPPED)
    found = compare(left, right)
    assert shape(found) == [(0, 0, False)]
    assert found.verdict == (
        "their ways part in filter INPUT: A meets rule 1 (ACCEPT), B meets rule 2 (DROP)"
    )


def test_one_rule_with_two_effects_is_not_the_same() -> None:
    left = path(policy_hop("filter", "INPUT"))
    right = path(policy_hop("filter", "INPUT", Verdict.DROP), outcome=Outcome.DROPPED)
    found = compare(left, right)
    assert shape(found) == [(0, 0, False)]
    assert found.verdict == (
        "their ways part in filter INPUT: A meets the policy (ACCEPT), B meets the policy (DROP)"
    )


def test_ways_of_different_hooks_have_nothing_in_common() -> None:
    found = compare(redirect_path(), local_path(number=2))
    assert found.parting == 0
    assert "in raw OUTPUT" in found.verdict
    assert {each.name for each in found.differences} == {"src", "in"}


def test_packets_without_hops_are_compared_too() -> None:
    assert compare(path(), path(number=2)).verdict == "neither packet has a hop"
    one = compare(path(), path(policy_hop("raw", "PREROUTING"), number=2))
    assert one.verdict == "their ways part: only B meets the policy (ACCEPT) in raw PREROUTING"


def test_a_field_that_one_lacks_is_a_difference() -> None:
    left = path(packet=tcp(dport=1))
    assert compare(left, left).differences == ()
    other = path(packet=tcp(flags=("ACK",), dport=1))
    assert compare(left, other).differences == (Difference("flags", "SYN", "ACK"),)


def test_the_end_is_one_sentence() -> None:
    assert end_of(mark_drop_path()) == "✗ dropped at filter/INPUT 1"
