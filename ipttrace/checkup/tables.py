"""Findings about the rules of one namespace: which engines hold any, and who shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ipttrace.checkup.facts import Facts, Interior, Table, Tables, Unknown
from ipttrace.checkup.finding import Adviser, Finding, note, ok, problem
from ipttrace.netfilter import TABLE_HOOKS, Backend, TableFamily

ENGINES = {Backend.LEGACY: "iptables-legacy", Backend.NFT: "nf_tables"}
PLAIN = "ip(6)tables"
IPTABLES_FAMILIES = (TableFamily.IP, TableFamily.IP6)


def table_findings(facts: Facts, inside: Interior) -> Iterator[Finding]:
    """Yield which tables there are, and whether both engines decide."""
    advise = Adviser(facts)
    if isinstance(inside.legacy, Unknown) and "iptables-legacy" not in facts.machine.programs:
        yield _legacy_without_program(inside.legacy, advise)
    else:
        yield _tables(Backend.LEGACY, inside.legacy, advise)
    yield _tables(Backend.NFT, inside.nft, advise)
    if isinstance(inside.legacy, Unknown) or isinstance(inside.nft, Unknown):
        return
    shown = facts.machine.programs["iptables"].backend if _has_iptables(facts) else None
    yield _backends(inside.legacy, inside.nft, shown, advise)
    if "nft" not in facts.machine.programs and inside.nft:
        native = any(not _of_iptables(table) for table in inside.nft)
        lost = "their rules stay unread" if native else "a trace cannot tell which rule it met"
        text = f"there are {'native ' if native else ''}tables of nf_tables, but no program nft:"
        yield note("programs", f"{text} {lost}", "Install the package nftables")


def _legacy_without_program(tables: Unknown, advise: Adviser) -> Finding:
    """Say that a trace fails where legacy tables are that nothing here can read."""
    found = advise.unreadable("rules", "which rules iptables-legacy has", tables)
    blind = not advise.privileges.missing
    return problem(found.topic, found.text, found.advice or "") if blind else found


def _has_iptables(facts: Facts) -> bool:
    return "iptables" in facts.machine.programs


def _tables(backend: Backend, tables: Tables, advise: Adviser) -> Finding:
    engine = ENGINES[backend]
    if isinstance(tables, Unknown):
        return advise.unreadable("rules", f"which rules {engine} has", tables)
    return ok("rules", f"{engine}: {', '.join(map(_table, tables)) or 'no table'}")


def _table(table: Table) -> str:
    name = f"{table.family} {table.name}"
    if not table.decides:
        return f"{name} {'dormant' if table.dormant else 'without rules'}"
    drops = [f"policy DROP in {chain}" for chain in table.drops]
    return " and ".join([f"{name} with {_count(table.rules, 'rule')}", *drops])


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _backends(
    legacy: Sequence[Table], nft: Sequence[Table], shown: Backend | None, advise: Adviser
) -> Finding:
    holders = {
        backend
        for backend, tables in ((Backend.LEGACY, legacy), (Backend.NFT, nft))
        if any(table.decides for table in tables)
    }
    if len(holders) > 1:
        return _both(shown, advise)
    if not holders:
        return ok("rules", "no rule and no policy DROP: every packet passes netfilter")
    (holder,) = holders
    hidden = shown is not None and holder is not shown and any(map(_of_iptables, (*legacy, *nft)))
    if hidden and (holder is Backend.LEGACY or any(map(_decides_for_iptables, nft))):
        return problem(
            "rules",
            f"the rules are in {ENGINES[holder]}, but iptables is iptables-{shown}, which shows"
            " none of them",
            f"Use iptables-{holder} and ip6tables-{holder}, or see all: {advise.tool('rules')}",
        )
    empty = legacy if holder is Backend.NFT else nft
    rest = f"; the tables of {ENGINES[empty[0].backend]} are empty" if empty else ""
    return ok("rules", f"only {ENGINES[holder]} decides{rest}")


def _both(shown: Backend | None, advise: Adviser) -> Finding:
    half = f" iptables (iptables-{shown}) shows only its own." if shown is not None else ""
    return problem(
        "rules",
        "iptables-legacy and nf_tables both decide: a packet must pass both." + half,
        f"See both: {advise.tool('rules')}. Then move the rules of one to the other, and empty it",
    )


def _of_iptables(table: Table) -> bool:
    """Return whether iptables of its backend can show a table."""
    return table.family in IPTABLES_FAMILIES and table.name in TABLE_HOOKS


def _decides_for_iptables(table: Table) -> bool:
    return _of_iptables(table) and table.decides
