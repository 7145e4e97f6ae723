"""All cases of a check in one table, and the rules that no probe met."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ipttrace.checks import Case, Coverage, State
from ipttrace.decode.text import clean_text
from ipttrace.diagnose.remedy import is_native, program
from ipttrace.path import Role
from ipttrace.render.style import Style, paint
from ipttrace.render.table import GAP, Row, columns, pad, table_lines, wrap
from ipttrace.render.words import rule_words, table_name
from ipttrace.ruleset import Rule

STYLES = {
    State.PASSED: Style.GOOD,
    State.FAILED: Style.BAD,
    State.ERROR: Style.BAD,
    State.SKIPPED: Style.OPEN,
}
WORDS = {
    State.PASSED: "ok",
    State.FAILED: "FAILED",
    State.ERROR: "ERROR",
    State.SKIPPED: "skipped",
}


def check_lines(
    cases: Sequence[Case], seconds: Mapping[str, float], *, width: int | None, color: bool
) -> list[str]:
    """Return a line a case: what came of it, its file, backend, name, fate and seconds.

    What is not as expected follows below.  At the end files are counted, with their `seconds`.
    """
    cells = [_cells(case) for case in cases]
    widths = [max(map(columns, column)) for column in zip(*cells, strict=True)]
    lines: list[str] = []
    for case, row in zip(cases, cells, strict=True):
        words = [pad(cell, wide) for cell, wide in zip(row, widths, strict=True)]
        words[0] = paint(words[0], STYLES[case.state], color)
        lines.append(GAP.join(words).rstrip())
        for text in (*case.message.splitlines(), *map(str, case.differences)):
            lines += wrap(clean_text(text), width, GAP * 2)
    lines.append("")
    if len(seconds) > 1:
        of = {file: [case for case in cases if case.file == file] for file in seconds}
        lines += [f"{clean_text(file)}: {_counts(of[file], seconds[file])}" for file in seconds]
    total = _counts(cases, sum(seconds.values()))
    return [*lines, f"{_number(len(seconds), 'file')}, {_number(len(cases), 'case')}: {total}"]


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _cells(case: Case) -> tuple[str, ...]:
    seconds = f"{case.seconds:.2f} s" if case.seconds else ""
    words = (WORDS[case.state], case.file, case.backend, case.name, _fate(case))
    return (*map(clean_text, words), seconds.rjust(7))


def _fate(case: Case) -> str:
    if case.result is None:
        return ""
    probes = [path for path in case.result.paths if path.role is Role.PROBE]
    return ", ".join(dict.fromkeys(path.outcome for path in probes)) or "not seen"


def _counts(cases: Sequence[Case], seconds: float) -> str:
    count = {state: sum(case.state is state for case in cases) for state in State}
    parts = [f"{count[State.PASSED]} as expected", f"{count[State.FAILED]} not"]
    if count[State.ERROR]:
        parts.append(f"{count[State.ERROR]} could not be run")
    if count[State.SKIPPED]:
        parts.append(f"{count[State.SKIPPED]} skipped")
    return f"{', '.join(parts)}; {seconds:.1f} s"


def coverage_lines(covered: Sequence[Coverage], *, width: int | None, color: bool) -> Iterator[str]:
    """Yield for each namespace how many rules were met, and below it those that were not."""
    if not covered:
        yield "there are no rules"
    for each in covered:
        met = each.rules - len(each.unmet)
        where = [each.target, *([each.backend] if each.backend else [])]
        where.append(f"namespace {each.netns}" if each.netns else "this namespace")
        head = f"{', '.join(where)}: {met} of {each.rules} rules met"
        style = Style.OPEN if each.unmet else Style.GOOD
        yield paint(clean_text(head), style, color)
        rows = [_row(rule) for rule in each.unmet]
        yield from table_lines(rows, width=width, color=color)


def _row(rule: Rule) -> Row:
    ref = rule.chain
    number = f" {rule.number}" if rule.number is not None else ""
    lead = (program(ref, is_native(ref, rule.text)), table_name(ref))
    return Row((*lead, clean_text(ref.chain) + number), rule_words(rule.text, ref.chain))
