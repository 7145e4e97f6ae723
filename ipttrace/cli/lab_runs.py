"""Joins labs to the kernel's side and to the traced probe."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from ipttrace.cli.compose import Note, trace_probe
from ipttrace.lab.runner import LabRun, ProbeRun, run_lab
from ipttrace.lab.scenario import Scenario
from ipttrace.probe import ProbeSpec
from ipttrace.result import TraceResult
from ipttrace.system import capabilities, user_namespace
from ipttrace.system.lab_builder import LabBuilder


def run_scenario(
    scenario: Scenario,
    backend: str,
    *,
    tell: Callable[[ProbeRun], None],
    note: Note,
    cancelled: Callable[[], bool] = lambda: False,
    keep: str | None = None,
) -> LabRun:
    """Build a lab, trace its probes, take it down; `tell` hears of each probe.

    With `keep` it stays up and is called so.  Raises NotPermittedError without privilege: see
    `system.user_namespace`.
    """
    capabilities.require_privilege()

    def trace(spec: ProbeSpec) -> TraceResult:
        # A lab's namespaces have other names for its reader, and are gone when they are read.
        return trace_probe(
            spec, answer=lambda _: None, note=note, cancelled=cancelled, follows=False
        )

    began = time.monotonic()
    builder = LabBuilder(title=scenario.title, note=note)
    if keep is not None:
        builder = LabBuilder("lab", name=keep, title=scenario.title, note=note)
    events = not user_namespace.is_inside()
    run = run_lab(scenario, backend, builder, trace, tell, keep=keep is not None, events=events)
    return replace(run, seconds=time.monotonic() - began)
