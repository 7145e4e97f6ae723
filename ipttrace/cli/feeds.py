"""What the screen shows: a probe or a lab, traced in the screen's worker thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ipttrace.cli.compose import trace_probe
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
            answer=lambda found: publish(running([found], "tidying up")),
            note=notes.append,
            hint=notes.append,
            cancelled=cancelled,
        )
        publish(Snapshot.of(replace(result, warnings=(*notes, *result.warnings))))


def running(results: list[TraceResult], message: str) -> Snapshot:
    """Return what is known so far of a run that goes on."""
    return replace(Snapshot.of(join_results(results)), state=RunState.RUNNING, message=message)
