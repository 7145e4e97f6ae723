"""Prints what comes of checks: cases as they end, then one table; or JSON Lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ipttrace.checks import Case, Coverage, State
from ipttrace.cli import output
from ipttrace.render.check_records import check_record, coverage_record
from ipttrace.render.check_table import check_lines, coverage_lines
from ipttrace.render.records import path_record
from ipttrace.render.side_by_side import case_lines
from ipttrace.render.style import Style, paint
from ipttrace.render.text import result_lines
from ipttrace.result import TraceResult, shifted


class CheckPrinter:
    """Text for people, or JSON Lines for programs."""

    def __init__(self, *, json: bool, verbose: bool = False) -> None:
        self._json = json
        self._verbose = verbose
        self._ids = 0
        self._journeys = 0

    def case(self, case: Case) -> None:
        """Print a case that just ended; people see those that are not as expected."""
        if self._json:
            self._record(case)
            return
        if case.state is State.FAILED:
            self._text(case, case_lines(case, width=output.width(), color=output.color()))
        elif self._verbose and case.result is not None:
            seen = result_lines(case.result, width=output.width(), color=output.color())
            self._text(case, seen)
        if case.state is State.ERROR:
            output.note(f"{case.file}, {case.name}: {case.message}")

    def _text(self, case: Case, lines: Sequence[str]) -> None:
        from ipttrace.decode.text import clean_text

        backend = f" ({case.backend})" if case.backend else ""
        head = clean_text(f"-- {case.file}{backend}: {case.name}")
        output.lines([paint(head, Style.HEAD, output.color()), "", *lines, ""])

    def _record(self, case: Case) -> None:
        if case.result is not None:
            ids, journeys = self._ids, self._journeys
            paths = tuple(shifted(path, ids, journeys) for path in case.result.paths)
            self._ids = max((path.id for path in paths), default=ids)
            self._journeys = max((path.journey for path in paths), default=journeys)
            for path in paths:
                output.record(path_record(path))
            case = _renumbered(case, replace(case.result, paths=paths), ids)
        output.record(check_record(case))

    def table(self, cases: Sequence[Case], seconds: Mapping[str, float]) -> None:
        """Print one line a case, and how many of each file ended how, after how long."""
        if not self._json:
            head = paint("== in short", Style.HEAD, output.color())
            lines = check_lines(cases, seconds, width=output.width(), color=output.color())
            output.lines([head, "", *lines])

    def coverage(self, covered: Sequence[Coverage]) -> None:
        """Print the rules that no probe met."""
        if self._json:
            for each in covered:
                output.record(coverage_record(each))
            return
        head = paint("== rules that no probe met", Style.HEAD, output.color())
        lines = coverage_lines(covered, width=output.width(), color=output.color())
        output.lines(["", head, "", *lines])


def _renumbered(case: Case, result: TraceResult, ids: int) -> Case:
    moved = tuple(
        replace(each, path=each.path + ids if each.path is not None else None)
        for each in case.differences
    )
    return replace(case, result=result, differences=moved)
