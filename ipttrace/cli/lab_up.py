"""`ipttrace lab up`, `lab down` and `lab shell`: a lab that stays, and the way into it."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from ipttrace.cli import output
from ipttrace.cli.lab_run import add_backend_argument
from ipttrace.errors import UsageError

if TYPE_CHECKING:
    from ipttrace.lab.topology import Topology
    from ipttrace.system.lab_builder import Lab

UP_PREFIX = "lab"
"""Its namespaces are called `lab-NAME-NAMESPACE`."""
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}\Z")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the three commands."""
    up = subparsers.add_parser(
        "up",
        help="build a lab and leave it up",
        description="Build a lab and leave it up, until 'lab down'. Its namespaces are in "
        "'ip netns list', as lab-NAME-NAMESPACE.",
    )
    up.add_argument("lab", metavar="LAB", help="a name of 'ipttrace lab list', or a file")
    add_backend_argument(up, default="the first one")
    up.add_argument("--name", help="what to call it; default: the lab's own name")
    up.add_argument("--json", action="store_true", help="JSON Lines, schema ipttrace/1")
    up.set_defaults(run=run_up, changes_host=True)
    down = subparsers.add_parser(
        "down",
        help="take a lab down that was left up",
        description="Take labs down that were left up, with all that is in them.",
    )
    down.add_argument("names", metavar="NAME", nargs="*", help="what it was called by 'lab up'")
    down.add_argument("--all", action="store_true", help="all labs that are up")
    down.set_defaults(run=run_down)
    shell = subparsers.add_parser(
        "shell",
        help="a shell, or a command, in a namespace of a lab that is up",
        usage="ipttrace lab shell [-h] NAME [NAMESPACE] [-- COMMAND ...]",
        description="Start a shell, or a command with its arguments as they are, in a namespace of "
        "a lab that is up.",
    )
    shell.add_argument(
        "shell_words",
        metavar="NAME [NAMESPACE] [-- COMMAND ...]",
        nargs=argparse.PARSER,
        help="what the lab was called by 'lab up'; the lab's own name of the namespace, by default "
        "its first one; and what to run there",
    )
    shell.set_defaults(run=run_shell)


def run_up(args: argparse.Namespace) -> int:
    """Build a lab and leave it up."""
    from ipttrace.lab.records import up_record
    from ipttrace.lab.scenario import load_scenario

    scenario = load_scenario(args.lab)
    backend = args.backend or str(scenario.backends[0])
    lab = leave_up(scenario.topology, backend, args.name or scenario.name, title=scenario.title)
    if args.json:
        output.record(up_record(lab.name, backend, scenario.topology, lab.namespaces))
    else:
        output.lines(up_lines(lab, backend))
    return 0


def leave_up(topology: Topology, backend: str, name: str, *, title: str = "") -> Lab:
    """Build a topology that stays up as `name`; raises UsageError if there is one of that name.

    Without privilege it is built in a user namespace.
    """
    from ipttrace.system import user_namespace
    from ipttrace.system.lab_builder import LabBuilder

    if not NAME.match(name):
        raise UsageError(
            f"cannot call a lab {name!r}", "Use up to 40 lower-case letters, digits and '-'."
        )
    if user_namespace.enter_if_needed():
        output.note(user_namespace.NOTE)
    lab = LabBuilder(UP_PREFIX, name=name, title=title, note=output.note).up(topology, backend)
    try:
        lab.keep()
    except BaseException:
        lab.down()
        raise
    return lab


def up_lines(lab: Lab, backend: str) -> list[str]:
    """Return what a user wants to know of a lab that was brought up."""
    from ipttrace.lab.listing import topology_lines
    from ipttrace.system import user_namespace

    names = max(len(name) for name in lab.namespaces)
    first = next(iter(lab.namespaces))
    way_in = f"ipttrace lab shell {lab.name}"
    probe = f"ipttrace probe --netns {lab.namespaces[first]} ..."
    if user_namespace.is_inside():
        probe = f"{way_in} {first} -- ipttrace probe ..."
    return [
        f"lab {lab.name} is up ({backend})",
        "",
        *topology_lines(lab.topology, width=output.width()),
        "",
        *(f"  {name:{names}}  netns {real}" for name, real in lab.namespaces.items()),
        "",
        f"  go in:     {way_in} {first}",
        f"  probe it:  {probe}",
        f"  take down: ipttrace lab down {lab.name}",
    ]


def run_down(args: argparse.Namespace) -> int:
    """Take labs down."""
    from ipttrace.system import lab_records

    if args.all == bool(args.names):
        raise UsageError("cannot tell which labs to take down", "Give their names, or --all.")
    for line in lab_records.sweep():
        output.note(f"removed {line}")
    staying = [record for record in lab_records.records() if record.stays]
    chosen = staying if args.all else [lab_records.find(name) for name in dict.fromkeys(args.names)]
    for record in chosen:
        for warning in lab_records.take_down(record):
            output.note(warning)
        output.lines([f"lab {record.name} is down"])
    if not chosen:
        output.note("no lab is up")
    return 0


def run_shell(args: argparse.Namespace) -> int:
    """Become a shell or a command in a namespace; returns only if that fails."""
    from ipttrace.system import lab_records, lab_shell

    name, *rest = args.shell_words
    namespace, command = split_rest(rest)
    record = lab_records.find(name)
    if namespace is None:
        namespace, *others = record.namespaces
        if others and not command:
            output.note(f"in namespace {namespace}; there are also {', '.join(others)}")
    if namespace not in record.namespaces:
        raise UsageError(
            f"lab {record.name} has no namespace {namespace!r}",
            f"There are {', '.join(record.namespaces)}.",
        )
    lab_shell.become(record, namespace, command)
    return 0


def split_rest(rest: list[str]) -> tuple[str | None, list[str]]:
    """Return the namespace and the command of `[NAMESPACE] [-- COMMAND ...]`; raises UsageError."""
    namespace = None
    if rest and rest[0] != "--":
        namespace, *rest = rest
    if rest and rest[0] != "--":
        raise UsageError(f"cannot tell what {rest[0]!r} is", "Write -- before the command.")
    if rest == ["--"]:
        raise UsageError("the command after -- is missing")
    return namespace, rest[1:]
