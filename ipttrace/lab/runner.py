"""Builds a lab, sends its probes, compares with what the lab expects, takes it down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ipttrace.checks import Difference, Step
from ipttrace.errors import UsageError
from ipttrace.lab.building import RunningLab, TopologyBuilder
from ipttrace.lab.comparing import compare
from ipttrace.lab.lab_probe import LabProbe
from ipttrace.lab.parts import LabBackend
from ipttrace.lab.scenario import Refusal, Scenario
from ipttrace.lab.stepping import parting_ways
from ipttrace.probe import ProbeSpec
from ipttrace.result import TraceResult

Tracer = Callable[[ProbeSpec], TraceResult]
"""Sends one probe and traces it; the namespaces are real names."""


NEEDS_ROOT = "only root sees the kernel's events, which alone prove what is expected"


@dataclass(frozen=True, slots=True)
class ProbeRun:
    """What came of one probe; the paths name the namespaces as the lab does."""

    probe: LabProbe
    result: TraceResult
    found: tuple[Difference, ...] = ()
    """What is not as expected."""
    steps: tuple[tuple[Step, ...], ...] = ()
    """Expected and actual way of each packet that differs."""

    @property
    def differences(self) -> tuple[str, ...]:
        """What is not as expected, in words; empty where all is."""
        return tuple(str(each) for each in self.found)

    @property
    def as_expected(self) -> bool:
        """Whether the probe ended as the lab expects."""
        return not self.found


@dataclass(frozen=True, slots=True)
class RefusalRun:
    """What came of a command that must be refused."""

    refusal: Refusal
    complaint: str | None
    """The program's own message; None if it took the command."""
    differences: tuple[str, ...]

    @property
    def as_expected(self) -> bool:
        """Whether it was refused with the words that the lab expects."""
        return not self.differences


@dataclass(frozen=True, slots=True)
class LabRun:
    """What came of a lab."""

    scenario: Scenario
    backend: LabBackend
    probes: tuple[ProbeRun, ...]
    warnings: tuple[str, ...] = ()
    refusals: tuple[RefusalRun, ...] = ()
    seconds: float = 0.0
    error: str | None = None
    """Why the lab could not be run to its end."""
    left_out: tuple[str, ...] = ()
    """Names of the probes that need the kernel's events, where there are none."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What its reader should know."""
        name = self.scenario.name
        left_out = (f"{name}: {probe} was left out: {NEEDS_ROOT}" for probe in self.left_out)
        return (*left_out, *self.warnings)

    @property
    def as_expected(self) -> bool:
        """Whether all commands were refused and all probes ended as the lab expects."""
        return self.error is None and all(
            [
                *(run.as_expected for run in self.refusals),
                *(run.as_expected for run in self.probes),
            ]
        )


def run_lab(
    scenario: Scenario,
    backend: str,
    builder: TopologyBuilder,
    trace: Tracer,
    tell: Callable[[ProbeRun], None] = lambda _: None,
    *,
    keep: bool = False,
    events: bool = True,
) -> LabRun:
    """Try what must be refused and run all probes in their order.

    Without `events` (tracefs) the probes that need them are left out.  The lab comes down whatever
    happens, unless all was done and `keep` is set.  `tell` hears of each probe as soon as it is
    done.  Raises UsageError if the lab cannot be run on `backend`, and what builder and tracer
    raise.
    """
    if backend not in scenario.backends:
        raise UsageError(
            f"cannot run lab {scenario.name} on {backend}: it is not made for it",
            f"Choose {' or '.join(scenario.backends)}.",
        )
    lab = builder.up(scenario.topology, backend)
    warnings: tuple[str, ...] = ()
    kept = False
    try:
        refusals = tuple(_refusals(scenario, backend, lab))
        runs, left_out = _run_probes(scenario, backend, lab, trace, tell, events=events)
        if keep:
            lab.keep()
            kept = True
    finally:
        if not kept:
            warnings = tuple(lab.down())
    return LabRun(scenario, LabBackend(backend), runs, warnings, refusals, left_out=left_out)


def _run_probes(
    scenario: Scenario,
    backend: str,
    lab: RunningLab,
    trace: Tracer,
    tell: Callable[[ProbeRun], None],
    *,
    events: bool,
) -> tuple[tuple[ProbeRun, ...], tuple[str, ...]]:
    """Return what the probes of `backend` gave, and the names of those left out for want of events.

    What changes the lab before a probe is done in either case.
    """
    runs: list[ProbeRun] = []
    left_out: list[str] = []
    for place, probe in enumerate(scenario.probes):
        if not probe.runs_on(backend):
            continue
        make_changes(lab, probe, place)
        if probe.needs_events and not events:
            left_out.append(probe.name)
            continue
        runs.append(run_probe(probe, lab.namespaces, trace, backend))
        tell(runs[-1])
    return tuple(runs), tuple(left_out)


def make_changes(lab: RunningLab, probe: LabProbe, place: int) -> None:
    """Change a lab that is up as its probe at a `place` of the file wants it before it is sent."""
    for number, change in enumerate(probe.change):
        lab.change(change, "probes", place, "change", number)


def _refusals(scenario: Scenario, backend: str, lab: RunningLab) -> list[RefusalRun]:
    runs = []
    for refusal in scenario.refused:
        if refusal.runs_on(backend):
            complaint = lab.refused(refusal.namespace, refusal.words)
            said = refusal_differences(refusal, backend, complaint)
            runs.append(RefusalRun(refusal, complaint, said))
    return runs


def refusal_differences(refusal: Refusal, backend: str, complaint: str | None) -> tuple[str, ...]:
    """Return in words where a refusal is not as expected."""
    if complaint is None:
        return (f"expected a refusal, but it was accepted: {refusal.run}",)
    words = refusal.message_on(backend)
    if words.casefold() not in complaint.casefold():
        return (f"expected a refusal that says {words!r}, got {complaint!r}",)
    return ()


def run_probe(
    probe: LabProbe,
    real_names: Mapping[str, str],
    trace: Tracer,
    backend: str = LabBackend.LEGACY,
) -> ProbeRun:
    """Send one probe of a lab that is up."""
    spec = real_spec(probe.spec(), real_names)
    result = in_lab_names(trace(spec), real_names)
    expect = probe.expect.on(backend)
    netns = expect.netns or (probe.netns[-1] if probe.netns else None)
    found = compare(expect, netns, result)
    return ProbeRun(probe, result, found, parting_ways(expect, netns, result) if found else ())


def real_spec(spec: ProbeSpec, real_names: Mapping[str, str]) -> ProbeSpec:
    """Return `spec` with the real names of its namespaces."""
    return replace(
        spec,
        netns=tuple(real_names[name] for name in spec.netns),
        from_netns=real_names[spec.from_netns] if spec.from_netns else None,
    )


def in_lab_names(result: TraceResult, real_names: Mapping[str, str]) -> TraceResult:
    """Return `result` with the lab's own names of namespaces."""
    lab_names: dict[str | None, str] = {real: name for name, real in real_names.items()}
    paths = tuple(
        replace(path, netns=lab_names.get(path.netns, path.netns)) for path in result.paths
    )
    rulesets = {lab_names.get(netns, netns): each for netns, each in result.rulesets.items()}
    return replace(result, paths=paths, rulesets=rulesets)
