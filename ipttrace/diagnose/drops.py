"""The causes of which a rule or a policy is the proof: the last hop killed the packet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import takewhile

from ipttrace.diagnose.backends import other_backend
from ipttrace.diagnose.case import Case
from ipttrace.diagnose.catalogue import Cause
from ipttrace.diagnose.client import reject_answer
from ipttrace.diagnose.death import Death, death_at, is_known, place, what_it_wants
from ipttrace.diagnose.exempt import deletion, remedies, spared
from ipttrace.diagnose.invalid import how_to_learn_more, why_invalid
from ipttrace.diagnose.killing import killed
from ipttrace.diagnose.remedy import is_native
from ipttrace.diagnose.stale import stale_conntrack
from ipttrace.diagnose.unmatched import accepting_behind
from ipttrace.diagnose.untracked import untracked_no_nat
from ipttrace.diagnose.walk import made_here, mark_before, name, packet_before
from ipttrace.event import TraceKind
from ipttrace.netfilter import Basis, Hook, RuleRef, Verdict
from ipttrace.path import ChainHop, Diagnosis, Evidence, PacketPath, Strength

MARK_MATCH = re.compile(r"-m (mark|connmark) (! )?--mark (\w+)(?:/(\w+))?")
NATIVE_MARK = re.compile(r"\b(?:meta )?(ct )?mark (!= )?(0x[0-9a-f]+|\d+)\b(?! *[|&^<])")
INVALID_MATCH = re.compile(r"(?<!! )--(?:ctstate|state) INVALID(?![,\w])|\bct state invalid\b(?!,)")
SETS_CONNMARK = re.compile(r"--set-x?mark|--save-mark|ct mark set")
NOT_KNOWN = "the text of that rule is not known: the rules changed since they were read"


def diagnose_death(case: Case, hop: ChainHop) -> Diagnosis:
    """Return the cause of a packet whose last hop dropped or rejected it.

    Precedence: output-blocked, mark-drop, conntrack-invalid, other-backend-drop, then the plain
    rule or policy; the causes that lost are in the evidence.
    """
    death = death_at(case, hop)
    plain = _plain(death)
    particular = (_mark_drop(death), _conntrack_invalid(death), other_backend(case, hop, plain))
    entries = (stale_conntrack(case), untracked_no_nat(case))
    found = [each for each in (*particular, *entries, plain) if each is not None]
    best = _output_blocked(death, found[0])
    found = [best, *found] if best else found
    evidence = (*_seen(death), *found[0].evidence, *killed(case, hop), *_also(found))
    return replace(found[0], evidence=evidence)


def _also(found: list[Diagnosis]) -> Iterator[Evidence]:
    for lost in found[1:]:
        yield Evidence(f"by itself this is a {lost.cause}", Strength.INFERRED)


def _seen(death: Death) -> Iterator[Evidence]:
    hop = death.hop
    if hop.basis is Basis.REPORTED:
        yield Evidence(f"the kernel reported that {name(hop)} ended it", Strength.REPORTED)
    else:
        yield Evidence(f"{name(hop)} is the kernel's last report of it", Strength.REPORTED)
        source = "policy" if hop.event is TraceKind.POLICY else "rule's text"
        yield Evidence(f"{hop.verdict} follows from the {source}", Strength.INFERRED)
    yield from rewrites(death.path, hop)


def rewrites(path: PacketPath, until: ChainHop | None = None) -> Iterator[Evidence]:
    """Yield what each earlier hop changed of the addresses and ports, up to `until`."""
    for hop in path.chain_hops:
        if hop is until:
            return
        changes = [each for each in hop.changes if each.field in ("src", "dst", "sport", "dport")]
        if changes:
            words = ", ".join(f"{each.field} {each.old} -> {each.new}" for each in changes)
            reported = hop.basis is Basis.REPORTED
            strength = Strength.REPORTED if reported else Strength.INFERRED
            yield Evidence(f"{name(hop)} changed {words}", strength)


def _plain(death: Death) -> Diagnosis:
    hop = death.hop
    if hop.event is not TraceKind.RULE:
        summary = f"{place(hop)}: no rule of the chain accepted it, and the policy is DROP"
        return Diagnosis(Cause.POLICY_DROP, summary, (hop.ref,), remedy=remedies(death))
    if hop.verdict is Verdict.REJECT:
        return _rule_reject(death)
    wanted = what_it_wants(hop) or "every packet that comes to it"
    said = f"the rule drops {wanted}{_sent(death)}" if is_known(hop) else NOT_KNOWN
    summary = f"{place(hop)}: {said}{_too_late(death)}"
    return Diagnosis(Cause.RULE_DROP, summary, _refs(death), remedy=remedies(death))


def _sent(death: Death) -> str:
    """Return who sent the packet to a rule without criteria, and for which of its own."""
    sender = death.sender()
    return f", and {name(sender)} sends there {what_it_wants(sender)}" if sender else ""


def _refs(death: Death, *others: ChainHop) -> tuple[RuleRef, ...]:
    sender = death.sender()
    hops = (death.hop, *others, *([sender] if sender else ()))
    return tuple(each.ref for each in dict.fromkeys(hops))


def _too_late(death: Death) -> str:
    case = death.case
    later = accepting_behind(case.path, death.hop, case.ruleset, case.scene)
    return f"; {later.ref} would accept it, but stands behind that rule" if later else ""


def _rule_reject(death: Death) -> Diagnosis:
    hop = death.hop
    wanted = what_it_wants(hop) or "all packets"
    answer = reject_answer(hop, death.path.packet.family)[0]
    said = f"the rule for {wanted} answers with {answer}{_sent(death)}"
    summary = f"{place(hop)}: {said if is_known(hop) else NOT_KNOWN}{_too_late(death)}"
    plain = Diagnosis(Cause.RULE_REJECT, summary, _refs(death), remedy=remedies(death))
    for matcher, setter, mark in _marks(death):
        text = f"{name(matcher)} matched {mark}, {_set_words(death, setter)}"
        return replace(
            plain,
            summary=f"{summary}; {text}",
            rules=_refs(death, matcher, setter),
            evidence=(Evidence(text, Strength.INFERRED),),
        )
    return plain


def _mark_drop(death: Death) -> Diagnosis | None:
    if death.hop.verdict is not Verdict.DROP:
        return None
    return next((_marked(death, *found) for found in _marks(death)), None)


def _marks(death: Death) -> Iterator[tuple[ChainHop, ChainHop, str]]:
    """Yield the rule that matched a mark, the rule that had set it, and the mark."""
    for hop in death.deciding():
        setter = _set_by(death.path, hop)
        if setter is not None:
            yield hop, *setter


def _set_by(path: PacketPath, hop: ChainHop) -> tuple[ChainHop, str] | None:
    """Return who set the mark that `hop` matches, and the mark as the rule writes it.

    The first mark must not have matched: else the earlier hop decided nothing.
    """
    match = _mark_match(hop)
    if match is None:
        return None
    connection, negated, value, mask = match
    if connection:
        setter = _last_before(path, hop, lambda each: bool(SETS_CONNMARK.search(each.rule or "")))
        return (setter, f"connmark {value:#x}") if setter and not negated else None
    setter = _last_before(path, hop, lambda each: any(c.field == "mark" for c in each.changes))
    now, first = mark_before(path, hop), path.mark
    matched, before = (((mark & mask) == value) != negated for mark in (now, first))
    return (setter, f"mark {now:#x}") if setter and matched and not before else None


def _mark_match(hop: ChainHop) -> tuple[bool, bool, int, int] | None:
    text = hop.rule or ""
    if found := MARK_MATCH.search(text):
        mask = int(found[4], 0) if found[4] else 0xFFFFFFFF
        return found[1] == "connmark", bool(found[2]), int(found[3], 0), mask
    if is_native(hop.chain, text) and (found := NATIVE_MARK.search(text)):
        return bool(found[1]), bool(found[2]), int(found[3], 0), 0xFFFFFFFF
    return None


def _last_before(
    path: PacketPath, hop: ChainHop, wanted: Callable[[ChainHop], bool]
) -> ChainHop | None:
    earlier = list(takewhile(lambda each: each is not hop, path.chain_hops))
    return next((each for each in reversed(earlier) if wanted(each)), None)


def _marked(death: Death, matcher: ChainHop, setter: ChainHop, mark: str) -> Diagnosis:
    hop = death.hop
    drops = "it drops" if matcher is hop else f"{name(matcher)} sends it there for"
    summary = f"{place(hop)}: {drops} {mark}, {_set_words(death, setter)}"
    refs = tuple(each.ref for each in dict.fromkeys((hop, matcher, setter)))
    return Diagnosis(Cause.MARK_DROP, summary, refs, remedy=_mark_remedies(death, setter))


def _set_words(death: Death, setter: ChainHop) -> str:
    verb = "restored from the connection" if "--restore-mark" in (setter.rule or "") else "set"
    return f"which {name(setter)} had {verb}{_again_on_lo(death, setter)}"


def _again_on_lo(death: Death, hop: ChainHop) -> str:
    if not (made_here(death.path) and hop.hook is Hook.PREROUTING):
        return ""
    port = packet_before(death.path, hop).dport
    return " when the packet came in again on lo" + (f", to port {port}" if port else "")


def _mark_remedies(death: Death, setter: ChainHop) -> tuple[str, ...]:
    return (*spared(death.case, setter), *deletion(death, "the rule that drops"))


def _conntrack_invalid(death: Death) -> Diagnosis | None:
    hop = next((h for h in death.deciding() if INVALID_MATCH.search(h.rule or "")), None)
    if hop is None:
        return None
    reasons = why_invalid(death.case)
    said = f": {reasons[0].text}" if reasons else ""
    flags = " ".join(death.path.packet.tcp_flags)
    packet = f"the packet INVALID (flags {flags})" if flags else "the packet INVALID"
    summary = f"{place(death.hop)}: conntrack calls {packet}{said}"
    refs = tuple(each.ref for each in dict.fromkeys((death.hop, hop)))
    matched = Evidence(f"{name(hop)} matched, so conntrack's state is INVALID", Strength.REPORTED)
    remedy = (*how_to_learn_more(death.case, reasons), *remedies(death))
    return Diagnosis(Cause.CONNTRACK_INVALID, summary, refs, (matched, *reasons), remedy=remedy)


def _output_blocked(death: Death, why: Diagnosis) -> Diagnosis | None:
    hop = death.hop
    if not made_here(death.path) or hop.hook not in (Hook.OUTPUT, Hook.POSTROUTING):
        return None
    reason = why.summary.removeprefix(f"{place(hop)}: ")
    summary = f"{place(hop)} on its way out of this host: {reason}"
    return replace(why, cause=Cause.OUTPUT_BLOCKED, summary=summary)
