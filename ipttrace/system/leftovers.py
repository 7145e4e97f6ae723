"""What dead sessions left: rules by tag, tables and devices by name, in this thread's namespace.

A session is alive as long as its guardian holds its name (`presence`).  Called in a process that
entered the namespace for good.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

from ipttrace.errors import KernelError
from ipttrace.netfilter import PacketFamily
from ipttrace.ruleset import OWN_TABLE, TAG
from ipttrace.system import commands, legacy_rules, nft_rules, own_traces, presence
from ipttrace.system.nft_netlink import NftObject

DEVICE = "iptt"
"""Devices of ours start so."""


SETTING_UP = 10.0
"""Seconds within which a session that made a trace instance has opened it."""

IsDead = Callable[[str], bool]


def sweep(session: str | None, notify: Callable[[str], None]) -> list[str]:
    """Remove what dead sessions (or the one named) left; return a line for each thing."""
    living = {alive.name for alive in presence.living()} - {session}

    def is_dead(name: str) -> bool:
        return name not in living and session in {None, name}

    removed = _legacy_rules(is_dead, notify)
    if nft_rules.available():
        with presence.only_one():
            removed += _nft_rules(is_dead) + _nft_tables(is_dead)
            for family in PacketFamily:
                nft_rules.remove(family, None)
    if session is None:
        removed += _devices(living) + _traces(living)
    return removed


def _legacy_rules(is_dead: IsDead, notify: Callable[[str], None]) -> list[str]:
    removed: list[str] = []
    for family in PacketFamily:
        if legacy_rules.TABLE not in legacy_rules.tables(family):
            continue
        names = {name for name in legacy_rules.sessions(family, notify) if is_dead(name)}
        for name in sorted(names):
            hits = legacy_rules.remove(family, TAG + name, notify)
            line = f"TRACE rule of session {name} in raw ({family}, iptables-legacy)"
            removed += [line] * len(hits)
    return removed


def _nft_rules(is_dead: IsDead) -> list[str]:
    def is_ours(rule: NftObject) -> bool:
        own_table = rule.text(nft_rules.TABLE_NAME).startswith(OWN_TABLE)
        name = nft_rules.session_of(rule)
        return name is not None and is_dead(name) and not own_table

    return [
        f"TRACE rule of session {nft_rules.session_of(rule)} in {rule.family} "
        f"{rule.text(nft_rules.TABLE_NAME)}/{rule.text(nft_rules.RULE_CHAIN)} (nf_tables)"
        for rule in nft_rules.remove_everywhere(is_ours)
    ]


def _nft_tables(is_dead: IsDead) -> list[str]:
    def is_ours(table: NftObject) -> bool:
        name = table.text(nft_rules.TABLE_NAME)
        return name.startswith(OWN_TABLE) and is_dead(name.removeprefix(OWN_TABLE))

    removed = nft_rules.remove_tables(is_ours)
    return [f"nft table {table.family} {table.text(nft_rules.TABLE_NAME)}" for table in removed]


def _devices(living: set[str]) -> list[str]:
    """Delete persistent devices of ours; without a living session nobody can hold one."""
    if living:
        return []
    names = [name for _, name in socket.if_nameindex() if name.startswith(DEVICE)]
    for name in names:
        commands.run(["ip", "link", "delete", name], what=f"cannot delete device {name}")
    return [f"device {name}" for name in names]


def _traces(living: set[str]) -> list[str]:
    """Remove what dead sessions left in tracefs.

    A session of another namespace may live: one that it reads is busy (instance_rmdir, trace.c).
    """
    removed: list[str] = []
    for session in own_traces.sessions(older_than=SETTING_UP):
        if session in living:
            continue
        with suppress(KernelError):
            removed += own_traces.remove(session)
    return removed
