"""`ipttrace lab run`: build labs, send their probes, compare, take them down."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ipttrace.cli import output
from ipttrace.errors import IptTraceError, UsageError

if TYPE_CHECKING:
    from ipttrace.cli.printing import Printer
    from ipttrace.lab.runner import LabRun, ProbeRun
    from ipttrace.lab.scenario import Scenario

    Chosen = Sequence[tuple[Scenario, str]]
    Tell = Callable[[ProbeRun], None]

EXPECTATION_FAILED = 1
EVENTS_LOST = 4
INTERRUPTED = 130
MOST_JOBS = 32
BACKENDS = ("legacy", "nft", "both")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "run",
        help="build labs, send their probes, compare, take them down",
        description="Build each lab on each of its backends, send its probes, compare what becomes "
        "of them with what the lab expects, and take it down. One lab shows the way of each probe; "
        "several show a table. Works without root where user namespaces are allowed.",
    )
    parser.add_argument(
        "labs", metavar="LAB", nargs="*", help="names of 'ipttrace lab list', or files"
    )
    parser.add_argument("--all", action="store_true", help="all labs that come with ipttrace")
    add_backend_argument(parser, default="each in turn")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="run so many at the same time; default 1"
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave them up, as 'lab up' does: NAME-BACKEND"
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show all evidence, and the ways of all probes"
    )
    parser.add_argument("--json", action="store_true", help="JSON Lines, schema ipttrace/1")
    parser.set_defaults(run=run, changes_host=True)


def add_backend_argument(parser: argparse.ArgumentParser, *, default: str) -> None:
    """Add the word that names a backend."""
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        help="load its rules with iptables-legacy, iptables-nft, or with both; "
        f"default: {default} that the lab names",
    )


def run(args: argparse.Namespace) -> int:
    """Run the labs and print what came of them; return the exit status."""
    from ipttrace.cli.printing import Printer
    from ipttrace.system import user_namespace

    chosen = _chosen(args)
    if user_namespace.enter_if_needed():
        output.note(user_namespace.NOTE)
    printer = Printer(json=args.json, verbose=args.verbose)
    one_lab = _is_one_lab(chosen)
    job = _Job(args, printer, alone=one_lab)
    runs: list[LabRun] = []
    for run in _in_turn(job, chosen) if args.jobs == 1 else _at_once(job, chosen, args.jobs):
        runs.append(run)
        if args.json:
            _print_record(run)
    _print_table(args, runs, one_lab=one_lab)
    if not all(each.as_expected for each in runs):
        if user_namespace.is_inside():
            output.note("some of that may be as expected for root, who has the kernel's events")
        return EXPECTATION_FAILED
    lost = any(probe.result.totals.lost_events for each in runs for probe in each.probes)
    return EVENTS_LOST if lost else 0


def _chosen(args: argparse.Namespace) -> list[tuple[Scenario, str]]:
    from ipttrace.lab.scenario import library, load_scenario

    if not 1 <= args.jobs <= MOST_JOBS:
        raise UsageError(f"cannot run {args.jobs} labs at the same time: from 1 to {MOST_JOBS}")
    if args.all == bool(args.labs):
        raise UsageError("cannot tell which labs to run", "Give their names, or --all.")
    scenarios = [load_scenario(name) for name in (library() if args.all else args.labs)]
    chosen = [
        (scenario, str(backend))
        for scenario in scenarios
        for backend in scenario.backends
        if args.backend in (None, backend)
    ]
    for scenario in () if args.all else scenarios:
        if args.backend is not None and args.backend not in scenario.backends:
            raise UsageError(
                f"cannot run lab {scenario.name} on {args.backend}: it is not made for it",
                f"Choose {' or '.join(scenario.backends)}.",
            )
    return chosen


def _is_one_lab(chosen: Chosen) -> bool:
    return len({id(scenario) for scenario, _ in chosen}) == 1


@dataclass(frozen=True, slots=True)
class _Job:
    """How each lab is run and shown."""

    args: argparse.Namespace
    printer: Printer
    alone: bool
    """It is the only lab: its ways are shown, and an error ends the command."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when the user wants to stop."""

    def run(self, scenario: Scenario, backend: str, tell: Tell) -> LabRun:
        """Run one lab on one backend; what goes wrong is in the result, if there are others."""
        from ipttrace.cli.lab_runs import run_scenario
        from ipttrace.lab.parts import LabBackend
        from ipttrace.lab.runner import LabRun

        try:
            return run_scenario(
                scenario,
                backend,
                tell=tell,
                note=output.note,
                cancelled=self.stop.is_set,
                keep=_kept_name(self.args, scenario, backend),
            )
        except IptTraceError as error:
            if self.alone or error.exit_code == INTERRUPTED:
                raise
            return LabRun(scenario, LabBackend(backend), (), error=str(error))

    def head(self, scenario: Scenario, backend: str) -> None:
        """Print what is before the ways of a lab's probes, if they are shown."""
        if self._shows:
            self.printer.heading(f"{scenario.title} ({backend})", level=1)

    def show(self, probe: ProbeRun) -> None:
        """Print the way of one probe, if it is shown."""
        if self._shows:
            self.printer.heading(f"{probe.probe.name}: {probe.probe.say}", level=2)
            self.printer.answer(probe.result)
            self.printer.summary(probe.result)

    @property
    def _shows(self) -> bool:
        return bool(self.alone or self.args.verbose or self.args.json)


def _in_turn(job: _Job, chosen: Chosen) -> Iterator[LabRun]:
    for number, (scenario, backend) in enumerate(chosen, 1):
        if not job.alone:
            output.note(f"[{number}/{len(chosen)}] {scenario.name} on {backend}")
        job.head(scenario, backend)
        yield job.run(scenario, backend, job.show)


def _at_once(job: _Job, chosen: Chosen, jobs: int) -> Iterator[LabRun]:
    """Yield the runs in the order asked for; the ways are shown when a run is at its end."""
    with ThreadPoolExecutor(jobs, thread_name_prefix="lab-run") as pool:
        futures = [
            pool.submit(job.run, scenario, backend, lambda _: None) for scenario, backend in chosen
        ]
        try:
            for number, (future, each) in enumerate(zip(futures, chosen, strict=True), 1):
                run = future.result()
                output.note(f"[{number}/{len(chosen)}] {each[0].name} on {each[1]}: done")
                job.head(*each)
                for probe in run.probes:
                    job.show(probe)
                yield run
        except BaseException:
            job.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _kept_name(args: argparse.Namespace, scenario: Scenario, backend: str) -> str | None:
    return f"{scenario.name}-{backend}" if args.keep else None


def _print_record(run: LabRun) -> None:
    from ipttrace.lab.records import run_record

    output.record(run_record(run))


def _print_table(args: argparse.Namespace, runs: Sequence[LabRun], *, one_lab: bool) -> None:
    from ipttrace.lab.run_table import lab_lines, probe_lines

    for warning in (warning for run in runs for warning in run.notices):
        output.note(warning)
    if args.json:
        return
    if one_lab:
        output.lines(["== in short", ""])
        output.lines(probe_lines(runs, color=output.color()))
    else:
        output.lines(lab_lines(runs, color=output.color()))
    if args.keep:
        names = ", ".join(f"{run.scenario.name}-{run.backend}" for run in runs)
        output.note(f"still up: {names}. Take them down with: ipttrace lab down NAME, or --all")
