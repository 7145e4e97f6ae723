"""Every lab of the library on the real kernel, on each of its backends: it ends as it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipttrace.cli.compose import trace_probe
from ipttrace.lab.runner import LabRun, run_lab
from ipttrace.lab.scenario import library, load_scenario
from ipttrace.probe import ProbeSpec
from ipttrace.render.text import answer_lines
from ipttrace.result import TraceResult
from ipttrace.system.lab_builder import LabBuilder
from ipttrace.system.namespaces import NAMED
from tests.root.kernel import unique_name

RUNS = [
    pytest.param(name, str(backend), id=f"{name}-{backend}")
    for name in library()
    for backend in load_scenario(name).backends
]
"""Every lab with each of its backends: one test each, which xdist spreads."""


def report(run: LabRun) -> str:
    """Return what is not as expected, and the hops of those probes."""
    lines = [f"{run.scenario.name} on {run.backend}:"]
    for refusal in run.refusals:
        lines += refusal.differences
    for probe in run.probes:
        if not probe.as_expected:
            lines += [f"-- {probe.probe.name}", *probe.differences]
            lines += answer_lines(probe.result, width=None, color=False, verbose=True)
    return "\n".join(lines)


@pytest.mark.parametrize(("name", "backend"), RUNS)
def test_a_lab_ends_as_it_says(name: str, backend: str) -> None:
    prefix = unique_name("lib")
    notes: list[str] = []

    def trace(spec: ProbeSpec) -> TraceResult:
        return trace_probe(spec, answer=lambda _: None, note=notes.append, follows=False)

    run = run_lab(load_scenario(name), backend, LabBuilder(prefix), trace)
    assert run.as_expected, report(run)
    sent = [probe.probe.name for probe in run.probes]
    assert sent == [probe.name for probe in run.scenario.probes if probe.runs_on(backend)]
    assert run.warnings == ()
    assert [probe.probe.name for probe in run.probes if not probe.result.clean] == []
    assert left_behind(prefix) == []


def left_behind(prefix: str) -> list[Path]:
    """Return the namespaces of a lab that are still there."""
    return [path for path in NAMED.iterdir() if path.name.startswith(prefix)]
