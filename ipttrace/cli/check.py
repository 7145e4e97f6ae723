"""`ipttrace check`: probes with expectations, against labs, twins or this very host."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ipttrace.cli import output

if TYPE_CHECKING:
    from ipttrace.checks import Case
    from ipttrace.lab.check_file import Check

EXPECTATION_FAILED = 1
USAGE = 2
EVENTS_LOST = 4

DESCRIPTION = """\
Send the probes of each FILE, compare what becomes of them with what the file expects, and show
expected and actual way side by side where they part.  FILE is a lab, or names what is probed by
'lab: NAME', 'twin: SNAPSHOT' or 'live: true'.  A live host is not changed but for the trace, and an
injected packet does not leave it; a probe without 'in' is a real client's."""

EXAMPLES = """\
examples:
  ipttrace check article-complete
  ipttrace check --junit report.xml --coverage firewall.yaml

a live check:
  live: true
  probes:
    - {name: https is open, send: "tcp 198.51.100.1:443", in: eth0, expect: {outcome: delivered}}"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "check",
        help="send the probes of files and compare with what they expect, for CI",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="or a name of 'ipttrace lab list'")
    parser.add_argument(
        "--backend",
        choices=("legacy", "nft", "both"),
        help="of labs and twins; default: each of the file's",
    )
    parser.add_argument("--junit", metavar="FILE", help="write the cases as JUnit XML, too")
    parser.add_argument(
        "--coverage", action="store_true", help="list the rules that no probe met, by number"
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show the ways that are as expected, too"
    )
    parser.add_argument("--json", action="store_true", help="JSON Lines, schema ipttrace/1")
    parser.set_defaults(run=run, changes_host=True)


def run(args: argparse.Namespace) -> int:
    """Run all files, whatever comes of each; return the exit status."""
    from ipttrace.cli.check_printing import CheckPrinter
    from ipttrace.cli.check_stage import open_stage
    from ipttrace.lab.check_file import load_check
    from ipttrace.lab.checking import run_check

    checks = [load_check(file) for file in args.files]
    if args.junit is not None:
        from ipttrace.system.whole_files import check_writable

        check_writable(args.junit)
    _ensure_privilege(checks)
    printer = CheckPrinter(json=args.json, verbose=args.verbose)
    stage = open_stage(coverage=args.coverage, note=output.note)
    cases: list[Case] = []
    seconds: dict[str, float] = {}
    for check in checks:
        output.note(_progress(check, args.backend))
        began = time.monotonic()
        cases += run_check(check, args.backend, stage, printer.case)
        seconds[check.file] = seconds.get(check.file, 0.0) + time.monotonic() - began
    printer.table(cases, seconds)
    if args.coverage:
        printer.coverage(list(stage.covered()))
    if args.junit is not None:
        from ipttrace.render.junit import junit_xml
        from ipttrace.system.whole_files import write_whole

        write_whole(args.junit, junit_xml(cases))
    return exit_status(cases)


def _ensure_privilege(checks: Sequence[Check]) -> None:
    """Make sure that we may build and trace; without root labs and twins can be built all the same.

    A live host is left for an empty network by that: there root is needed.
    """
    if any(check.live for check in checks):
        from ipttrace.system.capabilities import require_privilege

        require_privilege()
        return
    from ipttrace.system import user_namespace

    if user_namespace.enter_if_needed("check"):
        output.note(user_namespace.NOTE)


def _progress(check: Check, backend: str | None) -> str:
    if check.live:
        ignored = f", whatever --backend {backend} says" if backend else ""
        return f"checking {check.file} against this host{ignored}"
    runs = backend or " and ".join(check.backends)
    return f"checking {check.file}" + (f" on {runs}" if runs else "")


def exit_status(cases: Sequence[Case]) -> int:
    """Return 1 if anything was not as expected, else what an error says, else 4 if events are lost.

    A check that ran nothing has not passed: its status is 2.
    """
    from ipttrace.checks import State

    if any(case.state is State.FAILED for case in cases):
        return EXPECTATION_FAILED
    errors = [case.exit_code for case in cases if case.state is State.ERROR]
    if errors:
        return errors[0]
    if not any(case.state is State.PASSED for case in cases):
        output.note("nothing was checked: every case was skipped")
        return USAGE
    return EVENTS_LOST if any(case.lost for case in cases) else 0
