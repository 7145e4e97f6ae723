"""Which routing rule, or which entry of the table that it leads to, refused a packet.

A lookup that is refused answers with an errno alone: what may have done it is found among all.
"""

from __future__ import annotations

from collections.abc import Iterator

from ipttrace.decode.routing_rule import FRA_L3MDEV, UNJUDGED, Asked, RuleMessage
from ipttrace.decode.rtnetlink import RouteMessage
from ipttrace.evidence import Route, Unjudged

Refusal = tuple[RuleMessage, RouteMessage | None]
"""A routing rule, with the entry of the table that it leads to; None: it refuses by itself."""


L3MDEV = UNJUDGED[FRA_L3MDEV]
"""Leads to the table of the VRF that the packet is in."""


def refusals(
    asked: Asked, action: str | None, rules: list[RuleMessage], entries: list[RouteMessage]
) -> Iterator[Refusal]:
    """Yield what may have refused the packet, in the order in which it is asked."""
    for rule in (each for each in rules if each.judge(asked)[0]):
        if rule.action is not None and rule.action == action:
            yield rule, None
        for entry in sorted(entries, key=lambda each: -each.bits):
            if rule.table is not None and entry.table == rule.table:
                yield rule, entry


def unjudged_before(
    asked: Asked,
    action: str | None,
    rules: list[RuleMessage],
    entries: list[RouteMessage],
    first: Refusal | None,
) -> Iterator[Unjudged]:
    """Yield the rules that may have refused the packet before the one that surely does."""
    tables = {entry.table for entry in entries}
    for rule in rules:
        if first is not None and rule is first[0]:
            return
        refuses = rule.action == action if rule.table is None else rule.table in tables
        _, criteria = rule.judge(asked)
        if criteria and (refuses or L3MDEV in criteria):
            yield Unjudged(rule.priority, criteria)


def most_likely(
    asked: Asked,
    kind: str | None,
    word: str,
    rules: list[RuleMessage],
    entries: list[RouteMessage],
) -> Route:
    """Return what may have refused a packet that no rule is surely for."""
    open_ones = [rule for rule in rules if rule.judge(asked)[1]]
    anywhere = any(L3MDEV in rule.unjudged for rule in open_ones)
    tables = {rule.table for rule in open_ones}
    reached = [entry for entry in entries if anywhere or entry.table in tables]
    if reached:
        best = max(reached, key=lambda each: (each.table == "main", each.bits))
        return Route(best.kind, table=best.table, error=word, prefix=best.prefix)
    rule = next((each for each in open_ones if each.action == kind), None)
    if kind is not None and rule is not None:
        return Route(kind, error=word, rule=rule.priority)
    return Route("none", error=word)
