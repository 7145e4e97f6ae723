"""Which of the packets on their way a trace report is about: the theory is told in `correlate`."""

from __future__ import annotations

from ipttrace.event import TraceEvent
from ipttrace.jumpstack import next_place
from ipttrace.netfilter import (
    INET_HOOKS,
    LOOPBACK_INDEX,
    RECEIVING_HOOKS,
    SENDING_HOOKS,
    Backend,
    Hook,
    Stage,
    follows,
    leads_to,
    nat_priority,
)
from ipttrace.packet import complete
from ipttrace.report import Station, Step
from ipttrace.targets import ADDRESS_FIELDS, copies
from ipttrace.walk import FIRST_PRIORITY, Walk


def choose(
    event: TraceEvent, station: Station, walks: list[Walk], bound: Walk | None
) -> Walk | None:
    """Return which of `walks`, all of the report's fingerprint, reports; None if none can.

    `bound` is the packet that last had the report's trace id.
    """
    possible = [walk for walk in walks if can_take(walk, event, station)]
    if not possible or (len(possible) == 1 and not _copying(possible[0])):
        return possible[0] if possible else None
    expected = [walk for walk in possible if expects(walk, event, station)]
    if not expected and _copying(possible[0]) and may_begin(event, station):
        return None
    possible = expected or possible
    if len(possible) == 1:
        return possible[0]
    return bound if bound in possible else _first(possible, station)


def may_begin(event: TraceEvent, station: Station) -> bool:
    """Tell whether a packet can report here first: triggers stand where packets come in.

    nft reports come from the kernel alone, so they may begin anywhere (bridges, user triggers).
    """
    return event.backend is Backend.NFT or station.hook in (Hook.PREROUTING, Hook.OUTPUT)


def can_take(walk: Walk, event: TraceEvent, station: Station) -> bool:
    """Tell whether a packet can be the one that reported."""
    here, there = walk.hook, station.hook
    if walk.ended or here is None or there is None:
        return not walk.ended
    if walk.base_open and station.base == walk.base:
        if not _is_further(walk, event):
            return False
    elif station.base in walk.visited:
        return False
    elif station.bridged or walk.bridged:
        if not _goes_on_at(walk, here, (there, station.bridged), station.priority):
            return False
    elif there is here:
        if station.priority < walk.priority:
            return False
    elif not leads_to(here, there, event.in_index):
        return False
    return _same_addresses(walk, event, station, here, there)


def expects(walk: Walk, event: TraceEvent, station: Station) -> bool:
    """Tell whether a packet must be here next, or is nowhere in the midst of a chain.

    To be asked of a report that it can take; an inferred verdict may be wrong.
    """
    if not walk.inside:
        return True
    if station.base != walk.base:
        return False
    steps = (step for step in walk.hops[walk.base_from :] if isinstance(step, Step))
    place = next_place(steps) if event.backend is Backend.LEGACY else None
    return place is None or (event.chain == place[0] and (event.number or 0) > place[1])


def _copying(walk: Walk) -> bool:
    """Tell whether a copy of a packet may be on its way: TEE copies it within the rule.

    A legacy rule reports before that, an nft rule after.
    """
    last = walk.hops[-1] if walk.inside else None
    if not isinstance(last, Step):
        return False
    rule = last.station.rule
    return last.station.chain.backend is Backend.NFT or (
        rule is not None and copies(rule.target, rule.text)
    )


def _first(possible: list[Walk], station: Station) -> Walk:
    """Return which of equal packets reports first.

    The innermost of those that are on their way here; what comes over lo waits for its turn.
    """
    here = [walk for walk in possible if not _crosses_lo(walk, station)]
    among = here or sorted(possible, key=lambda walk: (walk.hook is Hook.OUTPUT, walk.last_time))
    if len({id(walk.root) for walk in among}) > 1:
        for walk in among:
            walk.ambiguous = True
        return among[0]
    return among[-1] if here else among[0]


def _crosses_lo(walk: Walk, station: Station) -> bool:
    """Tell whether a report at `station` would be its first after it was sent over lo."""
    return walk.hook in SENDING_HOOKS and station.hook in RECEIVING_HOOKS


def _goes_on_at(walk: Walk, here: Hook, there: Stage, priority: int) -> bool:
    """Tell whether a packet that met a bridge can be at a stage next, or there again."""
    stage = (here, walk.bridged)
    if stage == there:
        return priority >= walk.priority
    return follows(stage, there, None) and priority >= walk.reached.get(there, FIRST_PRIORITY)


def _is_further(walk: Walk, event: TraceEvent) -> bool:
    """Tell whether a report is further down the chain that reported last.

    A chain is entered again only from another chain, whose jump reports.  Of an nft base chain's
    reports only the first has headers (nft_trace_notify in nf_tables_trace.c).
    """
    if event.backend is Backend.NFT and event.packet is not None:
        return False
    return event.chain != walk.last_chain or (event.number or 0) > walk.last_number


def _same_addresses(
    walk: Walk, event: TraceEvent, station: Station, here: Hook, there: Hook
) -> bool:
    seen, known = event.packet, walk.packet
    if seen is known or seen is None:
        return True
    if seen.partial:
        seen = complete(seen, known)
    elif known.partial:
        known = complete(known, seen)
    if (
        seen.dport == known.dport
        and seen.sport == known.sport
        and seen.dst == known.dst
        and seen.src == known.src
    ):
        return True
    if ADDRESS_FIELDS & station.immediate:
        return True  # nft reports a rule after what it did
    return _crosses_nat(walk, event, station, here, there) or _may_have_changed(walk)


def _crosses_nat(walk: Walk, event: TraceEvent, station: Station, here: Hook, there: Hook) -> bool:
    """Tell whether conntrack rewrites addresses somewhere between here and the report."""
    now, then = (here, walk.bridged), (there, station.bridged)
    for hook in INET_HOOKS:
        at = nat_priority(hook)
        if at is None:
            continue
        nat = (hook, False)
        ahead = walk.priority <= at if nat == now else follows(now, nat, LOOPBACK_INDEX)
        if not ahead:
            continue
        if nat == then and at <= station.priority:
            return True
        if nat != then and follows(nat, then, event.in_index):
            return True
    return False


def _may_have_changed(walk: Walk) -> bool:
    return any(
        ADDRESS_FIELDS & step.station.changes
        for step in walk.hops[walk.headers_from :]
        if isinstance(step, Step)
    )
