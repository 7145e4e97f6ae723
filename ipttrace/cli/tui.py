"""`ipttrace tui`: the screen, over a probe or over a lab."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ipttrace.cli.probe_arguments import add_arguments, spec_of
from ipttrace.cli.watch import DEFAULT_LIMIT, limit
from ipttrace.errors import NotSupportedError, UsageError
from ipttrace.request import Trigger

if TYPE_CHECKING:
    from ipttrace.cli.workbench import HostWorkbench
    from ipttrace_tui.feed import Feed
    from ipttrace_tui.settings import Settings

DESCRIPTION = """\
Show packets and their ways on a full screen: the probe that the words describe, a lab's, live
packets as they come (--watch), or what is sent and started from the screen itself.
~/.config/ipttrace/config.toml may set theme, layout (auto, narrow, normal, wide), trigger (auto,
raw, owner) and limit ("20/s", "none")."""

EXAMPLES = """\
examples:
  ipttrace tui
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
    lab.add_argument("--backend", choices=("legacy", "nft", "both"), help="the lab's rules")
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
        default=argparse.SUPPRESS,
        help=f"trace at most N packets a second, or 'none'; default {DEFAULT_LIMIT}/s",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Open the screen; return the exit status."""
    if sum(each is not None for each in (args.lab, args.protocol, args.watch)) > 1:
        raise UsageError(
            "cannot open the screen: it shows a probe, a lab or --watch, and one of them only",
            "Say for example: ipttrace tui --lab article-complete",
        )
    if args.protocol is not None and args.destination is None:
        raise UsageError(f"cannot send {args.protocol}: the destination is missing")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise NotSupportedError(
            "cannot open the screen: this is no terminal",
            "Use ipttrace probe or ipttrace lab run instead.",
        )
    from ipttrace.cli.workbench import HostWorkbench
    from ipttrace.system import user_namespace
    from ipttrace_tui.app import IptTraceApp
    from ipttrace_tui.settings import load_settings

    settings, notices = load_settings()
    if args.lab is not None and user_namespace.enter_if_needed():
        notices = (*notices, user_namespace.NOTE)
    bench = HostWorkbench()
    feed, title = _first_run(args, bench, settings)
    error = IptTraceApp(feed, title, bench, settings, notices).run()
    if error is not None:
        raise error
    return 0


def _first_run(
    args: argparse.Namespace, bench: HostWorkbench, settings: Settings
) -> tuple[Feed | None, str]:
    """Return what is run as the screen opens, and its title."""
    from ipttrace.cli.feeds import ProbeFeed, WatchFeed
    from ipttrace.cli.watch_request import Watch

    if args.lab is not None:
        return _lab(args, bench)
    if args.trigger is None and settings.trigger != "auto":
        args.trigger = settings.trigger
    if args.watch is not None:
        trigger = Trigger(args.trigger) if args.trigger else Trigger.RAW
        most = getattr(args, "limit", settings.limit)
        watching = WatchFeed(Watch(args.watch, tuple(args.netns), trigger, most, None, None))
        return watching, watching.title
    if args.protocol is None:
        return None, "nothing traced yet"
    feed = ProbeFeed(spec_of(args))
    return feed, feed.title


def _lab(args: argparse.Namespace, bench: HostWorkbench) -> tuple[Feed, str]:
    """Return a lab's feed and its title; raises UsageError where its file cannot be used."""
    from ipttrace.lab.parts import LabBackend
    from ipttrace.lab.scenario import load_scenario

    made_for = load_scenario(args.lab).backends
    backend = LabBackend(args.backend) if args.backend else made_for[0]
    return bench.lab(args.lab, backend), f"lab {args.lab}, {backend}"
