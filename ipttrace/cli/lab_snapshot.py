"""`ipttrace lab snapshot`: write down what a host's firewall is made of."""

from __future__ import annotations

import argparse

from ipttrace.cli import output
from ipttrace.cli.once import Once

PRIVATE = 0o600
"""It says what a firewall lets through."""

DESCRIPTION = """\
Read the rules of both backends with their counters, ipsets, interfaces, addresses, routes, routing
rules, the settings that matter and the listening sockets, and write them as JSON.  Nothing is
changed.  'ipttrace lab twin' builds a namespace from it, on any machine."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "snapshot",
        help="write down this host's rules, addresses, routes, settings and services",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="with mode 0600, whole or not at all; default stdout"
    )
    parser.add_argument("--netns", action=Once, metavar="NETNS", help="of another namespace")
    parser.add_argument(
        "--one-liner",
        action="store_true",
        help="print the line of shell that does it where ipttrace is not installed",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the snapshot; return the exit status."""
    from ipttrace.lab.holdings import held
    from ipttrace.lab.snapshot_file import encode_snapshot, one_liner

    if args.one_liner:
        output.lines([one_liner()])
        return 0
    from ipttrace.system.capabilities import require_privilege
    from ipttrace.system.clock import SystemClock
    from ipttrace.system.host_state import read_host
    from ipttrace.system.namespaces import find_namespace
    from ipttrace.system.whole_files import check_writable, write_whole

    if args.output is not None:
        check_writable(args.output)

    namespace = find_namespace(args.netns)
    require_privilege(aim="read rules")
    snapshot = read_host(namespace, SystemClock().now())
    content = encode_snapshot(snapshot)
    for problem in snapshot.unread:
        output.note(f"not read: {problem}")
    if args.output is None:
        output.record(content.rstrip(b"\n"))
        return 0
    write_whole(args.output, content, PRIVATE)
    output.note(f"{args.output}: {', '.join(held(snapshot))}")
    return 0
