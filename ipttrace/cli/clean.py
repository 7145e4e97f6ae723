"""`ipttrace clean`: remove what sessions that died left behind."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ipttrace.cli import output
from ipttrace.decode.text import clean_text

if TYPE_CHECKING:
    from ipttrace.system.namespaces import Namespace


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand and its options."""
    parser = subparsers.add_parser(
        "clean",
        help="remove rules, tables, devices and labs of sessions that died",
        description=(
            "Remove what sessions that died left behind: TRACE rules with a comment 'ipttrace:...',"
            " nft tables and trace instances named ipttrace-*, devices named iptt*,"
            " labs (not those of 'lab up'),"
            " and net.netfilter.nf_log_all_netns, a setting of the whole host."
            " Sessions that are alive are left alone."
        ),
    )
    parser.add_argument(
        "--netns",
        action="append",
        metavar="NETNS",
        help=(
            "look in that namespace (a name, a path, a pid or a container's id), not in this one;"
            " may be repeated"
        ),
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Remove leftovers and say what was removed, one line each."""
    from ipttrace.system.capabilities import require_privilege
    from ipttrace.system.guardian import sweep
    from ipttrace.system.kernel_log import put_back_left
    from ipttrace.system.lab_records import sweep as sweep_labs
    from ipttrace.system.namespaces import find_namespace

    require_privilege(aim="clean up")
    names: list[str | None] = args.netns or [None]
    namespaces = [find_namespace(name) for name in names]
    for namespace in namespaces:
        removed = sweep(namespace)
        lines = [f"removed {line}" for line in removed] or ["nothing to remove"]
        output.lines(clean_text(f"{namespace}: {line}") for line in lines)
        if removed:
            _note_loggers(namespace)
    left = [*put_back_left(), *sweep_labs()]
    output.lines(clean_text(f"this host: removed {line}") for line in left)
    return 0


def _note_loggers(namespace: Namespace) -> None:
    """Say what cannot be put back: what it was before died with session and guardian."""
    from ipttrace.system.nf_log import FAMILIES, LISTENER, read_loggers

    loggers = namespace.run(read_loggers)
    ours = [f for f, logger in zip(FAMILIES, loggers, strict=False) if logger == LISTENER]
    if ours:
        names = " and ".join(f"net.netfilter.nf_log.{family}" for family in ours)
        output.note(
            clean_text(
                f"{namespace}: {names} may have been set to {LISTENER} by a killed session, and "
                "what it was is not known; unless a program listens there (ulogd), ask: "
                "ipttrace doctor"
            )
        )
