"""What the screen shows: a probe or a lab, traced in the screen's worker thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ipttrace.cli.compose import trace_probe
from ipttrace.cli.lab_runs import run_scenario
from ipttrace.lab.runner import ProbeRun
from ipttrace.lab.scenario import load_scenario
from ipttrace.netfilter import Backend
from ipttrace.path import TraceResult, join_results
from ipttrace.probe import ProbeSpec
from ipttrace_tui.feed import RunState, Snapshot

Publish = Callable[[Snapshot], None]
Cancelled = Callable[[], bool]


class ProbeFeed:
    """One probe (an `ipttrace_tui.feed.Feed`)."""

    def __init__(self, spec: ProbeSpec) -> None:
        self._spec = spec
        self.title = f"{spec.protocol} {spec.dst}" + (f" port {spec.dport}" if spec.dport else "")

    def run(self, publish: Publish, cancelled: Cancelled) -> None:
        """Trace the probe and publish what was found."""
        notes: list[str] = []
        publish(Snapshot(message="tracing"))
        result = trace_probe(
            self._spec,
            answer=lambda found: publish(_running([found], "tidying up")),
            note=notes.append,
            hint=notes.append,
            cancelled=cancelled,
        )
        publish(Snapshot.of(replace(result, warnings=(*notes, *result.warnings))))


class LabFeed:
    """All probes of a lab, one after another."""

    def __init__(self, lab: str, backend: Backend | None) -> None:
        self._scenario = load_scenario(lab)
        self._backend = backend or self._scenario.backends[0]
        self.title = f"lab {self._scenario.name}, {self._backend}"

    def run(self, publish: Publish, cancelled: Cancelled) -> None:
        """Run the lab and publish after each probe."""
        results: list[TraceResult] = []
        publish(Snapshot(message="building the lab"))

        def tell(probe: ProbeRun) -> None:
            results.append(probe.result)
            publish(_running(results, f"done: {probe.probe.name}"))

        run = run_scenario(
            self._scenario, self._backend, tell=tell, note=lambda _: None, cancelled=cancelled
        )
        whole = join_results(results)
        publish(Snapshot.of(replace(whole, warnings=(*whole.warnings, *run.warnings))))


def _running(results: list[TraceResult], message: str) -> Snapshot:
    return replace(Snapshot.of(join_results(results)), state=RunState.RUNNING, message=message)
