"""TRACE rules of ours in the legacy raw table, through python-iptables.

Every change replaces the whole table: the xtables lock is held, and the policy counters, which
a replacement zeroes, are put back by the same commit.  A rule is found by the tag in its comment.
The library keeps one table object a process, whatever the namespace: a process that calls this
module has entered its namespace for good (see `guardian_process`).
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ipttrace.errors import KernelError, NotSupportedError
from ipttrace.netfilter import Backend, ChainRef, PacketFamily
from ipttrace.system import comments, file_lock, iptc_loading
from ipttrace.system.trace_rule import TraceRule

TABLE = "raw"
LOCK = "/run/xtables.lock"
"""XT_LOCK_NAME of iptables' xshared.h; the environment's XTABLES_LOCKFILE overrides it."""

LOCK_WAIT = 5.0
COMMIT_WAIT = 5.0
"""Seconds."""

TRY_AGAIN = "Resource temporarily unavailable"
"""EAGAIN: the table was replaced since it was read (__do_replace in ip_tables.c)."""

ABSENT = ("does not exist", "No such file or directory", "No chain/target/match", "can't find")
"""What libiptc and libxtables say where a module is absent."""

NUMBERS = {"ipv6-icmp": "58", "sctp": "132", "dccp": "33", "udplite": "136"}
"""Protocols whose iptables names the library does not know everywhere, by number."""

TABLE_NAMES = {
    PacketFamily.IPV4: Path("/proc/thread-self/net/ip_tables_names"),
    PacketFamily.IPV6: Path("/proc/thread-self/net/ip6_tables_names"),
}


Notify = Callable[[str], None]


def tables(family: PacketFamily) -> tuple[str, ...]:
    """Return the legacy tables that exist in the calling thread's namespace; makes none."""
    try:
        return tuple(TABLE_NAMES[family].read_text().split())
    except OSError:
        return ()


def preload() -> Any:
    """Import python-iptables and return it; ImportError where its libraries are not to be found.

    To tell a target from a chain the library opens each table of `ALL`, which makes the kernel
    create it: `nat` would switch connection tracking on.
    """
    iptc: Any = iptc_loading.load()
    iptc.Table.ALL = iptc.Table6.ALL = [TABLE]
    return iptc


def base_chains(family: PacketFamily) -> frozenset[ChainRef]:
    """Return the chains that exist as soon as the raw table does."""
    names = ("PREROUTING", "OUTPUT")
    return frozenset(ChainRef(Backend.LEGACY, family.table_family, TABLE, n) for n in names)


def insert(rules: Sequence[TraceRule], notify: Notify) -> None:
    """Insert rules of one family at the head of their chains, all or none."""
    place = f"to raw/{'+'.join(dict.fromkeys(rule.hook for rule in rules))}"
    family = rules[0].family

    def change(iptc: Any, table: Any) -> None:
        for rule in rules:
            iptc.Chain(table, rule.hook.value).insert_rule(_build(iptc, rule))

    _commit(family, change, f"cannot add TRACE rule {place} (iptables-legacy)", notify)


def remove(family: PacketFamily, tag: str, notify: Notify) -> list[int]:
    """Delete every rule of the raw table that bears `tag`; return their packet counters."""
    hits: list[int] = []

    def change(_: Any, table: Any) -> bool:
        hits.clear()
        for name in ("PREROUTING", "OUTPUT"):
            while (found := _tagged(table, name, tag)) is not None:
                number, packets = found
                hits.append(packets)
                _delete(table, name, number)
        return bool(hits)

    if TABLE in tables(family):
        _commit(family, change, "cannot delete TRACE rule from raw (iptables-legacy)", notify)
    return hits


def sessions(family: PacketFamily, notify: Notify) -> set[str]:
    """Return the sessions that have a rule in the raw table."""
    found: set[str] = set()

    def look(_: Any, table: Any) -> bool:
        for name in ("PREROUTING", "OUTPUT"):
            entry = table.first_rule(name)
            while entry:
                session = comments.session_of(_comment(entry))
                found.update({session} if session is not None else ())
                entry = table.next_rule(entry)
        return False

    _commit(family, look, "cannot read the rules in raw (iptables-legacy)", notify)
    return found


def heads(family: PacketFamily, tag: str, notify: Notify) -> int:
    """Return how many rules of the raw table bear `tag` and stand before all that are not ours."""
    found = [0]

    def look(_: Any, table: Any) -> bool:
        found[0] = 0
        for name in ("PREROUTING", "OUTPUT"):
            entry = table.first_rule(name)
            while entry and comments.session_of(_comment(entry)) is not None:
                found[0] += _comment(entry) == tag
                entry = table.next_rule(entry)
        return False

    _commit(family, look, "cannot read the rules in raw (iptables-legacy)", notify)
    return found[0]


def _commit(
    family: PacketFamily, change: Callable[[Any, Any], bool | None], what: str, notify: Notify
) -> None:
    """Read the table, change it, write it back; again if somebody else was faster."""
    iptc = preload()
    deadline = time.monotonic() + COMMIT_WAIT
    with xtables_lock(what, notify):
        while True:
            try:
                table = _table(iptc, family)
                if change(iptc, table) is not False:
                    _keep_policy_counters(table)
                    table.commit()
                return
            except (iptc.IPTCError, iptc.XTablesError, ValueError) as error:
                reason = _reason(error)
                if TRY_AGAIN not in reason or time.monotonic() > deadline:
                    raise _refused(what, reason) from error
            finally:
                _forget(iptc, family)


def _refused(what: str, reason: str) -> KernelError | NotSupportedError:
    if any(word in reason for word in ABSENT):
        return NotSupportedError(f"{what}: {reason}", "Try --trigger owner.")
    return KernelError(f"{what}: {reason}")


def _reason(error: Exception) -> str:
    """Return what the library says; it prints the kernel's words as a bytes literal."""
    text = str(error)
    return text.split(": ", 1)[-1].removeprefix("b'").removeprefix('b"').rstrip("'\"")


def _table(iptc: Any, family: PacketFamily) -> Any:
    kind = iptc.Table if family is PacketFamily.IPV4 else iptc.Table6
    return kind(TABLE, autocommit=False)


def _forget(iptc: Any, family: PacketFamily) -> None:
    """Drop the library's cached table, so that the next one is read from the kernel."""
    kind = iptc.Table if family is PacketFamily.IPV4 else iptc.Table6
    table = kind._cache.pop(TABLE, None)
    if table is not None:
        table.close()


def _rule_type(iptc: Any, family: PacketFamily) -> Any:
    return iptc.Rule if family is PacketFamily.IPV4 else iptc.Rule6


def _keep_policy_counters(table: Any) -> None:
    for name in ("PREROUTING", "OUTPUT"):
        policy, counters = table.get_policy(name)
        table.set_policy(name, policy, counters)


def _build(iptc: Any, rule: TraceRule) -> Any:
    built = _rule_type(iptc, rule.family)()
    for field, value in (
        ("protocol", rule.protocol and NUMBERS.get(rule.protocol, rule.protocol)),
        ("src", rule.source),
        ("dst", rule.destination),
        ("in_interface", rule.interface),
    ):
        if value is not None:
            setattr(built, field, value)
    for name, options in rule.matches():
        match = built.create_match(name)
        for option, value in options.items():
            match.set_parameter(option, value)
    built.create_target("TRACE")
    return built


def _tagged(table: Any, chain: str, tag: str) -> tuple[int, int] | None:
    """Return number (from 0) and packet counter of the first rule whose comment is `tag`."""
    number, entry = 0, table.first_rule(chain)
    while entry:
        if _comment(entry) == tag:
            return number, entry.counters.pcnt
        number, entry = number + 1, table.next_rule(entry)
    return None


def _delete(table: Any, chain: str, number: int) -> None:
    """Delete one rule by its number, as `iptables -D CHAIN NUMBER` does (libiptc.c).

    The library's own way compares contents under a mask that leaves most of a match out: it takes
    the first rule that looks alike, be it another session's or the user's.
    """
    if not table._iptc.iptc_delete_num_entry(chain.encode(), number, table._handle):
        raise ValueError(f"rule {number + 1} of {chain} cannot be deleted: {table.strerror()}")


def _comment(entry: Any) -> str | None:
    """Return the comment of a rule (struct ipt_entry or ip6t_entry), None without one."""
    fixed = ctypes.sizeof(entry)
    matches = ctypes.string_at(ctypes.addressof(entry) + fixed, entry.target_offset - fixed)
    return comments.of_matches(matches)


@contextmanager
def xtables_lock(what: str, notify: Notify) -> Iterator[None]:
    """Hold the lock that iptables-legacy and iptables-restore take; KernelError if not in time."""
    path = os.environ.get("XTABLES_LOCKFILE") or LOCK
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise KernelError(
            f"{what}: cannot open the xtables lock {path}: {error.strerror}",
            "Name another lock file in XTABLES_LOCKFILE.",
        ) from error
    try:
        if not file_lock.acquire(descriptor, LOCK_WAIT, lambda who: notify(_waiting(path, who))):
            who = file_lock.holder(descriptor) or "another process"
            raise KernelError(
                f"{what}: {who} has held the xtables lock {path} for {LOCK_WAIT:g} s",
                "Wait for it to end, then try again.",
            )
        yield
    finally:
        os.close(descriptor)


def _waiting(path: str, who: str) -> str:
    return f"waiting for the xtables lock {path}, held by {who or 'another process'}"
