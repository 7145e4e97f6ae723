"""A match ended the packet without a word, because it could not read or remember it (hotdrop)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ipttrace.criteria import criteria
from ipttrace.diagnose.case import Case
from ipttrace.diagnose.catalogue import Cause
from ipttrace.diagnose.unmatched import facts_at
from ipttrace.diagnose.walk import CALLS, name
from ipttrace.event import TraceKind
from ipttrace.matching import PacketFacts, judge
from ipttrace.netfilter import TABLE_PRIORITIES, Backend, Hook, Verdict
from ipttrace.path import ChainHop, Diagnosis, Evidence, Outcome, Strength
from ipttrace.ruleset import Chain, Rule

REFUSING = frozenset(
    {"tcp", "udp", "udplite", "icmp", "icmp6", "multiport", "sctp", "dccp", "esp", "ah", "ipcomp"}
    | {"hashlimit", "connlimit", "recent", "tcpmss", "frag", "hbh", "dst", "rt", "mh"}
    | {"ipv6header", "eui64", "osf"}
)
"""Modules whose match function sets `hotdrop` (net/netfilter/xt_*.c, ip6t_*.c)."""

FREED_AT = "nf_hook_slow"
"""Where a packet is freed that a legacy table refused."""


def match_hotdrop(case: Case) -> Diagnosis | None:
    """Return the cause where a match refused the packet (hotdrop of xt_action_param)."""
    if case.path.outcome is not Outcome.DROPPED:
        return None
    return _contradiction(case) or _silence(case)


def _contradiction(case: Case) -> Diagnosis | None:
    """Return the cause of a drop that nft reports of a rule which would not drop, or not count.

    The match's verdict is reported as its rule's, of which no more is evaluated (nft_match_eval in
    net/netfilter/nft_compat.c).
    """
    last = case.last
    if last is None or last.chain.backend is not Backend.NFT or last.verdict is not Verdict.DROP:
        return None
    uncounted = last.counter is not None and last.counter.packets == 0
    modules = _modules(last.rule or "")
    if not modules or not (uncounted or last.target in ("ACCEPT", "RETURN")):
        return None
    return Diagnosis(
        Cause.MATCH_HOTDROP,
        _summary(name(last), modules),
        (last.ref,),
        tuple(_of_contradiction(last, uncounted=uncounted)),
        remedy=(_remedy(case),),
    )


def _of_contradiction(last: ChainHop, *, uncounted: bool) -> Iterator[Evidence]:
    yield Evidence(f"the kernel reported a drop by {name(last)}", Strength.REPORTED)
    if last.target != "DROP":
        yield Evidence(f"but the rule's target is {last.target}", Strength.INFERRED)
    if uncounted:
        yield Evidence("but the rule's counter did not rise", Strength.MATCHED)


@dataclass(frozen=True, slots=True)
class _Silent:
    """A legacy chain that had to report and did not, from a rule's number on."""

    chain: Chain
    asked: int = 0
    """The number of its last rule that reported."""


def _silence(case: Case) -> Diagnosis | None:
    """Return the cause of a drop by a legacy table that said nothing of it.

    Where the kernel named the packet only: a death that is merely likely its own is not enough.
    """
    drop, last = case.drop, case.last
    if drop is None or (drop.reason, drop.location) != ("NETFILTER_DROP", FREED_AT):
        return None
    if drop.basis is not Strength.REPORTED and case.path.in_interface is not None:
        return None
    ended = last is not None and last.verdict in (Verdict.DROP, Verdict.REJECT, Verdict.QUEUE)
    if ended or not case.path.reports or case.risen("nf_conntrack.drop"):
        return None
    found = [(silent, rules) for silent in _silent(case) if (rules := _doubtful(case, silent))]
    if len(found) != 1:
        return None
    (silent, rules), place = found[0], found[0][0].chain.ref
    evidence = (
        Evidence(f"{name(last)} is the kernel's last report of it", Strength.REPORTED)
        if last
        else Evidence("no chain reported anything of note", Strength.REPORTED),
        Evidence(f"{place} had to report next, and did not", Strength.INFERRED),
        Evidence(f"the kernel freed it: {drop.reason} in {drop.location}", drop.basis),
    )
    modules = [module for rule in rules for module in _modules(rule.text)]
    refs = tuple(rule.ref for rule in rules)
    summary = _summary(str(silent.chain.ref), modules)
    return Diagnosis(Cause.MATCH_HOTDROP, summary, refs, evidence, remedy=(_remedy(case),))


def _summary(place: str, modules: Sequence[str]) -> str:
    which = " or ".join(f"-m {module}" for module in dict.fromkeys(modules))
    return (
        f"dropped in {place} by a match, not by a target: {which} could not read or remember the "
        "packet"
    )


def _remedy(case: Case) -> str:
    where = f" in namespace {case.path.netns}" if case.path.netns else ""
    return (
        f"look at the packet itself{where} (cut off, a bad offset?), and at what the kernel logged "
        "about the match: dmesg | grep xt_"
    )


def _modules(text: str) -> list[str]:
    try:
        wanted = criteria(text)
    except ValueError:
        return []
    return [each.value for each in wanted if each.option == "-m" and each.value in REFUSING]


def _doubtful(case: Case, silent: _Silent) -> list[Rule]:
    """Return the rules of which it is not known that they did not match, and that may refuse."""
    last = case.last
    facts = (
        facts_at(case.path, last, case.scene)
        if last
        else PacketFacts(case.path.packet, case.path.in_interface)
    )
    facts = replace(facts, unknown=facts.unknown | {"-o"})
    return [
        rule
        for rule in silent.chain.user_rules
        if (rule.number or 0) > silent.asked
        and _modules(rule.text)
        and judge(rule.text, facts).matches is not False
    ]


def _silent(case: Case) -> list[_Silent]:
    """Return the legacy chain that had to report after the last hop.

    There are two where it is not known whether the packet was for this host.
    """
    last = case.last
    if last is None:
        begins = Hook.PREROUTING if case.path.in_interface else Hook.OUTPUT
        return _next(case, begins, TABLE_PRIORITIES["raw"])
    if last.hook is None:
        return []
    if last.chain.backend is Backend.LEGACY and _goes_on(last):
        ref = last.chain
        if last.verdict in CALLS and last.target:
            ref = replace(ref, chain=last.target)
        chain = case.ruleset.chains.get(ref)
        asked = last.number or 0 if ref == last.chain else 0
        return [_Silent(chain, asked)] if chain else []
    behind = last.priority if last.priority is not None else TABLE_PRIORITIES["raw"]
    return _next(case, last.hook, behind)


def _goes_on(last: ChainHop) -> bool:
    """Return whether the table of the last report was not through with the packet."""
    return last.event is TraceKind.RULE and last.verdict is not Verdict.ACCEPT


def _next(case: Case, hook: Hook, behind: int) -> list[_Silent]:
    here = _first(case, hook, behind)
    if here is not None:
        return [_Silent(here)]
    found = (_first(case, each, None) for each in _next_hooks(case, hook))
    return [_Silent(chain) for chain in found if chain is not None]


def _next_hooks(case: Case, hook: Hook) -> tuple[Hook, ...]:
    if hook is not Hook.PREROUTING:
        return () if hook in (Hook.INPUT, Hook.POSTROUTING) else (Hook.POSTROUTING,)
    if case.scene.local is None:
        return Hook.INPUT, Hook.FORWARD
    return (Hook.INPUT,) if case.scene.local else (Hook.FORWARD,)


def _first(case: Case, hook: Hook, behind: int | None) -> Chain | None:
    """Return the first legacy chain at a hook, behind a priority."""
    family = case.path.packet.family.table_family
    chains = [
        chain
        for ref, chain in case.ruleset.chains.items()
        if (ref.backend, ref.table_family, chain.hook) == (Backend.LEGACY, family, hook)
        and chain.priority is not None
        and (behind is None or chain.priority > behind)
    ]
    return min(chains, key=lambda chain: chain.priority or 0, default=None)
