"""The arithmetic of the bench; the measuring itself is `scripts/bench`."""

from __future__ import annotations

import itertools

import pytest

from tests.bench.__main__ import interleaved, parse
from tests.bench.figures import OURS, Figure

FIGURE = Figure("probe", "s", {OURS: [3.0, 1.0, 2.0], "peer": [8.0, 4.0, 4.0]}, target=0.8)


def test_ratio_is_that_of_the_medians() -> None:
    assert FIGURE.median(OURS) == 2.0
    assert FIGURE.ratio("peer") == 0.5


def test_record_keeps_every_run() -> None:
    assert FIGURE.as_record() == {
        "name": "probe",
        "unit": "s",
        "target": 0.8,
        "programs": {
            OURS: {"median": 2.0, "ratio": 1.0, "runs": [3.0, 1.0, 2.0]},
            "peer": {"median": 4.0, "ratio": 0.5, "runs": [8.0, 4.0, 4.0]},
        },
    }


def test_table_names_the_target_and_the_ratio() -> None:
    assert FIGURE.lines() == [
        "probe, s  (target: 0.8)",
        "  ipttrace                     2.00        1.00..3.00",
        "  peer                         4.00        4.00..8.00  ours is 0.50 of it",
    ]


def test_programs_take_turns(capsys: pytest.CaptureFixture[str]) -> None:
    ticks = itertools.count()
    turns = {"a": lambda: next(ticks), "b": lambda: next(ticks)}
    assert interleaved(turns, 2, "x") == {"a": [0, 2], "b": [1, 3]}
    assert "x, run 2 of 2: b" in capsys.readouterr().err


def test_command_line_has_five_runs() -> None:
    assert parse([]).runs == 5
