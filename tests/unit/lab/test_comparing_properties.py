"""Any way is as expected by what it was; and both ways side by side lose no hop."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ipttrace.checks import Agreement
from ipttrace.diagnose.walk import name
from ipttrace.lab.comparing import compare, decision_words, translated
from ipttrace.lab.expectation import Expectation
from ipttrace.lab.stepping import steps
from ipttrace.netfilter import TABLE_HOOKS, Verdict
from ipttrace.path import ChainHop, Outcome, PacketPath
from ipttrace.render.side_by_side import step_lines
from tests import builders as b

PLACES = [(table, hook.value) for table, hooks in TABLE_HOOKS.items() for hook in hooks]


@st.composite
def hops(draw: st.DrawFn) -> ChainHop:
    table, chain = draw(st.sampled_from(PLACES))
    if draw(st.booleans()):
        return b.policy_hop(table, chain, draw(st.sampled_from([Verdict.ACCEPT, Verdict.DROP])))
    return b.rule_hop(
        table, chain, draw(st.integers(1, 3)), draw(st.sampled_from(["-j ACCEPT", "-j DROP"]))
    )


@st.composite
def paths(draw: st.DrawFn) -> PacketPath:
    outcome = draw(st.sampled_from(list(Outcome)))
    return b.path(*draw(st.lists(hops(), max_size=8)), outcome=outcome)


@given(paths(), st.data())
def test_what_it_was_is_as_expected(path: PacketPath, data: st.DataObject) -> None:
    names = [name(hop) for hop in path.chain_hops]
    kept = data.draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names)))
    whole = data.draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names)))
    crosses = tuple(
        words.partition(" ")[0] if chain else words
        for words, keep, chain in zip(names, kept, whole, strict=True)
        if keep
    )
    fields: dict[str, Any] = {"crosses": crosses, "nat": translated(path)}
    if names:
        fields["rule"] = decision_words(path)
    expect = Expectation(outcome=path.outcome, **fields)
    assert compare(expect, "server", b.result(path)) == ()
    assert not any(step.agreement is Agreement.PARTS for step in steps(expect, path))


@given(paths(), paths())
def test_a_difference_is_seen_in_both_forms_and_no_hop_is_lost(
    wanted: PacketPath, path: PacketPath
) -> None:
    names = tuple(name(hop) for hop in wanted.chain_hops)
    decided = decision_words(wanted) if names else None
    expect = Expectation(
        outcome=wanted.outcome, crosses=names[:4], crosses_not=names[4:], rule=decided
    )
    found = compare(expect, "server", b.result(path))
    shown = list(steps(expect, path))
    assert [step.hop for step in shown if step.hop is not None] == list(path.hops)
    assert bool(found) == any(step.agreement is Agreement.PARTS for step in shown)
    lines = step_lines(shown, width=80, color=False)
    assert len(lines) > len(path.hops)
