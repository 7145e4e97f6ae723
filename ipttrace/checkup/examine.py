"""All findings of a check-up, in the order in which they are shown."""

from __future__ import annotations

from ipttrace.checkup.facts import Facts, Unknown
from ipttrace.checkup.finding import Adviser, Finding
from ipttrace.checkup.machine import machine_findings
from ipttrace.checkup.reports import report_findings
from ipttrace.checkup.settings import setting_findings
from ipttrace.checkup.tables import table_findings


def examine(facts: Facts) -> tuple[Finding, ...]:
    """Return a finding for everything that was read, and for everything that could not be."""
    found = list(machine_findings(facts))
    inside = facts.interior
    if isinstance(inside, Unknown):
        where = f"namespace {facts.netns}" if facts.netns else "this namespace"
        found.append(Adviser(facts).unreadable("namespace", f"anything about {where}", inside))
        return tuple(found)
    for part in (table_findings, report_findings, setting_findings):
        found += part(facts, inside)
    return tuple(found)
