"""Netfilter's places as one packet met them: what the flow picture draws, before it is drawn.

A hook's lane holds one station for each table that reported there, in the order in which they
reported, and between them, dim, the iptables tables that did not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ipttrace.decode.text import clean_text
from ipttrace.event import TraceKind
from ipttrace.netfilter import (
    CONNTRACK_PRIORITY,
    FATAL_VERDICTS,
    INET_HOOKS,
    TABLE_HOOKS,
    Backend,
    Hook,
    PacketFamily,
    TableFamily,
    builtin_priority,
    traversal,
)
from ipttrace.packet import PacketSummary
from ipttrace.path import ChainHop, Change, NatHop, Outcome, PacketPath, Role, WireHop
from ipttrace.render.words import change_words, nat_effects

CONNTRACK = "ct"
DEAD_MARK = "✗"
LOST_MARK = "?"
LONGEST_TABLE = 20
"""Columns for a table's name; nft allows 255 (NFT_NAME_MAXLEN)."""
MAP_TABLES = ("raw", "mangle", "nat", "filter")
"""Tables that are drawn also where no packet met them; `security` only where one did."""


class Place(StrEnum):
    """Where a packet's way ends if no chain ended it."""

    ROUTE = "route"
    SOCKET = "socket"
    WIRE_IN = "wire in"
    WIRE_OUT = "wire out"
    STATION = "station"


@dataclass(frozen=True, slots=True)
class Station:
    """One table (or conntrack) at one hook."""

    label: str
    priority: int
    hops: tuple[int, ...] = ()
    """Indexes into the path's hops; empty where the packet met no rule and no policy."""
    changes: tuple[Change, ...] = ()
    nat: str = ""
    """What conntrack rewrote here, in words."""
    dead: bool = False
    reached: bool = False
    ruled: bool | None = None
    """Whether any rule stands there; None where the rules are not known."""

    @property
    def caption(self) -> str:
        """What was changed here, in words."""
        return ", ".join([*map(short_change, self.changes), *([self.nat] if self.nat else [])])


@dataclass(frozen=True, slots=True)
class Lane:
    """One hook with its stations in the order in which a packet meets them."""

    hook: Hook | None
    """None: the hook is not known."""
    stations: tuple[Station, ...]
    met: bool
    passed: bool
    """The packet left this hook alive."""


@dataclass(frozen=True, slots=True)
class Journey:
    """The lanes of one path, those that were met in the order in which they were met."""

    lanes: dict[Hook | None, Lane]
    visited: tuple[Hook | None, ...]
    end: Place
    """Where the way ends; STATION where a rule or policy ended it."""
    mark: str
    """DEAD_MARK, LOST_MARK, or empty where the packet got where it wanted."""
    entered: str
    """The interface it came in by, or empty."""
    left: str
    """The interface it left by, or empty."""
    contained: bool
    """We dropped it at the way out."""

    @property
    def loops(self) -> bool:
        """Whether the packet left by lo and came in again."""
        return _loops(self.visited)


def short_change(change: Change) -> str:
    """Return a change in few columns: `dport 8445→8443`."""
    return change_words(change).replace(" -> ", "→")


def short_nat(hop: NatHop) -> str:
    """Return what conntrack rewrote: `src 10.0.0.2:40000→203.0.113.1:40000`."""
    return ", ".join(nat_effects(hop)).replace(" -> ", "→")


NOBODY = PacketPath(0, None, Role.OBSERVED, 0.0, PacketSummary(PacketFamily.IPV4, "", "", ""))


def journey(path: PacketPath | None) -> Journey:
    """Return where `path` led, hook by hook; without a path the lanes alone."""
    if path is None:
        lanes: dict[Hook | None, Lane] = {
            hook: _lane(NOBODY, hook, both=False, passed=False) for hook in INET_HOOKS
        }
        return Journey(lanes, (), Place.STATION, "", "", "", contained=False)
    visited = tuple(dict.fromkeys(hop.hook for hop in path.chain_hops))
    end, mark = _end(path)
    both = len({hop.chain.backend for hop in path.chain_hops}) > 1
    passed = _passed(visited, end, mark)
    hooks = dict.fromkeys([*TABLE_HOOKS["mangle"], *visited])
    met = {hook: _lane(path, hook, both=both, passed=hook in passed) for hook in hooks}
    return Journey(met, visited, end, mark, _entered(path), *_left(path))


def _loops(visited: tuple[Hook | None, ...]) -> bool:
    """A hook without any table reports nothing: one of each side of lo must do."""
    known = [hook for hook in visited if hook in INET_HOOKS]
    out_first = bool(known) and known[0] in (Hook.OUTPUT, Hook.POSTROUTING)
    return (
        out_first and Hook.FORWARD not in known and bool({Hook.PREROUTING, Hook.INPUT} & {*known})
    )


def _passed(visited: tuple[Hook | None, ...], end: Place, mark: str) -> set[Hook | None]:
    """Return the hooks that the packet left alive; a hook without any table reports nothing."""
    passed = set(visited[:-1])
    if {Hook.INPUT, Hook.FORWARD} & set(visited):
        passed.add(Hook.PREROUTING)
    if _loops(visited):
        passed |= {Hook.OUTPUT, Hook.POSTROUTING}
    if mark != LOST_MARK and end is not Place.STATION:
        passed.update(visited[-1:])
    if not mark and end is Place.WIRE_OUT and visited:
        passed.add(Hook.POSTROUTING)
    return passed


def _fatal(path: PacketPath) -> bool:
    hops = path.chain_hops
    return bool(hops) and hops[-1].verdict in FATAL_VERDICTS


def _end(path: PacketPath) -> tuple[Place, str]:
    if _fatal(path):
        return Place.STATION, DEAD_MARK
    match path.outcome:
        case Outcome.DELIVERED:
            return Place.SOCKET, ""
        case Outcome.FORWARDED | Outcome.SENT:
            return Place.WIRE_OUT, ""
        case Outcome.REFUSED:
            return Place.SOCKET, DEAD_MARK
        case Outcome.DROPPED | Outcome.REJECTED:
            return _next_place(path), DEAD_MARK
    return _next_place(path), LOST_MARK


def _next_place(path: PacketPath) -> Place:
    hooks = [hop.hook for hop in path.chain_hops]
    match hooks[-1] if hooks else None:
        case Hook.INPUT:
            return Place.SOCKET
        case Hook.FORWARD | Hook.OUTPUT | Hook.POSTROUTING | Hook.EGRESS:
            return Place.WIRE_OUT
        case Hook.PREROUTING:
            return Place.ROUTE
    return Place.WIRE_IN if path.in_interface else Place.ROUTE


def _entered(path: PacketPath) -> str:
    received = [h for h in path.hops if isinstance(h, WireHop) and h.event == "received"]
    return (received[0].interface if received else path.in_interface) or ""


def _left(path: PacketPath) -> tuple[str, bool]:
    """Return by which interface it left, and whether we held it back there."""
    sent = [h for h in path.hops if isinstance(h, WireHop) and h.event != "received"]
    if sent:
        return sent[-1].interface or "", sent[-1].event == "contained"
    gone = path.outcome in (Outcome.FORWARDED, Outcome.SENT)
    return (path.out_interface or "") if gone else "", False


def _lane(path: PacketPath, hook: Hook | None, *, both: bool, passed: bool) -> Lane:
    met = _with_nat(path, hook, _met(path, hook, both))
    stations = _with_map(met, hook)
    last = max((index for index, each in enumerate(stations) if each.hops), default=-1)
    reached = tuple(
        replace(each, reached=passed or index <= last) for index, each in enumerate(stations)
    )
    return Lane(hook, reached, bool(met), passed)


def _met(path: PacketPath, hook: Hook | None, both: bool) -> list[Station]:
    groups: dict[tuple[object, ...], list[tuple[int, ChainHop]]] = {}
    for index, hop in enumerate(path.hops):
        if isinstance(hop, ChainHop) and hop.hook is hook:
            chain = hop.chain
            key = (chain.backend, chain.table_family, chain.table, hop.priority)
            groups.setdefault(key, []).append((index, hop))
    final = path.chain_hops[-1] if _fatal(path) else None
    return [_station(group, both, final) for group in groups.values()]


def _station(group: Sequence[tuple[int, ChainHop]], both: bool, final: ChainHop | None) -> Station:
    first = group[0][1]
    hops = [hop for _, hop in group]
    dead = hops[-1] is final
    label = f"{_table_label(first, both)}{_numbers(hops)}{' ' + DEAD_MARK if dead else ''}"
    return Station(
        label,
        _priority(first),
        tuple(index for index, _ in group),
        tuple(change for hop in hops for change in hop.changes),
        dead=dead,
    )


def _priority(hop: ChainHop) -> int:
    if hop.priority is not None:
        return hop.priority
    return (builtin_priority(hop.chain.table, hop.hook) if hop.hook else None) or 0


def _table_label(hop: ChainHop, both: bool) -> str:
    chain = hop.chain
    table = clean_text(chain.table)
    if len(table) > LONGEST_TABLE:
        table = f"{table[: LONGEST_TABLE - 1]}…"
    iptables = chain.table_family in (TableFamily.IP, TableFamily.IP6)
    if not iptables or (chain.backend is Backend.NFT and chain.table not in TABLE_HOOKS):
        return f"{chain.table_family} {table}"
    return f"{chain.backend} {table}" if both else table


def _numbers(hops: Sequence[ChainHop]) -> str:
    base = hops[0].chain
    numbers = [
        str(hop.number) if hop.number is not None else f"#{hop.handle}"
        for hop in hops
        if hop.event is TraceKind.RULE and hop.chain == base
    ]
    unique = list(dict.fromkeys(numbers))
    if len(unique) > 2:
        return f" {unique[0]}…{unique[-1]}"
    return f" {','.join(unique)}" if unique else ""


def _with_nat(path: PacketPath, hook: Hook | None, met: list[Station]) -> list[Station]:
    """Return the stations with what conntrack rewrote at the hook that was met before it."""
    here: Hook | None = None
    words: list[tuple[int, str]] = []
    for index, hop in enumerate(path.hops):
        if isinstance(hop, ChainHop):
            here = hop.hook
        elif isinstance(hop, NatHop) and here is hook:
            words.append((index, short_nat(hop)))
    if not words or not met:
        return met
    text, indexes = ", ".join(w for _, w in words), tuple(i for i, _ in words)
    place = next((i for i, each in enumerate(met) if "nat" in each.label.split()), len(met) - 1)
    rewritten = replace(met[place], hops=met[place].hops + indexes, nat=text)
    return [*met[:place], rewritten, *met[place + 1 :]]


def _with_map(met: list[Station], hook: Hook | None) -> list[Station]:
    stations = list(met)
    taken = {each.priority for each in met}
    for station in _map(hook):
        if station.priority in taken:
            continue
        after = [i for i, each in enumerate(stations) if each.priority > station.priority]
        stations.insert(after[0] if after else len(stations), station)
    return stations


def _map(hook: Hook | None) -> list[Station]:
    if hook not in TABLE_HOOKS["mangle"]:
        return []
    places = [(builtin_priority(t, hook) or 0, t) for t in traversal(hook) if t in MAP_TABLES]
    if hook in TABLE_HOOKS["raw"]:
        places.append((CONNTRACK_PRIORITY, CONNTRACK))
    return [Station(label, priority) for priority, label in sorted(places)]
