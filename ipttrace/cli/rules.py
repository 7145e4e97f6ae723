"""`ipttrace rules`: the rules of both backends with their counters."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from ipttrace.cli import output
from ipttrace.cli.once import Once
from ipttrace.decode.text import clean_text
from ipttrace.errors import UsageError

if TYPE_CHECKING:
    from ipttrace.netfilter import RuleRef
    from ipttrace.ruleset import Chain, Counter, Ruleset

INTERVAL = 1.0
"""Seconds between two readings with --watch."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand and its options."""
    parser = subparsers.add_parser(
        "rules",
        help="show the rules of iptables-legacy and nftables with their counters",
        description=(
            "Show the rules of iptables-legacy, iptables-nft and native nftables, with numbers,"
            " counters and handles. Nothing is changed, no table is made by looking."
        ),
    )
    parser.add_argument(
        "--netns",
        action=Once,
        metavar="NETNS",
        help="the rules of this namespace (a name, a path, a pid or a container's id)",
    )
    parser.add_argument("--table", metavar="T", help="only tables of this name: filter, nat, ...")
    parser.add_argument(
        "--watch", action="store_true", help="then show every second which counters rose"
    )
    parser.add_argument("--json", action="store_true", help="JSON Lines, schema ipttrace/1")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the rules; with --watch until interrupted."""
    from ipttrace.system.capabilities import require_privilege
    from ipttrace.system.namespaces import find_namespace
    from ipttrace.system.rulesets import NamespaceRules

    namespace = find_namespace(args.netns)
    require_privilege(aim="read rules")
    reader = NamespaceRules(namespace)
    if hidden := reader.hidden():
        output.note(hidden)
    show(args, reader.read, threading.Event().wait)
    return 0


def show(
    args: argparse.Namespace, read: Callable[[], Ruleset], wait: Callable[[float], object]
) -> None:
    """Print what `read` returns; with --watch again after each `wait`."""
    ruleset = read()
    chains = _chosen(ruleset, args.table)
    if not chains and args.table is not None:
        raise UsageError(
            f"no table {clean_text(args.table)} here: neither iptables-legacy nor nf_tables has one"
        )
    if args.json:
        _print_records(args.netns, chains)
    else:
        _print_table(chains)
    while args.watch:
        wait(INTERVAL)
        before, ruleset = ruleset, read()
        _print_rises(args, before, ruleset)


def _chosen(ruleset: Ruleset, table: str | None) -> list[Chain]:
    from ipttrace.render.rules_table import user_chains

    return user_chains(ruleset, table)


def _print_table(chains: list[Chain]) -> None:
    from ipttrace.render.rules_table import rules_lines

    output.lines(rules_lines(chains, width=output.width(), color=output.color()))
    if not chains:
        output.note("no table here: neither iptables-legacy nor nf_tables has one")


def _print_rises(args: argparse.Namespace, before: Ruleset, after: Ruleset) -> None:
    from ipttrace.render.rules_table import rise_lines
    from ipttrace.ruleset import counter_changes

    rises = counter_changes(before, after)
    chains = _chosen(after, args.table)
    if args.json:
        _print_records(args.netns, chains, {r: c for r, c in rises.items() if c.packets})
    else:
        output.lines(rise_lines(chains, rises))


def _print_records(
    netns: str | None, chains: list[Chain], rises: Mapping[RuleRef, Counter] | None = None
) -> None:
    for line in _records(netns, chains, rises):
        output.record(line)


def _records(
    netns: str | None, chains: list[Chain], rises: Mapping[RuleRef, Counter] | None
) -> Iterator[bytes]:
    """Yield the records of all chains and rules; with `rises`, only of those in it."""
    from ipttrace.netfilter import RuleRef
    from ipttrace.render.records import chain_record, rule_record

    known = rises or {}
    for chain in chains:
        policy = RuleRef(chain.ref, None)
        if rises is None or policy in rises:
            yield chain_record(netns, chain, known.get(policy))
        for rule in chain.user_rules:
            if rises is None or rule.ref in rises:
                yield rule_record(netns, rule, known.get(rule.ref))
