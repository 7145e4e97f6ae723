"""`ipttrace tui`: the screen, over a probe or over a lab."""

from __future__ import annotations

import argparse
import sys

from ipttrace.cli.probe_arguments import add_arguments, spec_of
from ipttrace.cli.watch import DEFAULT_LIMIT, limit
from ipttrace.errors import NotSupportedError, UsageError
from ipttrace.netfilter import Backend
from ipttrace.ports import Trigger

DESCRIPTION = """\
Show packets and their ways on a full screen: the probe that the words describe, a lab's, or live
packets as they come (--watch)."""

EXAMPLES = """\
examples:
  ipttrace tui --in eth0 tcp 198.51.100.1:8443
  ipttrace tui --lab article-complete
  ipttrace tui --watch 'tcp port 443' --limit 50/s
  ipttrace tui --watch --netns web"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "tui",
        help="show packets and their ways on a full screen",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser, required=False)
    lab = parser.add_argument_group("a lab")
    lab.add_argument("--lab", metavar="LAB", help="a name of 'ipttrace lab list', or a file")
    lab.add_argument(
        "--backend", choices=[str(backend) for backend in Backend], help="the lab's rules"
    )
    live = parser.add_argument_group("live packets")
    live.add_argument(
        "--watch",
        metavar="PCAP-FILTER",
        nargs="?",
        const="",
        help="show live packets that the filter takes, as tcpdump has it; default: all",
    )
    live.add_argument(
        "--limit",
        metavar="N/s",
        type=limit,
        default=DEFAULT_LIMIT,
        help=f"trace at most N packets a second, or 'none'; default {DEFAULT_LIMIT}/s",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Open the screen; return the exit status."""
    if sum(each is not None for each in (args.lab, args.protocol, args.watch)) != 1:
        raise UsageError(
            "cannot open the screen: it needs a probe, a lab or --watch, and one of them only",
            "Say for example: ipttrace tui --lab article-complete",
        )
    if args.protocol is not None and args.destination is None:
        raise UsageError(f"cannot send {args.protocol}: the destination is missing")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise NotSupportedError(
            "cannot open the screen: this is no terminal",
            "Use ipttrace probe or ipttrace lab run instead.",
        )
    from ipttrace.cli.feeds import LabFeed, ProbeFeed, WatchFeed
    from ipttrace_tui.app import IptTraceApp

    feed: LabFeed | ProbeFeed | WatchFeed
    if args.watch is not None:
        from ipttrace.cli.watch_request import Watch

        trigger = Trigger(args.trigger) if args.trigger else Trigger.RAW
        wanted = Watch(args.watch, tuple(args.netns), trigger, args.limit, None, None)
        feed = WatchFeed(wanted)
    elif args.lab is not None:
        feed = LabFeed(args.lab, Backend(args.backend) if args.backend else None)
    else:
        feed = ProbeFeed(spec_of(args))
    error = IptTraceApp(feed, feed.title).run()
    if error is not None:
        raise error
    return 0
