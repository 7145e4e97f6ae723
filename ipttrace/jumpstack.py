"""Where in a legacy table a packet can report next, by the jumps that it took so far."""

from __future__ import annotations

from collections.abc import Iterable

from ipttrace.netfilter import Verdict
from ipttrace.report import Step

NextPlace = tuple[str, int]
"""A chain, and the number in it (as the kernel counts) after which the next report stands."""


def next_place(steps: Iterable[Step]) -> NextPlace | None:
    """Return where the packet goes on that took `steps` in one table at one hook.

    None if it took none.  Every rule that matches reports, and so does the end of every chain, so
    the place is certain (ipt_do_table in net/ipv4/netfilter/ip_tables.c).
    """
    callers: list[NextPlace] = []
    place: NextPlace | None = None
    for step in steps:
        station, rule = step.station, step.station.rule
        place = here = station.chain.chain, rule.position if rule else 0
        if station.verdict is Verdict.JUMP:
            callers.append(here)
        if station.verdict in (Verdict.JUMP, Verdict.GOTO) and rule and rule.target:
            place = rule.target, 0
        elif station.verdict is Verdict.RETURN and here[0] != station.hook:
            place = callers.pop() if callers else (str(station.hook), 0)
    return place
