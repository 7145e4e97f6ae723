"""`ipttrace probe`: send a test packet, and show the way it takes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ipttrace.cli import output, writing
from ipttrace.cli.probe_arguments import add_arguments, spec_of
from ipttrace.errors import UsageError

if TYPE_CHECKING:
    from ipttrace.result import TraceResult

EXPECTATION_FAILED = 1
EVENTS_LOST = 4

DESCRIPTION = """\
Send one test packet and show every table, chain and rule that it meets, what they change, and
where it ends.  With --in the packet is injected as if it had come in on that interface; it and its
answers do not leave this host.  Without --in and --from a real client on this host sends it."""

EXAMPLES = """\
examples:
  ipttrace probe --in eth0 --src 203.0.113.7 tcp 198.51.100.1:443
  ipttrace probe tcp 127.0.0.1:8445
  ipttrace probe --write report.html tcp 127.0.0.1:8445
  ipttrace probe --netns web --from client --expect delivered udp 198.51.100.1:53"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "probe",
        help="send a test packet and show the way it takes",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.add_argument(
        "--expect", metavar="WORD", help="exit 1 unless the outcome or the cause is WORD"
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show all evidence, not only the strongest"
    )
    parser.add_argument("--json", action="store_true", help="JSON Lines, schema ipttrace/1")
    writing.add_arguments(parser)
    parser.set_defaults(run=run, changes_host=True)


def run(args: argparse.Namespace) -> int:
    """Trace the probe and print it; return the exit status."""
    spec = spec_of(args)
    _check_expectation(spec.expect)
    from ipttrace.cli.compose import trace_probe
    from ipttrace.cli.printing import Printer, meets_expectation

    file = writing.open_file(args)
    printer = Printer(json=args.json, verbose=args.verbose)

    def answer(result: TraceResult) -> None:
        with output.unless_closed():
            printer.answer(result)

    result = trace_probe(spec, answer=answer, note=output.note, hint=output.note)
    with output.unless_closed():
        printer.summary(result)
    file.finish(result)
    if spec.expect is not None and not meets_expectation(spec.expect, result):
        output.note(f"expected {spec.expect}, which is not what happened")
        return EXPECTATION_FAILED
    if file.failed:
        return writing.WRITE_FAILED
    return EVENTS_LOST if result.totals.lost_events else 0


def _check_expectation(word: str | None) -> None:
    from ipttrace.diagnose.catalogue import EXPECTABLE

    if word is not None and word not in EXPECTABLE:
        raise UsageError(
            f"cannot expect {word!r}: it is neither an outcome nor a cause",
            f"Known are {', '.join(sorted(EXPECTABLE))}.",
        )
