"""Runs checks: each probe against its lab, its twin or the live host becomes a case."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import msgspec

from ipttrace.checks import Case, Coverage, Difference, State
from ipttrace.errors import CancelledError, IptTraceError, UsageError
from ipttrace.lab.building import RunningLab, TopologyBuilder
from ipttrace.lab.check_file import Check
from ipttrace.lab.coverage import CoveredBuilder, CoveredLab, ReadRules, RulesMet
from ipttrace.lab.lab_probe import Change, LabProbe
from ipttrace.lab.parts import LabBackend
from ipttrace.lab.runner import (
    NEEDS_ROOT,
    ProbeRun,
    RefusalRun,
    Tracer,
    make_changes,
    run_lab,
    run_probe,
)

NOT_MADE = "it is not made for this backend"
ONE_BACKEND = "a twin is built on legacy or nft"
AFTERWARDS = "after the probes"

Tell = Callable[[Case], None]
"""Hears of each case as soon as it is done."""


class TwinBuilder(Protocol):
    """Rebuilds another host from its snapshot or its save file."""

    def up(self, file: Path, backend: str) -> RunningLab:
        """Build the twin, whose own namespace is the first of the lab's.

        An empty backend: with the rules where they were on that host.
        """
        ...


@dataclass(frozen=True, slots=True)
class Stage:
    """The kernel's side of all checks."""

    labs: TopologyBuilder
    twins: TwinBuilder
    trace: Tracer
    read: ReadRules
    live_backend: Callable[[Sequence[str | None]], str]
    """Where namespaces, by their real names, have rules: `legacy`, `nft` or `both`."""
    coverage: bool = False
    events: bool = True
    """Whether the kernel's events are there: without them some probes are skipped."""
    warn: Callable[[str], None] = lambda _: None
    _met: dict[tuple[str, str, str], RulesMet] = field(default_factory=dict)

    def met(self, check: Check, backend: str) -> RulesMet:
        """Return where the rules of a target are noted, the same for all files against it."""
        return self._met.setdefault((check.target, check.origin, backend), RulesMet())

    def covered(self) -> Iterator[Coverage]:
        """Yield what was noted of all targets."""
        for (target, _, backend), met in self._met.items():
            yield from met.coverage(target, backend)


def run_check(check: Check, backend: str | None, stage: Stage, tell: Tell) -> list[Case]:
    """Run one file on each of its backends, or on the one that is given; return its cases.

    A lab that cannot be built, or a probe that cannot be sent, is a case as well: nothing is raised
    but CancelledError.
    """
    run = _Run(check, stage, tell)
    if check.live:
        run.live()
    elif check.scenario is not None:
        for each in [LabBackend(backend)] if backend else check.backends:
            run.lab(each)
    else:
        for twin_backend in [backend] if backend else check.backends or [""]:
            run.twin(twin_backend)
    return run.cases


class _Run:
    """The cases of one file, as they come."""

    def __init__(self, check: Check, stage: Stage, tell: Tell) -> None:
        self.cases: list[Case] = []
        self._check = check
        self._stage = stage
        self._tell = tell

    def lab(self, backend: LabBackend) -> None:
        """Run a lab, if it is made for the backend."""
        scenario = self._check.scenario
        assert scenario is not None
        if backend not in self._check.backends:
            self._skip_all(backend, NOT_MADE)
            return
        builder, met = self._stage.labs, self._met(backend)
        if met is not None:
            builder = CoveredBuilder(builder, self._stage.read, met)

        def build_and_probe() -> None:
            def tell(run: ProbeRun) -> None:
                self._probed(run, backend, met)

            stage = self._stage
            done = run_lab(scenario, backend, builder, stage.trace, tell, events=stage.events)
            for name in done.left_out:
                self._add(self._case(name, backend, State.SKIPPED, NEEDS_ROOT))
            for refusal in done.refusals:
                self._refused(refusal, backend)
            self._warn(done.warnings)

        self._guarded(backend, build_and_probe)

    def twin(self, backend: str) -> None:
        """Rebuild a host, and probe it."""
        file = self._check.twin
        assert file is not None
        if backend == LabBackend.BOTH:
            self._skip_all(backend, ONE_BACKEND)
            return
        if backend and self._check.backends and backend not in self._check.backends:
            self._skip_all(backend, NOT_MADE)
            return

        def build_and_probe() -> None:
            twin = self._stage.twins.up(file, backend)
            try:
                known = backend or self._stage.live_backend(list(twin.namespaces.values())[:1])
                met = self._met(known)
                covered = CoveredLab(twin, self._stage.read, met) if met is not None else twin
                self._probe_all(covered, known, met)
            finally:
                self._warn(twin.down())

        self._guarded(backend, build_and_probe)

    def live(self) -> None:
        """Probe this very host."""
        named = tuple(dict.fromkeys(n for p in self._check.probes for n in p.netns or (None,)))

        def probe_all() -> None:
            backend = self._stage.live_backend(named)
            met = self._met(backend)
            if met is not None:
                for netns in named:
                    met.read(netns, self._stage.read(netns))
            self._probe_all(LiveHost(), backend, met)

        self._guarded("", probe_all)

    def _skip_all(self, backend: str, reason: str) -> None:
        for probe in self._check.probes:
            self._add(self._case(probe.name, backend, State.SKIPPED, reason))

    def _met(self, backend: str) -> RulesMet | None:
        return self._stage.met(self._check, backend) if self._stage.coverage else None

    def _warn(self, warnings: Sequence[str]) -> None:
        for warning in warnings:
            self._stage.warn(warning)

    def _probe_all(self, lab: RunningLab, backend: str, met: RulesMet | None) -> None:
        """Send the probes to what is up, though one cannot be sent; it is left up."""
        for place, probe in enumerate(self._check.probes):
            if not probe.runs_on(backend):
                only = f"it is for {' and '.join(probe.backends)} only"
                self._add(self._case(probe.name, backend, State.SKIPPED, only))
                continue
            make_changes(lab, probe, place)
            if probe.needs_events and not self._stage.events:
                self._add(self._case(probe.name, backend, State.SKIPPED, NEEDS_ROOT))
                continue
            placed = _placed(probe, lab.namespaces)
            try:
                run = run_probe(placed, lab.namespaces, self._stage.trace, backend)
            except CancelledError:
                raise
            except IptTraceError as error:
                self._failed(probe.name, backend, error)
                continue
            self._probed(run, backend, met)

    def _guarded(self, backend: str, run: Callable[[], None]) -> None:
        """Run, and make a case of what goes wrong: of the first probe that was not sent."""
        before = len(self.cases)
        try:
            run()
        except CancelledError:
            raise
        except IptTraceError as error:
            done = {case.name for case in self.cases[before:]}
            expected = [each for each in self._check.probes if not backend or each.runs_on(backend)]
            left = [each.name for each in expected if each.name not in done] or [AFTERWARDS]
            self._failed(left[0], backend, error)
            for name in left[1:]:
                self._add(self._case(name, backend, State.SKIPPED, f"not run after {left[0]}"))

    def _failed(self, name: str, backend: str, error: IptTraceError) -> None:
        case = self._case(name, backend, State.ERROR, str(error))
        self._add(replace(case, exit_code=error.exit_code))

    def _probed(self, run: ProbeRun, backend: str, met: RulesMet | None) -> None:
        if met is not None:
            met.saw(run.result)
        state = State.PASSED if run.as_expected else State.FAILED
        self._add(
            replace(
                self._case(run.probe.name, backend, state),
                seconds=run.result.seconds,
                differences=run.found,
                steps=run.steps,
                result=run.result,
            )
        )

    def _refused(self, run: RefusalRun, backend: str) -> None:
        found = tuple(Difference("refused", "", words) for words in run.differences)
        state = State.FAILED if found else State.PASSED
        case = self._case(f"refused: {run.refusal.run}", backend, state)
        self._add(replace(case, differences=found))

    def _case(self, name: str, backend: str, state: State, message: str = "") -> Case:
        check = self._check
        return Case(check.file, check.target, backend, name, state, message=message)

    def _add(self, case: Case) -> None:
        self.cases.append(case)
        self._tell(case)


def _placed(probe: LabProbe, namespaces: Mapping[str, str]) -> LabProbe:
    """Return a probe that names no namespace with the first one, which is the twin's own.

    On the live host, which lists none, it stays as it is.
    """
    names = tuple(namespaces)[:1]
    return probe if probe.netns or not names else msgspec.structs.replace(probe, netns=names)


class LiveHost:
    """This host as if it were a lab: every namespace has the name that the user gave it."""

    def __init__(self) -> None:
        self.namespaces: Mapping[str, str] = _Itself()

    def change(self, change: Change, *_: str | int) -> None:
        """Refuse: nothing of the host is changed."""
        raise UsageError(f"cannot change {change.namespace}: a live host is never changed")

    def refused(self, namespace: str, words: Sequence[str]) -> str | None:
        """Refuse: no program is run."""
        raise UsageError(f"cannot run {words[0]} in {namespace}: a live host is never changed")

    def keep(self) -> None:
        """Do nothing: the host stays up."""

    def down(self) -> Sequence[str]:
        """Do nothing: the host stays up."""
        return ()


class _Itself(dict[str, str]):
    """Every name stands for itself; none is listed."""

    def __missing__(self, name: str) -> str:
        return name
