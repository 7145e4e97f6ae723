"""`ipttrace tui`: the screen, over a probe or over a lab."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ipttrace.cli.probe_arguments import add_arguments, spec_of
from ipttrace.errors import NotSupportedError, UsageError

if TYPE_CHECKING:
    from ipttrace.cli.workbench import HostWorkbench
    from ipttrace_tui.feed import Feed

DESCRIPTION = """\
Show packets and their ways on a full screen: the probe that the words describe, a lab's, or what is
sent and started from the screen itself.  ~/.config/ipttrace/config.toml may set theme, layout
(auto, narrow, normal, wide), trigger (auto, raw, owner) and limit ("20/s", "none")."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "tui", help="show packets and their ways on a full screen", description=DESCRIPTION
    )
    add_arguments(parser, required=False)
    lab = parser.add_argument_group("a lab")
    lab.add_argument("--lab", metavar="LAB", help="a name of 'ipttrace lab list', or a file")
    lab.add_argument("--backend", choices=("legacy", "nft", "both"), help="the lab's rules")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Open the screen; return the exit status."""
    if args.lab is not None and args.protocol is not None:
        raise UsageError("cannot show a lab and a probe at once", "Give one of them.")
    if args.protocol is not None and args.destination is None:
        raise UsageError(f"cannot send {args.protocol}: the destination is missing")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise NotSupportedError(
            "cannot open the screen: this is no terminal",
            "Use ipttrace probe or ipttrace lab run instead.",
        )
    from ipttrace.cli.workbench import HostWorkbench
    from ipttrace_tui.app import IptTraceApp
    from ipttrace_tui.settings import load_settings

    settings, notices = load_settings()
    bench = HostWorkbench()
    feed, title = _first_run(args, bench, settings.trigger)
    error = IptTraceApp(feed, title, bench, settings, notices).run()
    if error is not None:
        raise error
    return 0


def _first_run(
    args: argparse.Namespace, bench: HostWorkbench, trigger: str
) -> tuple[Feed | None, str]:
    """Return what is run as the screen opens, and its title."""
    from ipttrace.cli.feeds import ProbeFeed
    from ipttrace.lab.parts import LabBackend
    from ipttrace.lab.scenario import load_scenario

    if args.lab is not None:
        backend = LabBackend(args.backend) if args.backend else load_scenario(args.lab).backends[0]
        return bench.lab(args.lab, backend), f"lab {args.lab}, {backend}"
    if args.protocol is None:
        return None, "nothing traced yet"
    if args.trigger is None and trigger != "auto":
        args.trigger = trigger
    feed = ProbeFeed(spec_of(args))
    return feed, feed.title
