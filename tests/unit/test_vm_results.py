"""What scripts/vm-test prints of the tests that ran in its machine."""

from __future__ import annotations

import json
from pathlib import Path

from tests.vm import results

LEDGER = [
    ("tests/root/test_lab.py::test_a", "setup", "passed", 1.0),
    ("tests/root/test_lab.py::test_b[x]", "setup", "failed", 2.0),
    ("tests/root/test_lab.py::test_a", "call", "passed", 10.0),
    ("tests/root/test_lab.py::test_b[x]", "teardown", "passed", 0.5),
    ("tests/root/test_lab.py::test_a", "teardown", "passed", 0.25),
    ("tests/root/test_bad.py", "collect", "failed", 0.0),
    ("tests/root/test_clean.py::test_c", "setup", "passed", 1.0),
]


def write(path: Path, more: str = "") -> Path:
    keys = ("test", "phase", "outcome", "seconds")
    records = [dict(zip(keys, line, strict=True)) for line in LEDGER]
    for record in records:
        record["words"] = "assert 0" if record["outcome"] == "failed" else ""
    lines = [json.dumps(record) + "\n" for record in records]
    path.write_text("".join(lines) + more)
    return path


def test_a_test_is_as_bad_as_its_worst_phase_and_counts_once_it_ended(tmp_path: Path) -> None:
    read = results.read_ledger(write(tmp_path / "ledger"))
    assert [(each.test, each.outcome, each.seconds, each.words) for each in read] == [
        ("tests/root/test_lab.py::test_b[x]", "failed", 2.5, "assert 0"),
        ("tests/root/test_lab.py::test_a", "passed", 11.25, ""),
        ("tests/root/test_bad.py", "failed", 0.0, "assert 0"),
    ]


def test_a_line_that_is_still_written_and_a_ledger_that_is_not_there(tmp_path: Path) -> None:
    whole = results.read_ledger(write(tmp_path / "ledger"))
    assert results.read_ledger(write(tmp_path / "ledger", '{"test": "tests/ro')) == whole
    assert results.read_ledger(tmp_path / "none") == []


def test_the_table_has_a_line_a_file_then_what_failed_and_what_was_left_out(
    tmp_path: Path,
) -> None:
    read = results.read_ledger(write(tmp_path / "ledger"))
    left_out = {"test_a": "ten minutes", "test_b": "speed", "test_c": "ten minutes"}
    assert results.report(read, left_out) == [
        "                        passed  failed  skipped  seconds",
        "tests/root/test_bad.py       0       1        0        0",
        "tests/root/test_lab.py       1       1        0       14",
        "all                          1       2        0       14",
        "FAILED    tests/root/test_lab.py::test_b[x]",
        "FAILED    tests/root/test_bad.py",
        "left out  ten minutes:",
        "          test_a",
        "          test_c",
        "left out  speed:",
        "          test_b",
    ]


def test_modules_that_were_not_there_before() -> None:
    before = "Module                  Size  Used by\nveth                   36864  0\n"
    assert results.loaded(before, before + "xt_TRACE 16384 1\nact_mirred 20480 0\n") == [
        "act_mirred",
        "xt_TRACE",
    ]
