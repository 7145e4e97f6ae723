"""`ipttrace lab list` and `lab show`: what labs there are, and what is in one."""

from __future__ import annotations

import argparse

from ipttrace.cli import output
from ipttrace.errors import IptTraceError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both commands."""
    lister = subparsers.add_parser(
        "list",
        help="the labs that come with ipttrace",
        description="List the labs that come with ipttrace, and how many of the claims of the "
        "recipes they are made from are true, half true or false on the real kernel.",
    )
    lister.add_argument("--claims", action="store_true", help="the table of all claims")
    lister.add_argument("--json", action="store_true", help="JSON Lines, schema ipttrace/1")
    lister.set_defaults(run=run_list)
    shower = subparsers.add_parser(
        "show",
        help="the topology, the rules, the claims and the probes of a lab",
        description="Show a lab without building it: its topology and the way of each probe, its "
        "rules, what its recipe claims, and what is expected.",
    )
    shower.add_argument("lab", metavar="LAB", help="a name of 'ipttrace lab list', or a file")
    shower.add_argument("--json", action="store_true", help="JSON Lines, schema ipttrace/1")
    shower.set_defaults(run=run_show)


def run_list(args: argparse.Namespace) -> int:
    """Print the labs that come with the program."""
    from ipttrace.lab.listing import claims_lines, list_lines
    from ipttrace.lab.records import lab_record
    from ipttrace.lab.scenario import library, load_scenario

    scenarios = [load_scenario(name) for name in library()]
    up = _up()
    if args.json:
        for scenario in scenarios:
            output.record(lab_record(scenario, up=scenario.name in up))
        return 0
    width, color = output.width(), output.color()
    if args.claims:
        output.lines(claims_lines(scenarios, width=width, color=color))
        return 0
    output.lines(list_lines(scenarios, up, width=width, color=color))
    if up:
        output.lines(["", "up now:", *(f"  {line}" for line in up.values())])
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Print one lab."""
    from ipttrace.lab.listing import show_lines
    from ipttrace.lab.records import lab_record
    from ipttrace.lab.scenario import load_scenario

    scenario = load_scenario(args.lab)
    if args.json:
        output.record(lab_record(scenario, up=scenario.name in _up()))
        return 0
    output.lines(show_lines(scenario, width=output.width(), color=output.color()))
    return 0


def _up() -> dict[str, str]:
    """Return the labs that stay up, by name, each as a line."""
    from ipttrace.decode.text import clean_text
    from ipttrace.system import lab_records

    try:
        records = lab_records.records()
    except IptTraceError as error:
        output.error(error)
        return {}
    return {
        record.name: clean_text(
            f"{record.name} ({record.backend}): {' '.join(record.namespaces.values())}"
        )
        for record in records
        if record.stays and not record.is_left
    }
