"""Cases and coverage of a check to lines of JSON."""

from __future__ import annotations

import msgspec

from ipttrace.checks import Case, Coverage
from ipttrace.render import check_record_types as types
from ipttrace.render.record_types import SCHEMA
from ipttrace.render.records import client_field, encoded


def check_record(case: Case) -> bytes:
    """Return the line of one case."""
    result = case.result
    return encoded(
        types.CheckRecord(
            schema=SCHEMA,
            record="check",
            file=case.file,
            target=case.target,
            backend=_backend(case.backend),
            name=case.name,
            state=msgspec.convert(case.state.value, types.CaseState),
            differences=tuple(
                types.DifferenceFields(each.field, each.expected, each.actual, each.path)
                for each in case.differences
            ),
            message=case.message or None,
            client=client_field(result.client) if result else None,
            lost_events=result.totals.lost_events if result else 0,
            warnings=result.warnings if result else (),
            seconds=round(case.seconds, 3),
        )
    )


def coverage_record(covered: Coverage) -> bytes:
    """Return the line of one namespace's rules."""
    return encoded(
        types.CoverageRecord(
            schema=SCHEMA,
            record="coverage",
            target=covered.target,
            backend=_backend(covered.backend),
            netns=covered.netns,
            rules=covered.rules,
            met=covered.rules - len(covered.unmet),
            unmet=tuple(
                types.UnmetFields(
                    rule.chain.backend,
                    rule.chain.table_family,
                    rule.chain.table,
                    rule.chain.chain,
                    rule.number or 0,
                    rule.handle,
                    rule.text,
                )
                for rule in covered.unmet
            ),
        )
    )


def _backend(word: str) -> types.RunBackend | None:
    return msgspec.convert(word, types.RunBackend) if word else None
