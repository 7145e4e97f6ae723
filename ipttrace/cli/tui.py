"""`ipttrace tui`: the screen, over a probe or over a lab."""

from __future__ import annotations

import argparse
import sys

from ipttrace.cli.probe_arguments import add_arguments, spec_of
from ipttrace.errors import NotSupportedError, UsageError
from ipttrace.netfilter import Backend

DESCRIPTION = """\
Show packets and their ways on a full screen: the probe that the words describe, or a lab's."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "tui", help="show packets and their ways on a full screen", description=DESCRIPTION
    )
    add_arguments(parser, required=False)
    lab = parser.add_argument_group("a lab")
    lab.add_argument("--lab", metavar="LAB", help="a name of 'ipttrace lab list', or a file")
    lab.add_argument(
        "--backend", choices=[str(backend) for backend in Backend], help="the lab's rules"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Open the screen; return the exit status."""
    if (args.lab is None) == (args.protocol is None):
        raise UsageError(
            "cannot open the screen: it needs a probe or a lab to show",
            "Say for example: ipttrace tui --lab article-complete",
        )
    if args.protocol is not None and args.destination is None:
        raise UsageError(f"cannot send {args.protocol}: the destination is missing")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise NotSupportedError(
            "cannot open the screen: this is no terminal",
            "Use ipttrace probe or ipttrace lab run instead.",
        )
    from ipttrace.cli.feeds import LabFeed, ProbeFeed
    from ipttrace_tui.app import IptTraceApp

    feed: LabFeed | ProbeFeed
    if args.lab is not None:
        feed = LabFeed(args.lab, Backend(args.backend) if args.backend else None)
    else:
        feed = ProbeFeed(spec_of(args))
    error = IptTraceApp(feed, feed.title).run()
    if error is not None:
        raise error
    return 0
