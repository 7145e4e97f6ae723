"""What was expected of a packet beside what happened to it, in lines for a terminal or a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from ipttrace.checks import Agreement, Case, Step
from ipttrace.decode.text import clean_text
from ipttrace.path import PacketPath, Role
from ipttrace.render.style import Style, paint
from ipttrace.render.table import GAP, Row, columns, pad, table_lines, wrap
from ipttrace.render.text import answer_lines, head_lines, hop_rows, note_lines, why_lines

HEADS = ("expected", "what happened")


def case_lines(case: Case, *, width: int | None, color: bool) -> list[str]:
    """Return why a case is not as expected: the differences, then both ways side by side.

    Of a packet that nothing was expected of, or that never came, what was seen is shown.
    """
    lines: list[str] = []
    for each in case.differences:
        said = wrap(f"! {clean_text(str(each))}", width, "")
        lines += [paint(line, Style.BAD, color) for line in said]
    for text in case.message.splitlines():
        lines += wrap(clean_text(text), width, "")
    if case.result is None:
        return lines
    for steps in case.steps:
        path = _path_of(steps, case.result.paths)
        lines += ["", *(head_lines(path, width=width, color=color) if path else ())]
        lines += step_lines(steps, width=width, color=color)
        lines += why_lines(path, width=width, color=color) if path else []
    if not case.steps:
        lines += ["", *answer_lines(case.result, width=width, color=color)]
    return [*lines, *note_lines(case.result, width=width, color=color)]


def _path_of(steps: Sequence[Step], paths: Iterable[PacketPath]) -> PacketPath | None:
    """Return the path whose hops the steps are; they are the same objects."""
    hops = tuple(step.hop for step in steps if step.hop is not None)
    probes = [path for path in paths if path.role is Role.PROBE]
    return next((path for path in probes if path.hops == hops), None)


def step_lines(steps: Sequence[Step], *, width: int | None, color: bool) -> list[str]:
    """Return the steps as a table: a sign, what was expected, and what happened there.

    `=` is as expected, `!` is where the ways part; where there is no sign nothing was expected.
    """
    rows = _rows(steps)
    expected = max(columns(text) for text in (HEADS[0], *(row.lead[1] for row in rows)))
    head = f"{GAP} {GAP}{pad(HEADS[0], expected)}{GAP}{HEADS[1]}"
    padded = [
        replace(row, lead=(row.lead[0], pad(row.lead[1], expected), *row.lead[2:])) for row in rows
    ]
    parts = [row.lead[0] == Agreement.PARTS for row in rows]
    lines = list(_painted(table_lines(padded, width=width, color=color), parts, color))
    return [paint(head, Style.FAINT, color), *lines]


def _painted(lines: Sequence[str], parts: Sequence[bool], color: bool) -> Iterator[str]:
    """Yield the lines; those whose sign says that the ways part have it painted."""
    if not any(parts):
        yield from lines
        return
    sign = f"{GAP}{Agreement.PARTS}{GAP}"
    for line in lines:
        starts = line.startswith(sign)
        yield paint(sign, Style.BAD, color) + line[len(sign) :] if starts else line


def _rows(steps: Sequence[Step]) -> list[Row]:
    hops = [step.hop for step in steps if step.hop is not None]
    shown: Mapping[int, Row] = {id(hop): row for hop, row in hop_rows(hops)}
    rows = []
    for step in steps:
        lead = (step.agreement.value, clean_text(step.expected))
        if step.hop is None:
            style = Style.BAD if step.agreement is Agreement.PARTS else Style.PLAIN
            row = Row((*lead, clean_text(step.topic)), clean_text(step.actual), rule_style=style)
            rows.append(row)
        elif id(step.hop) in shown:
            row = shown[id(step.hop)]
            rows.append(replace(row, lead=(*lead, *row.lead)))
    return rows
