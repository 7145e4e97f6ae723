"""`ipttrace check` without the kernel: exit status, records, and what it refuses before it runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from ipttrace.checks import Case, Coverage, Difference, State
from ipttrace.cli.check import exit_status
from ipttrace.cli.check_printing import CheckPrinter
from ipttrace.cli.main import main
from ipttrace.render.schema import json_schema
from ipttrace.result import TraceTotals
from tests import builders as b

RESULT = b.result(b.mark_drop_path(), b.reply_path(), client=("TIMEOUT",))
PASSED = Case("a.yaml", "lab", "legacy", "one", State.PASSED, 0.1, result=RESULT)
FAILED = replace(
    PASSED, state=State.FAILED, differences=(Difference("outcome", "sent", "dropped", 1),)
)
ERROR = replace(PASSED, state=State.ERROR, result=None, message="cannot", exit_code=3)
SKIPPED = replace(PASSED, state=State.SKIPPED, result=None, message="not here")
LOST = replace(PASSED, result=replace(RESULT, totals=TraceTotals(lost_events=2)))


@pytest.mark.parametrize(
    ("cases", "status"),
    [
        ([PASSED], 0),
        ([PASSED, SKIPPED], 0),
        ([PASSED, FAILED], 1),
        ([PASSED, ERROR], 3),
        ([ERROR, FAILED], 1),
        ([replace(ERROR, exit_code=2), ERROR], 2),
        ([PASSED, LOST], 4),
        ([LOST, FAILED], 1),
        ([SKIPPED], 2),
        ([], 2),
    ],
)
def test_exit_status(cases: list[Case], status: int) -> None:
    assert exit_status(cases) == status


def test_records_are_as_the_schema_says(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    printer = CheckPrinter(json=True)
    for case in (PASSED, FAILED, ERROR, SKIPPED, replace(PASSED, backend="")):
        printer.case(case)
    printer.table([PASSED], {})
    rules = tuple(b.article_rules().rules())
    printer.coverage(
        [Coverage("lab", "legacy", "server", 5, rules), Coverage("l", "", None, 0, ())]
    )
    lines = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    validator = jsonschema.Draft202012Validator(json_schema())
    for line in lines:
        validator.validate(line)
    kinds = [line["record"] for line in lines]
    assert (
        kinds
        == ["path", "path", "check"] * 2
        + ["check"] * 2
        + ["path", "path", "check"]
        + ["coverage"] * 2
    )
    paths = [line["id"] for line in lines if line["record"] == "path"]
    assert paths == [1, 2, 3, 4, 5, 6], "ids count on over the whole run"
    failed = lines[5]
    assert failed["state"] == "failed"
    assert failed["differences"] == [
        {"field": "outcome", "expected": "sent", "actual": "dropped", "path": 3}
    ]
    assert lines[4]["request"] == 3, "the answer answers the renumbered request"
    assert (lines[-2]["met"], len(lines[-2]["unmet"])) == (1, 4)
    assert lines[-2]["unmet"][0]["rule"].startswith("-A PREROUTING")


def test_people_see_failures_and_then_all(capsys: pytest.CaptureFixture[str]) -> None:
    printer = CheckPrinter(json=False)
    printer.case(PASSED)
    assert capsys.readouterr().out == ""
    printer.case(FAILED)
    printer.case(ERROR)
    shown = capsys.readouterr()
    assert "-- a.yaml (legacy): one" in shown.out
    assert "! outcome: expected sent, got dropped" in shown.out
    assert shown.err == "ipttrace: a.yaml, one: cannot\n"
    printer.table([PASSED, FAILED], {"a.yaml": 1.0})
    assert "1 file, 2 cases: 1 as expected, 1 not" in capsys.readouterr().out
    CheckPrinter(json=False, verbose=True).case(PASSED)
    assert "dropped at filter/INPUT 1" in capsys.readouterr().out


GOOD = "live: true\nprobes: [{name: a, send: tcp 192.0.2.1:1, expect: {outcome: sent}}]\n"


@pytest.mark.parametrize(
    ("text", "junit", "words"),
    [
        ("live: maybe", None, "line 1, live"),
        (GOOD, "{tmp}/nowhere/x.xml", "there is no directory"),
        (GOOD, "{tmp}", "it is a directory"),
    ],
)
def test_usage_is_refused_before_anything_runs(
    text: str, junit: str | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, file = tmp_path / "good.yaml", tmp_path / "check.yaml"
    good.write_text(GOOD)
    file.write_text(text)
    options = ["--junit", junit.format(tmp=tmp_path)] if junit else []
    assert main(["check", str(good), str(file), *options]) == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert shown.out == ""
