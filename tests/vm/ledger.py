"""A pytest plugin that notes each test's result at once, so that a run cut short tells them too.

A run that goes on where another one was cut short leaves out the tests that had ended.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

LEDGER = Path(os.environ["IPTTRACE_LEDGER"])
DONE = LEDGER.with_name("done")
"""The tests that need not run: a line each, written before this run began."""

CLOCK = float(os.environ.get("IPTTRACE_CLOCK", "1"))
"""By how much this machine's clock is slower than its host's."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out what had ended."""
    done = set(DONE.read_text().splitlines()) if DONE.exists() else set()
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in done])
    items[:] = [item for item in items if item.nodeid not in done]


@pytest.hookimpl
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Append the outcome of one phase of one test, as a line of JSON."""
    _note(report, str(report.when), report.duration)


@pytest.hookimpl
def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Append what could not be collected."""
    if report.failed:
        _note(report, "collect", 0.0)


def _note(report: pytest.TestReport | pytest.CollectReport, phase: str, seconds: float) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:  # the one that started the workers is told of all
        return
    line = {
        "test": report.nodeid,
        "phase": phase,
        "outcome": report.outcome,
        "seconds": seconds * CLOCK,
        "at": time.time(),
        "words": report.longreprtext if report.failed else "",
    }
    with LEDGER.open("a") as ledger:
        ledger.write(json.dumps(line) + "\n")
