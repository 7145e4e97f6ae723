"""NOTRACK kept the nat rules from being asked: they are for tracked packets alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ipttrace.diagnose.case import Case
from ipttrace.diagnose.catalogue import Cause
from ipttrace.diagnose.death import place
from ipttrace.diagnose.exempt import is_for_this_host, removal
from ipttrace.diagnose.killing import freed
from ipttrace.diagnose.remedy import Limits, let_pass
from ipttrace.diagnose.stale import first_translating, nat_chains
from ipttrace.diagnose.tracked import NOTRACK
from ipttrace.diagnose.unmatched import facts_at
from ipttrace.diagnose.walk import name, packet_before
from ipttrace.netfilter import CONNTRACK_PRIORITY, FATAL_VERDICTS
from ipttrace.path import ChainHop, Diagnosis, Evidence, Outcome, Strength
from ipttrace.ruleset import Rule

ENDED = frozenset({Outcome.REFUSED, Outcome.REJECTED, Outcome.DROPPED})


def untracked_no_nat(case: Case) -> Diagnosis | None:
    """Return the cause where a packet was not sent on because no rule of nat saw it."""
    hop = next(_untracking(case), None)
    if hop is None or case.path.outcome not in ENDED:
        return None
    rule = _would_send_on(case, hop)
    if rule is None:
        return None
    last = case.last
    end = place(last) if last and last.verdict in FATAL_VERDICTS else case.path.outcome
    summary = (
        f"{end}: {name(hop)} keeps conntrack from tracking it, so {rule.ref}, "
        f"which would send it on ({rule.target}), was never asked"
    )
    evidence = (
        *freed(case),
        Evidence(f"{name(hop)} matched it: {hop.rule}", Strength.REPORTED),
        Evidence(f"{rule.ref} would match: {rule.text}", Strength.INFERRED),
        Evidence("nat is asked for packets that conntrack tracks alone", Strength.INFERRED),
    )
    limits = Limits(here=is_for_this_host(case, hop) is True)
    exempt = let_pass(hop, packet_before(case.path, hop), limits)
    remedy = (f"to have it tracked: {exempt}", *removal(hop))
    return Diagnosis(Cause.UNTRACKED_NO_NAT, summary, (hop.ref, rule.ref), evidence, remedy=remedy)


def _untracking(case: Case) -> Iterator[ChainHop]:
    """Yield the hops that took the packet out of tracking; behind conntrack it is too late."""
    for hop in case.path.chain_hops:
        early = hop.priority is not None and hop.priority < CONNTRACK_PRIORITY
        if early and NOTRACK.search(hop.rule or ""):
            yield hop


def _would_send_on(case: Case, hop: ChainHop) -> Rule | None:
    """Return the rule of nat at the hop's hook that a tracked packet would meet."""
    if hop.hook is None:
        return None
    facts = replace(facts_at(case.path, hop, case.scene), ct_state="NEW")
    asked = {each.chain for each in case.path.chain_hops}
    chains = (chain for chain in nat_chains(case, hop.hook) if chain.ref not in asked)
    found = (first_translating(chain, facts) for chain in chains)
    return next((rule for rule in found if rule is not None), None)
