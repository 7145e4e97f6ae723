"""Builds a lab, sends its probes, compares with what the lab expects, takes it down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ipttrace.errors import UsageError
from ipttrace.lab.scenario import Expectation, LabProbe, Scenario
from ipttrace.lab.topology import Topology
from ipttrace.netfilter import Backend
from ipttrace.path import PacketPath, Role, TraceResult
from ipttrace.ports import TopologyBuilder
from ipttrace.probe import ProbeSpec

Tracer = Callable[[ProbeSpec], TraceResult]
"""Sends one probe and traces it; the namespaces are real names."""


@dataclass(frozen=True, slots=True)
class ProbeRun:
    """What came of one probe; the paths name the namespaces as the lab does."""

    probe: LabProbe
    result: TraceResult
    differences: tuple[str, ...]
    """In words; empty where all is as expected."""

    @property
    def as_expected(self) -> bool:
        """Whether the probe ended as the lab expects."""
        return not self.differences


@dataclass(frozen=True, slots=True)
class LabRun:
    """What came of a lab."""

    scenario: Scenario
    backend: Backend
    probes: tuple[ProbeRun, ...]
    warnings: tuple[str, ...] = ()

    @property
    def as_expected(self) -> bool:
        """Whether all probes ended as the lab expects."""
        return all(run.as_expected for run in self.probes)


def run_lab(
    scenario: Scenario,
    backend: Backend,
    builder: TopologyBuilder[Topology],
    trace: Tracer,
    tell: Callable[[ProbeRun], None] | None = None,
) -> LabRun:
    """Run all probes in their order; the lab comes down whatever happens.

    `tell` hears of each probe as soon as it is done.  Raises UsageError if the lab cannot be run
    on `backend`, and what builder and tracer raise.
    """
    if backend not in scenario.backends:
        raise UsageError(
            f"cannot run lab {scenario.name} on {backend}: it is not made for it",
            f"Choose {' or '.join(scenario.backends)}.",
        )
    lab = builder.up(scenario.topology, backend)
    runs: list[ProbeRun] = []
    try:
        for probe in scenario.probes:
            runs.append(run_probe(probe, lab.namespaces, trace))
            if tell is not None:
                tell(runs[-1])
    finally:
        warnings = lab.down()
    return LabRun(scenario, backend, tuple(runs), tuple(warnings))


def run_probe(probe: LabProbe, real_names: Mapping[str, str], trace: Tracer) -> ProbeRun:
    """Send one probe of a lab that is up."""
    spec = real_spec(probe.spec(), real_names)
    result = in_lab_names(trace(spec), real_names)
    netns = probe.expect.netns or probe.netns[-1]
    return ProbeRun(probe, result, differences(probe.expect, netns, result))


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
    rulesets = {lab_names.get(name, name): each for name, each in result.rulesets.items()}
    return replace(result, paths=paths, rulesets=rulesets)


def differences(expect: Expectation, netns: str, result: TraceResult) -> tuple[str, ...]:
    """Return in words where the probe's packets in `netns`, or the client, are not as expected."""
    found = [path for path in result.paths if path.role is Role.PROBE and path.netns == netns]
    said = [] if found else [f"no packet of the probe was seen in {netns}"]
    for path in found:
        said += _path_differences(expect, path)
    if expect.client is not None:
        for word in result.client or ("nothing",):
            if word != expect.client:
                said.append(f"client: expected {expect.client}, got {word}")
    return tuple(dict.fromkeys(said))


def _path_differences(expect: Expectation, path: PacketPath) -> list[str]:
    said = []
    cause = path.diagnosis.cause if path.diagnosis else None
    if expect.outcome is not None and path.outcome is not expect.outcome:
        said.append(f"outcome: expected {expect.outcome}, got {path.outcome}")
    if expect.cause is not None and cause != expect.cause:
        said.append(f"cause: expected {expect.cause}, got {cause or 'none'}")
    return said
