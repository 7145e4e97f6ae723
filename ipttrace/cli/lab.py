"""`ipttrace lab`: private namespaces with services, rules and probes, described in a file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ipttrace.cli import lab_snapshot, lab_twin, output
from ipttrace.netfilter import Backend

if TYPE_CHECKING:
    from ipttrace.lab.runner import LabRun, ProbeRun

EXPECTATION_FAILED = 1
EVENTS_LOST = 4


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "lab",
        help="run a lab: namespaces, services, rules and probes from a file",
        description="Labs are private namespaces with services, rules and probes, from a file. "
        "They touch nothing of the host and come down whatever happens.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    runner = commands.add_parser("run", help="build it, send its probes, compare, take it down")
    add_lab_argument(runner)
    runner.add_argument(
        "-v", "--verbose", action="store_true", help="show all evidence, not only the strongest"
    )
    runner.add_argument("--json", action="store_true", help="JSON Lines, schema ipttrace/1")
    runner.set_defaults(run=run, changes_host=True)
    lister = commands.add_parser("list", help="the labs that come with ipttrace")
    lister.set_defaults(run=run_list)
    lab_snapshot.add_parser(commands)
    lab_twin.add_parser(commands)


def add_lab_argument(parser: argparse.ArgumentParser) -> None:
    """Add the words that name a lab and its backend."""
    parser.add_argument("lab", metavar="LAB", help="a name of 'ipttrace lab list', or a file")
    parser.add_argument(
        "--backend",
        choices=[str(backend) for backend in Backend],
        help="build its rules with iptables-legacy or iptables-nft; default: each in turn",
    )


def run_list(_: argparse.Namespace) -> int:
    """Print the labs that come with the program."""
    from ipttrace.lab.scenario import library, load_scenario

    output.lines(f"{name:20} {load_scenario(name).title}" for name in library())
    return 0


def run(args: argparse.Namespace) -> int:
    """Run the lab on each backend and print each probe's way; return the exit status."""
    from ipttrace.cli.lab_runs import run_scenario
    from ipttrace.cli.printing import Printer
    from ipttrace.lab.scenario import load_scenario
    from ipttrace.system.capabilities import require_privilege

    scenario = load_scenario(args.lab)
    require_privilege()
    printer = Printer(json=args.json, verbose=args.verbose)
    backends = (Backend(args.backend),) if args.backend else scenario.backends
    runs: list[LabRun] = []
    for backend in backends:
        printer.heading(f"{scenario.title} ({backend})", level=1)

        def tell(probe: ProbeRun) -> None:
            printer.heading(f"{probe.probe.name}: {probe.probe.say}", level=2)
            printer.answer(probe.result)
            printer.summary(probe.result)

        runs.append(run_scenario(scenario, backend, tell=tell, note=output.note))
    printer.labs(runs)
    if not all(each.as_expected for each in runs):
        return EXPECTATION_FAILED
    lost = any(probe.result.totals.lost_events for each in runs for probe in each.probes)
    return EVENTS_LOST if lost else 0
