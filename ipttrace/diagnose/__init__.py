"""Why a packet met its fate: small pure functions over its path, the rules and the scene.

Each family of causes is a module with its functions in `CAUSES`; the first that finds its proof
names the cause (CAUSES.md, Precedence).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ipttrace.diagnose import (
    chains,
    conntrack,
    departing,
    hotdrop,
    link,
    routing,
    silent,
    sockets,
)
from ipttrace.diagnose.case import Case
from ipttrace.diagnose.unmatched import unmatched
from ipttrace.path import Diagnosis, Outcome

__all__ = ["Case", "diagnose"]

ARRIVED = frozenset({Outcome.DELIVERED, Outcome.FORWARDED, Outcome.SENT})

CAUSES: tuple[Callable[[Case], Diagnosis | None], ...] = (
    *silent.CAUSES,
    hotdrop.match_hotdrop,
    chains.killed_by_chain,
    *conntrack.CAUSES,
    *departing.CAUSES,
    *routing.CAUSES,
    *link.CAUSES,
    chains.redirect_not_in_output,
    *sockets.CAUSES,
    link.kernel_drop,
)


def diagnose(case: Case) -> Diagnosis:
    """Return why the packet ended as it did; answers to other packets are left out."""
    answers = [reply for reply in case.replies if reply.request == case.path.id]
    case = replace(case, replies=answers)
    found = next((d for cause in CAUSES if (d := cause(case)) is not None), None)
    diagnosis = found or chains.otherwise(case)
    if case.path.outcome in ARRIVED:
        return diagnosis
    return replace(diagnosis, unmatched=unmatched(case.path, case.ruleset, case.scene))
