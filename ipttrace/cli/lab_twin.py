"""`ipttrace lab twin`: somebody else's firewall on this kernel, in a namespace of its own."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from ipttrace.cli import output
from ipttrace.cli.lab_up import leave_up
from ipttrace.cli.probe_arguments import add_arguments, spec_of
from ipttrace.decode.text import clean_text
from ipttrace.errors import UsageError
from ipttrace.probe import ProbeSpec

if TYPE_CHECKING:
    from ipttrace.lab.topology import Topology
    from ipttrace.system.lab_builder import Lab
    from ipttrace.system.twins import Twin

EVENTS_LOST = 4
TWIN = "twin"
"""The namespace that stands for the host."""
BACKENDS = ("legacy", "nft", "as-is")
NO_NAME = re.compile(r"[^a-z0-9-]+")
LONGEST_NAME = 20
SHOWN = 20
"""Addresses of an interface, and services, that are listed."""

DESCRIPTION = """\
Build a namespace with the interfaces, addresses, routes, rules and settings of a host, and with
listeners in place of its services.  FILE is a snapshot of 'ipttrace lab snapshot', the text of its
--one-liner, or a file of iptables-save: then interfaces and addresses are concluded from the rules.
What could not be reproduced is listed; a rule that is not taken here leaves an empty one in its
place, so that the numbers of the others stay.  Without --probe it stays up."""

EXAMPLES = """\
examples:
  ipttrace lab twin host.json --name web
  ipttrace lab twin rules.v4 --probe 'tcp 192.0.2.1:22 --in eth0' --probe 'icmp 192.0.2.1'"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "twin",
        help="build a namespace from a snapshot or an iptables-save file",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="a snapshot, or a file of iptables-save")
    parser.add_argument("--name", metavar="NAME", help="what it is called; default: as FILE")
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="as-is",
        help="where rules of iptables go; default as-is: where they were",
    )
    parser.add_argument(
        "--probe",
        action="append",
        default=[],
        metavar="WORDS",
        help="send a probe, in the words of 'ipttrace probe', and take the twin down at the end;"
        " may be repeated",
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show all evidence, not only the strongest"
    )
    parser.add_argument("--json", action="store_true", help="JSON Lines, schema ipttrace/1")
    parser.set_defaults(run=run, changes_host=True)


def run(args: argparse.Namespace) -> int:
    """Build the twin, and probe it or leave it up; return the exit status."""
    specs = [probe_of(words) for words in args.probe]
    name = _name(args.name, args.file)
    from ipttrace.system import user_namespace
    from ipttrace.system.twins import read_twin

    if user_namespace.enter_if_needed():
        output.note(user_namespace.NOTE)
    twin = read_twin(args.file, args.backend)
    if not specs:
        return _leave_up(twin, name, args)
    from ipttrace.system.lab_builder import LabBuilder

    lab = LabBuilder(title=_title(args)).up(twin.topology, twin.backend)
    try:
        _tell(twin, args)
        return _probe(specs, lab.namespaces[TWIN], name, args)
    finally:
        for warning in lab.down():
            output.note(warning)


def _leave_up(twin: Twin, name: str, args: argparse.Namespace) -> int:
    lab = leave_up(twin.topology, twin.backend, name, title=_title(args))
    _tell(twin, args)
    if not args.json:
        output.lines(twin_lines(lab))
        return 0
    from ipttrace.lab.records import up_record

    output.record(up_record(lab.name, args.backend, lab.topology, lab.namespaces))
    return 0


def _title(args: argparse.Namespace) -> str:
    return f"twin of {clean_text(args.file)}"


def _tell(twin: Twin, args: argparse.Namespace) -> None:
    """Say how the twin differs from its host: for people, and for programs."""
    from ipttrace.system.twins import tell

    tell(twin, output.note)
    if args.json:
        from ipttrace.lab.records import twin_record

        output.record(twin_record(args.file, twin.notes, twin.missing))


def probe_of(words: str) -> ProbeSpec:
    """Return the probe that `words` describe as on the command line; raises UsageError."""

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise UsageError(f"cannot read --probe {words!r}: {message}")

    parser = Parser(add_help=False)
    add_arguments(parser)
    try:
        spec = spec_of(parser.parse_args(shlex.split(words)))
    except ValueError as error:
        raise UsageError(f"cannot read --probe {words!r}: {error}") from error
    if spec.netns or spec.from_netns:
        raise UsageError(
            f"cannot use --netns or --from in --probe {words!r}: it is sent in the twin",
            "Leave the twin up, and use 'ipttrace probe'.",
        )
    return spec


def _name(given: str | None, file: str) -> str:
    from ipttrace.lab.parts import NAMESPACE_NAME

    if given is not None:
        if not NAMESPACE_NAME.match(given):
            raise UsageError(
                f"cannot name a twin {clean_text(given)!r}: use up to {LONGEST_NAME} lower-case "
                "letters, digits and '-', a letter first"
            )
        return given
    stem = NO_NAME.sub("-", file.rpartition("/")[2].partition(".")[0].lower()).strip("-")
    stem = stem.lstrip("-0123456789")[:LONGEST_NAME].strip("-")
    return stem or "host"


def _probe(specs: Sequence[ProbeSpec], real: str, name: str, args: argparse.Namespace) -> int:
    from ipttrace.cli.compose import trace_probe
    from ipttrace.cli.printing import Printer
    from ipttrace.lab.runner import in_lab_names

    printer = Printer(json=args.json, verbose=args.verbose)
    lost = 0
    for spec, words in zip(specs, args.probe, strict=True):
        printer.heading(words, level=2)
        result = trace_probe(
            replace(spec, netns=(real,)),
            answer=lambda _: None,
            note=output.note,
            hint=output.note,
            follows=False,
        )
        result = in_lab_names(result, {name: real})
        printer.answer(result)
        printer.summary(result)
        lost += result.totals.lost_events
    return EVENTS_LOST if lost else 0


def twin_lines(lab: Lab) -> list[str]:
    """Return what a user must know of a twin that is up."""
    from ipttrace.system import user_namespace

    real, host = lab.namespaces[TWIN], lab.topology.namespaces[TWIN]
    ends = lab.topology.ends_in(TWIN)
    lines = [f"twin {lab.name} is up: namespace {real}"]
    lines += [_interface(end.interface, end.addresses, up=end.up) for end in ends]
    for bridge, made in host.bridges.items():
        ports = f" (bridge of {', '.join(made.ports) or 'no port'})"
        lines.append(_interface(bridge + ports, made.addresses, up=made.up))
    heard = _some([f"{each.protocol}/{each.port}" for each in host.services]) or "nothing"
    way_in = f"ipttrace lab shell {lab.name}"
    probe = f"ipttrace probe --netns {real}"
    if user_namespace.is_inside():
        probe = f"{way_in} {TWIN} -- ipttrace probe"
    lines += [
        f"  listens on: {heard}",
        f"  probe it:   {probe} --in {_way_in(lab.topology)} tcp ADDRESS:PORT",
        f"  go in:      {way_in} {TWIN}",
        f"  take down:  ipttrace lab down {lab.name}",
    ]
    return [clean_text(line) for line in lines]


def _interface(name: str, addresses: Sequence[str], *, up: bool) -> str:
    return f"  {name:15} {_some(addresses) or 'no address'}{'' if up else ' (down)'}"


def _some(texts: Sequence[str]) -> str:
    """Return the texts, of many the first ones."""
    unique = list(dict.fromkeys(texts))
    more = f" and {len(unique) - SHOWN} more" if len(unique) > SHOWN else ""
    return ", ".join(unique[:SHOWN]) + more


def _way_in(topology: Topology) -> str:
    """Return the interface of the default route, or the first one."""
    host = topology.namespaces[TWIN]
    for route in host.routes:
        if route.to == "default" and route.interface:
            return route.interface
    ends = topology.ends_in(TWIN)
    return ends[0].interface if ends else next(iter(host.bridges), "IFACE")
