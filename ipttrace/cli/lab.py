"""`ipttrace lab`: private namespaces with services, rules and probes, described in a file."""

from __future__ import annotations

import argparse

from ipttrace.cli import lab_list, lab_run, lab_snapshot, lab_twin, lab_up

COMMANDS = (lab_list, lab_run, lab_up, lab_snapshot, lab_twin)
"""Each adds its commands by `add_parser(subparsers)`."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "lab",
        help="labs: namespaces, services, rules and probes from a file",
        description="Labs are private namespaces with services, rules and probes, from a file. "
        "They touch nothing of the host and come down whatever happens.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add_parser(commands)
