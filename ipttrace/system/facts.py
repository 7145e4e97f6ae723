"""Reading all that a check-up is about.  Nothing is changed by it.

No module is loaded and no table made: nf_tables is asked only where it is in the kernel already,
and iptables-legacy only about tables that exist.  What cannot be read becomes an `Unknown`.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ipttrace.checkup.facts import (
    Bridge,
    Facts,
    Interface,
    Interior,
    Listener,
    Presence,
    Setting,
    Unknown,
)
from ipttrace.checkup.settings import SETTINGS
from ipttrace.errors import IptTraceError
from ipttrace.netfilter import NFPROTO_NUMBER, PacketFamily, TableFamily
from ipttrace.system import commands, leftovers, legacy_rules, nf_log, presence
from ipttrace.system.kernel_log import LogReader, first_namespace
from ipttrace.system.machine_facts import read_machine, refusal
from ipttrace.system.namespaces import HERE, NAMED, Namespace
from ipttrace.system.network_owner import network_owner
from ipttrace.system.port_owner import owner_of_port
from ipttrace.system.reading import attempt, text_of
from ipttrace.system.table_facts import TableFacts, read_tables

SYSCTLS = Path("/proc/sys")
LOG_GROUPS = Path("/proc/thread-self/net/netfilter/nfnetlink_log")
LOGGERS = Path("/proc/thread-self/net/netfilter/nf_log")
NOT_SHOWN = frozenset({"default", "lo"})
"""Among the interfaces: what only new ones inherit, and the one that no outsider reaches."""

CALLS = {TableFamily.IP: "nf_call_iptables", TableFamily.IP6: "nf_call_ip6tables"}
"""A bridge's own switches, as ip(8) shows them."""


def read_facts(namespace: Namespace = HERE) -> Facts:
    """Return what can be read of the machine and of `namespace`; raises nothing."""
    machine = read_machine()
    nf_tables = machine.components["nf_tables"]
    interior = attempt(lambda: namespace.run(lambda: _interior(nf_tables)))
    if isinstance(interior, Interior) and isinstance(interior.listener, Listener):
        interior = replace(interior, no_way_out=_no_way_out(namespace))
    return Facts(machine, interior, namespace.name, _enter(namespace))


def _no_way_out(namespace: Namespace) -> str | None:
    """Return why the kernel log cannot be read, or would not hold what is reported there."""
    try:
        LogReader().close()
        first_namespace(namespace)
    except IptTraceError as error:
        return error.message
    return None


def _enter(namespace: Namespace) -> tuple[str, ...]:
    if namespace.name is None:
        return ()
    if namespace.path.parent == NAMED:
        return ("ip", "netns", "exec", namespace.path.name)
    return ("nsenter", f"--net={namespace.path}")


def _interior(nf_tables: Presence | Unknown) -> Interior:
    """Read the namespace of the calling thread."""
    sessions = attempt(lambda: {session.name: session.pid for session in presence.living()})
    tables = read_tables(nf_tables)
    return Interior(
        owned=attempt(lambda: network_owner() is not None),
        legacy=tables.legacy,
        nft=tables.nft,
        loggers=_loggers(),
        known_loggers=_known_loggers(),
        listener=attempt(_listener),
        settings={name: _setting(name) for name in SETTINGS},
        interfaces=attempt(_interfaces),
        bridges=attempt(_bridges),
        sessions=sessions,
        leftovers=_leftovers(tables, sessions),
        lock=_lock_refusal(),
    )


def _loggers() -> dict[PacketFamily, str] | Unknown:
    loggers = nf_log.read_loggers()
    if not loggers:
        return Unknown("this kernel has no net.netfilter.nf_log")
    number = {NFPROTO_NUMBER[family.table_family]: family for family in PacketFamily}
    return {number[n]: logger for n, logger in zip(nf_log.FAMILIES, loggers, strict=True)}


def _known_loggers() -> frozenset[str]:
    """Return the loggers in the kernel; a line is `2 nf_log_ipv4 (nf_log_ipv4,nfnetlink_log)`."""
    table = attempt(lambda: text_of(LOGGERS))
    lines = table.splitlines() if isinstance(table, str) else []
    lists = (line.partition("(")[2].rstrip(")") for line in lines)
    return frozenset(name for names in lists for name in names.split(","))


def _listener() -> Listener | None:
    """Return who holds group 0; the columns are group, port, ... (seq_show, nfnetlink_log.c)."""
    rows = (line.split() for line in (text_of(LOG_GROUPS) or "").splitlines())
    port = next((int(row[1]) for row in rows if row[0] == "0"), None)
    return None if port is None else owner_of_port(port)


def _setting(name: str) -> Setting:
    text = attempt(lambda: text_of(SYSCTLS / name.replace(".", "/")))
    return text if text is None or isinstance(text, Unknown) else attempt(lambda: int(text))


def _interfaces() -> dict[str, Interface]:
    directory = SYSCTLS / "net/ipv4/conf"
    entries = (entry for entry in sorted(directory.iterdir()) if entry.name not in NOT_SHOWN)
    return {entry.name: _interface(entry) for entry in entries}


def _interface(directory: Path) -> Interface:
    """Read the settings of one interface; one that is gone meanwhile has none."""
    names = ("rp_filter", "route_localnet", "forwarding")
    rp_filter, localnet, forwarding = (int(text_of(directory / name) or "0") for name in names)
    return Interface(rp_filter, bool(localnet), bool(forwarding))


def _bridges() -> tuple[Bridge, ...]:
    listed = commands.run(
        ["ip", "-j", "-d", "link", "show", "type", "bridge"], what="cannot list bridges"
    )
    return tuple(
        Bridge(
            link["ifname"],
            frozenset(family for family, name in CALLS.items() if _data_of(link).get(name)),
        )
        for link in json.loads(listed or "[]")
        if link
    )


def _data_of(link: dict[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = link.get("linkinfo", {}).get("info_data", {})
    return data


def _leftovers(
    tables: TableFacts, sessions: Mapping[str, int] | Unknown
) -> tuple[str, ...] | Unknown:
    """Return what dead sessions left; what any session may use, only when none is at work."""
    if isinstance(sessions, Unknown):
        return sessions
    if isinstance(tables.own, Unknown):
        return tables.own
    dead = [
        own.what
        for own in tables.own
        if (own.session not in sessions if own.session else not sessions)
    ]
    if not sessions:
        names = [name for _, name in socket.if_nameindex()]
        dead += [f"device {name}" for name in names if name.startswith(leftovers.DEVICE)]
    return tuple(dead)


def _lock_refusal() -> str | None:
    path = Path(os.environ.get("XTABLES_LOCKFILE") or legacy_rules.LOCK)
    wanted = (path, os.R_OK) if path.exists() else (path.parent, os.W_OK | os.X_OK)
    reason = refusal(*wanted)
    return f"{path}: {reason}" if reason else None
