"""`ipttrace watch`: show the ways of live packets."""

from __future__ import annotations

import argparse
import re

from ipttrace.cli import output, writing
from ipttrace.cli.probe_arguments import NAMESPACE, TRIGGER
from ipttrace.errors import UsageError
from ipttrace.request import Trigger

TYPE_CHECKING = False  # typing's own costs 5 ms to import
if TYPE_CHECKING:
    from ipttrace.watch import WatchSession

EVENTS_LOST = 4
INTERRUPTED = 130
DEFAULT_LIMIT = 20
DEFAULT_SECONDS = 60.0
LEGS = (
    "each packet is shown in every namespace that it met, one line after the other in the order of "
    "its way; .. stands for the time of the line before"
)
LEGS_AT_LENGTH = "each packet is shown in every namespace that it met, in the order of its way"
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

DESCRIPTION = """\
Show the ways of live packets that a filter matches, and of the answers to them, one line a packet.
The filter is a pcap filter as tcpdump has it: 'tcp port 443 and host 198.51.100.2'.
Times are those at which a packet's first report was read, numbers count in that order; of several
namespaces the legs of one packet stand together, in the order in which it went them."""

EXAMPLES = """\
examples:
  ipttrace watch 'tcp dst port 8443' --for 30s
  ipttrace watch -v --count 5 icmp
  ipttrace watch --netns web --limit none --json 'udp port 53'"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "watch",
        help="show the ways of live packets",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "filter", metavar="PCAP-FILTER", nargs="*", help="as tcpdump has it; default: all packets"
    )
    parser.add_argument(
        "--netns",
        action="append",
        default=[],
        help=f"watch in NETNS: {NAMESPACE}; default: here; may be repeated",
    )
    parser.add_argument(
        "--trigger",
        choices=[str(each) for each in Trigger],
        default="raw",
        help=TRIGGER,
    )
    parser.add_argument(
        "--limit",
        metavar="N/s",
        type=limit,
        default=DEFAULT_LIMIT,
        help=f"trace at most N packets a second, or 'none'; default {DEFAULT_LIMIT}/s",
    )
    parser.add_argument("--count", type=int, metavar="N", help="end after N packets")
    parser.add_argument(
        "--for",
        dest="seconds",
        metavar="TIME",
        type=_seconds,
        default=DEFAULT_SECONDS,
        help="end after 30s, 5m, 2h or 1d; default 60s",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show each packet's hops")
    parser.add_argument("--json", action="store_true", help="JSON Lines, schema ipttrace/1")
    writing.add_arguments(parser)
    parser.set_defaults(run=run, changes_host=True)


def run(args: argparse.Namespace) -> int:
    """Watch until a limit or Ctrl-C; return the exit status."""
    if args.count is not None and args.count < 1:
        raise UsageError(f"cannot end after {args.count} packets: not a number from 1")
    from ipttrace.cli.printing import PacketPrinter
    from ipttrace.cli.watching import Watch, watch
    from ipttrace.system import capabilities

    capabilities.require_privilege()
    file = writing.open_file(args, stream=True)
    request = Watch(
        filter_text=" ".join(args.filter),
        netns=tuple(args.netns),
        trigger=Trigger(args.trigger),
        limit=args.limit,
        packets=args.count,
        seconds=args.seconds,
    )
    several = len(args.netns) > 1
    printer = PacketPrinter(json=args.json, verbose=args.verbose, file=file, several=several)

    def explain(_: WatchSession) -> None:
        if several and not args.json:
            output.note(LEGS_AT_LENGTH if args.verbose else LEGS)

    result, interrupted = watch(request, give=printer.packet, note=output.note, begun=explain)
    printer.summary(result)
    if interrupted and not printer.unread:
        return INTERRUPTED
    if file.failed:
        return writing.WRITE_FAILED
    return EVENTS_LOST if result.totals.lost_events else 0


def limit(text: str) -> int | None:
    """Return packets a second of `20/s`, `20`, or None for `none`."""
    if text == "none":
        return None
    found = re.fullmatch(r"(\d{1,6})(/s|/second)?", text)
    if found is None or int(found[1]) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not 20/s, or none")
    return int(found[1])


def _seconds(text: str) -> float:
    """Return the seconds of `30s`, `5m`, `2h`, `1d` or `30`."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([smhd]?)", text)
    if found is None or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not 30s, 5m, 2h or 1d")
    return float(found[1]) * UNITS[found[2]]
