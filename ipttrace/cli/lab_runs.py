"""Joins labs to the kernel's side and to the traced probe."""

from __future__ import annotations

from collections.abc import Callable

from ipttrace.cli.compose import Note, trace_probe
from ipttrace.lab.runner import LabRun, ProbeRun, run_lab
from ipttrace.lab.scenario import Scenario
from ipttrace.path import TraceResult
from ipttrace.probe import ProbeSpec
from ipttrace.system import capabilities
from ipttrace.system.lab_builder import LabBuilder


def run_scenario(
    scenario: Scenario,
    backend: str,
    *,
    tell: Callable[[ProbeRun], None],
    note: Note,
    cancelled: Callable[[], bool] = lambda: False,
) -> LabRun:
    """Build a lab, trace its probes, take it down; `tell` hears of each probe."""
    capabilities.require_privilege()

    def trace(spec: ProbeSpec) -> TraceResult:
        # A lab's namespaces have other names for its reader, and are gone when they are read.
        return trace_probe(
            spec, answer=lambda _: None, note=note, cancelled=cancelled, follows=False
        )

    return run_lab(scenario, backend, LabBuilder(), trace, tell)
