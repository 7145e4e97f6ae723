"""The machine for the screen: probes, labs, rules, namespaces, findings (a Workbench).

What touches the kernel is imported where it is used: the screen is painted before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ipttrace.cli.feeds import Cancelled, ProbeFeed, Publish, rules_now, running
from ipttrace.errors import CancelledError, IptTraceError
from ipttrace.result import TraceResult, join_results
from ipttrace_tui.feed import Feed, Snapshot
from ipttrace_tui.workbench import LabEntry, LabUp

if TYPE_CHECKING:
    from ipttrace.checkup.finding import Finding
    from ipttrace.inventory import Place
    from ipttrace.lab.building import RunningLab
    from ipttrace.lab.lab_probe import Change
    from ipttrace.lab.parts import LabBackend
    from ipttrace.lab.runner import LabRun, ProbeRun
    from ipttrace.lab.scenario import Scenario
    from ipttrace.lab.topology import Topology
    from ipttrace.probe import ProbeSpec
    from ipttrace.ruleset import Ruleset


class HostWorkbench:
    """This host, and at most one lab that is up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        """Held while a lab is built or taken down."""
        self._lab: RunningLab | None = None
        self._up: LabUp | None = None
        self._closed = False

    # ---------------------------------------------------------------- probes and labs

    def probe(self, spec: ProbeSpec) -> Feed:
        """Return a feed that sends a probe, in the lab that is up where it names its namespaces."""
        names = dict(self._lab.namespaces) if self._lab is not None else {}
        used = {*spec.netns, *([spec.from_netns] if spec.from_netns else [])}
        if not used & set(names):
            return ProbeFeed(spec)
        known = {**{name: name for name in used}, **names}
        return LabProbeFeed(spec, known)

    def lab(self, name: str, backend: LabBackend) -> Feed:
        """Return a feed that builds a lab, unless it is up, and sends its probes."""
        return HeldLabFeed(self, name, backend)

    def up(self, scenario: Scenario, backend: LabBackend) -> RunningLab:
        """Return the lab, built if it is not up as its file has it; another one comes down first.

        One whose probes change it is built anew for each run.
        """
        from ipttrace.system.lab_builder import LabBuilder

        with self._lock:
            wanted = LabUp(scenario.name, backend)
            changes = any(probe.change for probe in scenario.probes)
            if self._lab is not None and self._up == wanted and not changes:
                return self._lab
            self._down()
            if self._closed:
                raise CancelledError("cancelled; everything was taken back")
            self._lab, self._up = LabBuilder().up(scenario.topology, backend), wanted
            return self._lab

    def lab_up(self) -> LabUp | None:
        """Return which lab is up."""
        return self._up

    def take_down(self) -> Sequence[str]:
        """Take the lab down that is up; return warnings."""
        with self._lock:
            return self._down()

    def _down(self) -> Sequence[str]:
        lab, self._lab, self._up = self._lab, None, None
        return lab.down() if lab is not None else ()

    def close(self) -> None:
        """Take back all that is left; may be called more than once."""
        with self._lock:
            self._closed = True
            self._down()

    # ---------------------------------------------------------------- looking

    def _real(self, netns: str | None) -> str | None:
        """Return the real name of a namespace that may be named as the lab names it."""
        lab = self._lab
        return lab.namespaces.get(netns, netns) if lab is not None and netns else netns

    def read_rules(self, netns: str | None) -> tuple[float, Ruleset]:
        """Read the rules and counters of a namespace."""
        from ipttrace.system.capabilities import require_privilege
        from ipttrace.system.namespaces import find_namespace
        from ipttrace.system.rulesets import NamespaceRules

        namespace = find_namespace(self._real(netns))
        require_privilege(aim="read rules")
        ruleset = NamespaceRules(namespace).read()
        return time.monotonic(), ruleset

    def places(self) -> Sequence[Place]:
        """Return the namespaces that there are."""
        from ipttrace.system.places import read_places

        lab, up = self._lab, self._up
        if lab is None or up is None:
            return read_places()
        return read_places({real: (up.name, name) for name, real in lab.namespaces.items()})

    def labs(self) -> Sequence[LabEntry]:
        """Return the labs of the library; a file that cannot be used is named with its error."""
        from ipttrace.lab.scenario import library

        return [_entry(name) for name in library()]

    def findings(self, netns: str | None) -> Sequence[Finding]:
        """Return what stands in the way of a trace in a namespace."""
        from ipttrace.checkup.examine import examine
        from ipttrace.system.facts import read_facts
        from ipttrace.system.namespaces import find_namespace

        return examine(read_facts(find_namespace(self._real(netns))))


def _entry(name: str) -> LabEntry:
    from ipttrace.lab.scenario import load_scenario

    try:
        return LabEntry(name, load_scenario(name))
    except IptTraceError as error:
        return LabEntry(name, None, str(error))


class LabProbeFeed:
    """One probe in the namespaces of a lab that is up; its packets name them as the lab does."""

    live = False

    def __init__(self, spec: ProbeSpec, real_names: dict[str, str]) -> None:
        self._spec = spec
        self.netns = tuple(spec.netns)
        self._real_names = real_names

    def read_rules(self, netns: str | None) -> Ruleset:
        """Return the rules of a namespace as they are now."""
        return rules_now(self._real_names.get(netns, netns) if netns else None)

    def run(self, publish: Publish, cancelled: Cancelled) -> None:
        """Trace the probe and publish what was found."""
        from ipttrace.cli.compose import trace_probe
        from ipttrace.lab.runner import real_spec

        notes: list[str] = []
        publish(Snapshot())
        result = trace_probe(
            real_spec(self._spec, self._real_names),
            answer=lambda found: publish(running([self._named(found)], "tidying up")),
            note=notes.append,
            hint=notes.append,
            cancelled=cancelled,
            follows=False,
        )
        found = self._named(result)
        said = tuple(map(self._in_lab_words, (*notes, *found.warnings)))
        publish(Snapshot.of(replace(found, warnings=said)))

    def _in_lab_words(self, text: str) -> str:
        """Return what is said of namespaces with the names that the lab gives them."""
        for name, real in self._real_names.items():
            text = text.replace(real, name)
        return text

    def _named(self, result: TraceResult) -> TraceResult:
        from ipttrace.lab.runner import in_lab_names

        return in_lab_names(result, self._real_names)


@dataclass(frozen=True, slots=True)
class _Held:
    """A lab whose run must not take it down: the workbench does."""

    lab: RunningLab

    @property
    def namespaces(self) -> Mapping[str, str]:
        return self.lab.namespaces

    def change(self, change: Change, *path: str | int) -> None:
        self.lab.change(change, *path)

    def refused(self, namespace: str, words: Sequence[str]) -> str | None:
        return self.lab.refused(namespace, words)

    def keep(self) -> None:
        """Stay up as long as the workbench wants it."""

    def down(self) -> Sequence[str]:
        return ()


class _Holder:
    """A builder of what the workbench holds."""

    def __init__(self, bench: HostWorkbench, scenario: Scenario) -> None:
        self._bench = bench
        self._scenario = scenario

    def up(self, _: Topology, backend: str) -> RunningLab:
        from ipttrace.lab.parts import LabBackend

        return _Held(self._bench.up(self._scenario, LabBackend(backend)))


class HeldLabFeed:
    """All probes of a lab, one after another; the lab stays up, so that it can be looked at."""

    live = False
    netns: tuple[str, ...] = ()

    def __init__(self, bench: HostWorkbench, lab: str, backend: LabBackend) -> None:
        self._bench = bench
        self._lab = lab
        self._backend = backend

    def read_rules(self, netns: str | None) -> Ruleset:
        """Return the rules of a namespace as they are now."""
        return self._bench.read_rules(netns)[1]

    def run(self, publish: Publish, cancelled: Cancelled) -> None:
        """Build the lab, run its probes and publish after each of them."""
        from ipttrace.lab.runner import run_lab
        from ipttrace.lab.scenario import load_scenario
        from ipttrace.system import user_namespace
        from ipttrace.system.capabilities import require_privilege

        require_privilege()
        publish(Snapshot(message="building the lab"))
        results: list[TraceResult] = []

        def tell(probe: ProbeRun) -> None:
            results.append(probe.result)
            publish(running(results, f"done: {probe.probe.name}"))

        scenario = load_scenario(self._lab)
        builder = _Holder(self._bench, scenario)
        events = not user_namespace.is_inside()
        run = run_lab(scenario, self._backend, builder, _tracing(cancelled), tell, events=events)
        whole = join_results(results)
        warnings = (*whole.warnings, *run.notices, *_unexpected(run))
        shown = Snapshot.of(replace(whole, warnings=warnings))
        publish(replace(shown, message="the lab is up"))


def _unexpected(run: LabRun) -> Iterator[str]:
    """Yield in words where a lab's run is not as its file expects."""
    for refusal in run.refusals:
        yield from refusal.differences
    for probe in run.probes:
        yield from (f"{probe.probe.name}: {difference}" for difference in probe.differences)


def _tracing(cancelled: Cancelled) -> Callable[[ProbeSpec], TraceResult]:
    from ipttrace.cli.compose import trace_probe

    def trace(spec: ProbeSpec) -> TraceResult:
        if cancelled():
            raise CancelledError("cancelled; everything was taken back")
        return trace_probe(
            spec,
            answer=lambda _: None,
            note=lambda _: None,
            cancelled=cancelled,
            follows=False,
        )

    return trace
