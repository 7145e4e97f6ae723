"""What proves a death on the way: the kernel's own reason, or else what tables and counters say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet

from ipttrace.diagnose.case import Case
from ipttrace.diagnose.client import client_got
from ipttrace.diagnose.drops import rewrites
from ipttrace.evidence import Route
from ipttrace.fates import death
from ipttrace.path import DropHop, Evidence, Outcome, PacketPath, Strength
from ipttrace.presumed import Sign, presumed


def told(case: Case) -> DropHop | None:
    """Return the death that the kernel told, if it was not we who stopped the packet."""
    return death(case.path, case.scene.trail) if case.path.outcome is Outcome.DROPPED else None


def proof(
    case: Case,
    sign: Sign,
    fits: Callable[[DropHop], bool],
    counters: AbstractSet[str] = frozenset(),
) -> tuple[Evidence, ...] | None:
    """Return the evidence that a packet died in this way; None if there is no proof.

    `fits` judges the kernel's own word; only without one do the tables speak.
    """
    drop = told(case)
    if drop is not None:
        if not fits(drop):
            return None
        return (*rewrites(case.path), freed(drop), *_risen(case, counters))
    if case.path.outcome is not Outcome.DROPPED and sign is not Sign.NEIGHBOUR_FAILED:
        return None
    if presumed(case.path, case.scene, case.replies) is not sign:
        return None
    return (*rewrites(case.path), *_risen(case, counters))


def freed(drop: DropHop) -> Evidence:
    """Return the kernel's own words for a packet's death."""
    where = f" in {drop.location}" if drop.location else ""
    return Evidence(f"the kernel freed it{where}: {drop.reason}", drop.basis)


def _risen(case: Case, counters: AbstractSet[str]) -> Iterator[Evidence]:
    for name in sorted(counters):
        if rise := case.risen(name):
            yield Evidence(f"{name} rose by {rise}", Strength.MATCHED)


def answer_sent(case: Case, kind: int) -> PacketPath | None:
    """Return the ICMP error with which this namespace answered."""
    errors = ((reply, reply.packet.icmp) for reply in case.replies if reply.in_interface is None)
    return next((each for each, icmp in errors if icmp is not None and icmp.type == kind), None)


def answer_words(case: Case, words: str, *kinds: int) -> Iterator[Evidence]:
    """Yield what became of the ICMP error that tells the sender."""
    reply = next((r for kind in kinds if (r := answer_sent(case, kind))), None)
    if reply is not None:
        lost = reply.outcome in (Outcome.DROPPED, Outcome.REJECTED)
        end = ", and was itself dropped on its way out" if lost else ""
        text = f"{words} went to {reply.packet.dst}: packet {reply.id}{end}"
        yield Evidence(text, Strength.REPORTED)
    elif case.risen("Icmp.OutRateLimitHost") or case.risen("Icmp.OutRateLimitGlobal"):
        text = f"{words} was held back by the kernel's rate limit, so the sender is not told"
        yield Evidence(text, Strength.MATCHED)


def call_refused(case: Case, errno: str | None) -> tuple[Evidence, ...] | None:
    """Return the evidence where the client's own call was refused, before it sent anything."""
    path = case.path
    if path.chain_hops or path.in_interface or path.out_interface or case.trail.queued:
        return None
    if path.outcome is not Outcome.DROPPED or case.client is None or case.client != errno:
        return None
    if case.drop is not None:
        return None
    text = f"{client_got(case.client)} before any chain saw a packet"
    return (Evidence(text, Strength.REPORTED),)


def not_judged(route: Route) -> Iterator[Evidence]:
    """Say which routing rules may have done it as well."""
    for each in route.unjudged:
        text = f"ip rule {each.priority} asks for {' and '.join(each.criteria)}: not judged"
        yield Evidence(text, Strength.INFERRED)
