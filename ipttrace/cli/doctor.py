"""`ipttrace doctor`: what stands in the way of a trace, and what to do about it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ipttrace.cli import output
from ipttrace.cli.once import Once

if TYPE_CHECKING:
    from ipttrace.checkup.facts import Facts


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand and its options."""
    parser = subparsers.add_parser(
        "doctor",
        help="say what stands in the way of a trace here, and what to do",
        description=(
            "Look at the kernel, the programs, the rules and the settings that decide what a trace"
            " can show; say of each whether it is ok, and what to do if not. Needs no root, and"
            " changes nothing: no table is made, no module loaded."
        ),
    )
    parser.add_argument(
        "--netns",
        action=Once,
        metavar="NETNS",
        help="look in this namespace (a name, a path, a pid or a container's id)",
    )
    parser.add_argument("--json", action="store_true", help="JSON Lines, schema ipttrace/1")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the findings; problems are results, so the status is 0."""
    from ipttrace.system.facts import read_facts
    from ipttrace.system.namespaces import find_namespace

    show(args, read_facts(find_namespace(args.netns)))
    return 0


def show(args: argparse.Namespace, facts: Facts) -> None:
    """Print what the facts mean."""
    from ipttrace.checkup.examine import examine

    findings = examine(facts)
    if args.json:
        from ipttrace.render.records import finding_record

        for finding in findings:
            output.record(finding_record(args.netns, finding))
        return
    from ipttrace.render.checkup_table import checkup_lines

    output.lines(checkup_lines(findings, width=output.width(), color=output.color()))
