"""What the tests in the emulated machine did: a ledger's lines become a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

RANK = ("passed", "skipped", "failed")
"""The worst phase of a test is its outcome."""


@dataclass(frozen=True, slots=True)
class Result:
    """One test that has ended, or one file that could not be collected."""

    test: str
    outcome: str
    seconds: float
    words: str
    """What pytest said of a failure."""

    @property
    def file(self) -> str:
        """The file of the test, from the checkout on."""
        return self.test.partition("::")[0]


def read_ledger(path: Path) -> list[Result]:
    """Return the tests that have ended, in order; a last line that is cut off is not read."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return list(_results(json.loads(line) for line in lines))


def _results(records: Iterable[dict[str, str | float]]) -> Iterator[Result]:
    phases: dict[str, list[dict[str, str | float]]] = {}
    for record in records:
        test = str(record["test"])
        phases.setdefault(test, []).append(record)
        if record["phase"] in ("teardown", "collect"):
            yield _result(test, phases.pop(test))


def _result(test: str, phases: list[dict[str, str | float]]) -> Result:
    return Result(
        test,
        max((str(each["outcome"]) for each in phases), key=RANK.index),
        sum(float(each["seconds"]) for each in phases),
        "\n".join(str(each["words"]) for each in phases if each["words"]),
    )


def table(results: Iterable[Result]) -> list[str]:
    """Return a line a file, and one of all: tests of each outcome, and seconds."""
    by_file: dict[str, list[Result]] = {}
    for result in results:
        by_file.setdefault(result.file, []).append(result)
    width = max([len(file) for file in by_file] + [len("all")])
    head = f"{'':{width}}  passed  failed  skipped  seconds"
    rows = [_row(file.ljust(width), by_file[file]) for file in sorted(by_file)]
    return [
        head,
        *rows,
        _row("all".ljust(width), [each for some in by_file.values() for each in some]),
    ]


def _row(name: str, results: list[Result]) -> str:
    counts = {each: sum(result.outcome == each for result in results) for each in RANK}
    seconds = sum(result.seconds for result in results)
    return (
        f"{name}  {counts['passed']:6}  {counts['failed']:6}  {counts['skipped']:7}  {seconds:7.0f}"
    )


def report(results: list[Result], left_out: Mapping[str, str]) -> list[str]:
    """Return the table, what failed, and what was left out and why."""
    failed = [result.test for result in results if result.outcome == "failed"]
    lines = [*table(results), *(f"FAILED    {test}" for test in failed)]
    for why in dict.fromkeys(left_out.values()):
        lines.append(f"left out  {why}:")
        lines += [f"          {test}" for test, reason in left_out.items() if reason == why]
    return lines


def loaded(before: str, after: str) -> list[str]:
    """Return the modules that lsmod names only after the tests."""
    old, new = ({line.split()[0] for line in text.splitlines() if line} for text in (before, after))
    return sorted(new - old)
