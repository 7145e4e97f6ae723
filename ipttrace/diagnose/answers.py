"""Answers that connection tracking does not take for answers, though a rule asked for such."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ipttrace.criteria import Criterion, criteria
from ipttrace.diagnose.case import Case
from ipttrace.diagnose.remedy import delete_rule, is_native, put_into_zone
from ipttrace.diagnose.tracked import NOTRACK
from ipttrace.diagnose.unmatched import STATES, facts_at, passed_over
from ipttrace.diagnose.walk import name
from ipttrace.matching import judge_any
from ipttrace.netfilter import Hook
from ipttrace.nft_criteria import nft_criteria
from ipttrace.path import ChainHop, Evidence, PacketPath, Strength
from ipttrace.ruleset import Rule

ZONE = re.compile(r"-j CT .*--zone (?P<zone>\S+)|\bct zone set (?P<native>\S+)")


@dataclass(frozen=True, slots=True)
class Stranger:
    """An answer that a rule for answers did not match, and what is likely to be the reason."""

    rule: Rule
    """It accepts what is ESTABLISHED, and all else that it asks for holds."""
    why: Sequence[Evidence] = ()
    remedy: str | None = None


def stranger(case: Case, answer: PacketPath) -> Stranger | None:
    """Return what proves that conntrack does not know `answer`; None if nothing does."""
    rule = next(_asked_in_vain(case, answer), None)
    if rule is None:
        return None
    request = next((path for path in case.paths if path.id == answer.request), case.path)
    zones = [_hop_with(ZONE, path) for path in (request, answer)]
    untracked = [hop for path in (request, answer) if (hop := _hop_with(NOTRACK, path)) is not None]
    if untracked:
        return _untracked(rule, untracked)
    if (zones[0] is None) != (zones[1] is None):
        return _in_two_zones(rule, zones, answer)
    others = [each for each in _rules(case) if ZONE.search(each.text)]
    words = (f"the rules know conntrack zones: {each.ref}: {each.text}" for each in others)
    return Stranger(rule, tuple(Evidence(text, Strength.INFERRED) for text in words))


def words(found: Stranger) -> str:
    """Return what proves it, in words."""
    return f"conntrack does not take it for an answer: {found.rule.ref} did not match it"


def evidence(found: Stranger) -> Iterator[Evidence]:
    """Yield what proves it, and what is likely to be the reason."""
    text = f"{found.rule.ref} accepts answers, was asked, and did not match: {found.rule.text}"
    yield Evidence(text, Strength.INFERRED)
    yield from found.why


def look_words(found: Stranger, answer: PacketPath) -> str:
    """Return what helps, or how to see what conntrack knows of the connection."""
    if found.remedy is not None:
        return found.remedy
    look = ["conntrack", "-L", "-s", answer.packet.dst, "-d", answer.packet.src]
    return f"to see what conntrack knows of it: {shlex.join(look)}"


def _asked_in_vain(case: Case, answer: PacketPath) -> Iterator[Rule]:
    """Yield the rules that would have accepted the answer, had it been ESTABLISHED."""
    for rule, hop in passed_over(answer, case.ruleset):
        if (rule.target or "").upper() != "ACCEPT" or not _wants_answers(rule.text):
            continue
        facts = replace(facts_at(answer, hop), ct_state="ESTABLISHED")
        if judge_any(rule.text, facts).matches:
            yield rule


def _wants_answers(text: str) -> bool:
    return any(
        each.option in STATES and "ESTABLISHED" in each.value.split(",") and not each.negated
        for each in _read(text)
    )


def _read(text: str) -> Sequence[Criterion]:
    return criteria(text) if text.startswith("-A ") else nft_criteria(text)


def _hop_with(pattern: re.Pattern[str], path: PacketPath) -> ChainHop | None:
    return next((hop for hop in path.chain_hops if pattern.search(hop.rule or "")), None)


def _rules(case: Case) -> Iterator[Rule]:
    for chain in case.ruleset.chains.values():
        yield from chain.user_rules


def _untracked(rule: Rule, hops: Sequence[ChainHop]) -> Stranger:
    """Return the reason where a rule keeps request or answer out of conntrack, and the way in."""
    first = hops[0]
    text = f"{name(first)} keeps conntrack from tracking it: {first.rule}"
    remedy = None
    if len({hop.ref for hop in hops}) == 1:
        command = delete_rule(first.ref, is_native(first.chain, first.rule))
        remedy = f"to have it tracked, delete the rule that prevents it: {command}"
    return Stranger(rule, (Evidence(text, Strength.INFERRED),), remedy)


def _in_two_zones(rule: Rule, zones: Sequence[ChainHop | None], answer: PacketPath) -> Stranger:
    """Return the reason where only one of request and answer is put into a zone."""
    setter = next(hop for hop in zones if hop is not None)
    match = ZONE.search(setter.rule or "")
    zone = (match["zone"] or match["native"]) if match else ""
    which, other = ("request", "answer") if zones[0] else ("answer", "request")
    text = f"{name(setter)} puts the {which} into conntrack zone {zone}, and no rule the {other}"
    remedy = None
    if zones[0] and setter.hook is Hook.PREROUTING and answer.in_interface:
        native = is_native(setter.chain, setter.rule)
        command = put_into_zone(setter.chain, native, answer.in_interface, zone)
        remedy = f"to put answers into the same zone: {command}"
    return Stranger(rule, (Evidence(text, Strength.INFERRED),), remedy)
