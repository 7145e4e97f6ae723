"""Netfilter's places as one packet met them: what the flow picture draws, before it is drawn.

A hook's lane holds one station for each table that reported there, or for each chain of a table
that is nft's own, in the order in which they reported, and between them, dim, the iptables tables
that did not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ipttrace.decode.text import clean_text
from ipttrace.event import TraceKind
from ipttrace.netfilter import (
    CONNTRACK_PRIORITY,
    FATAL_VERDICTS,
    TABLE_HOOKS,
    Backend,
    ChainRef,
    Hook,
    TableFamily,
    Verdict,
    builtin_priority,
    traversal,
)
from ipttrace.path import ChainHop, Change, NatHop, PacketPath
from ipttrace.render.words import change_words, nat_effects

CONNTRACK = "ct"
DEAD_MARK = "✗"
LOST_MARK = "?"
LONGEST_TABLE, LONGEST_CHAIN = 16, 12
"""Columns for a name; nft allows 255 (NFT_NAME_MAXLEN)."""
LAST_VERDICTS = FATAL_VERDICTS | {Verdict.ACCEPT, Verdict.QUEUE, Verdict.STOLEN}
"""Verdicts after which a packet meets no more rules of the same chain at a hook."""
MAP_TABLES = ("raw", "mangle", "nat", "filter")
"""Tables that are drawn also where no packet met them; `security` only where one did."""


@dataclass(frozen=True, slots=True)
class Station:
    """One table at one hook, one chain of it where it is nft's own, or conntrack."""

    label: str
    priority: int
    hops: tuple[int, ...] = ()
    """Indexes into the path's hops; empty where the packet met no rule and no policy."""
    changes: tuple[Change, ...] = ()
    nat: str = ""
    """What conntrack rewrote here, in words, as far as `changes` does not tell it."""
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


def short_change(change: Change) -> str:
    """Return a change in few columns: `dport 8445→8443`."""
    return change_words(change).replace(" -> ", "→")


def short_nat(hop: NatHop) -> str:
    """Return what conntrack rewrote: `src 10.0.0.2:40000→203.0.113.1:40000`."""
    return ", ".join(nat_effects(hop)).replace(" -> ", "→")


def lane(hook: Hook | None, there: Sequence[Station], passed: bool) -> Lane:
    """Return a hook's lane: lit up to the last station that the packet met, or all of it."""
    last = max((index for index, each in enumerate(there) if each.hops), default=-1)
    reached = tuple(
        replace(each, reached=passed or index <= last) for index, each in enumerate(there)
    )
    return Lane(hook, reached, last >= 0, passed)


def is_fatal(path: PacketPath) -> bool:
    """Tell whether a rule or a policy ended the packet."""
    hops = path.chain_hops
    return bool(hops) and hops[-1].verdict in FATAL_VERDICTS


def stations(path: PacketPath | None, hook: Hook | None) -> tuple[Station, ...]:
    """Return what was met at a hook, and the map around it; without a path the map alone."""
    if path is None:
        return tuple(_map(hook))
    both = len({hop.chain.backend for hop in path.chain_hops}) > 1
    final = path.chain_hops[-1] if is_fatal(path) else None
    walks = _walks(path, hook)
    return tuple(_with_map([_station(walk, both, final) for walk in walks], hook))


Walk = list[tuple[int, ChainHop]]
"""The hops in one base chain and the chains that it calls, with their indexes."""


def _walks(path: PacketPath, hook: Hook | None) -> Iterable[Walk]:
    """Return the walk of each base chain at a hook."""
    walks: dict[tuple[object, ...], Walk] = {}
    walk: Walk = []
    for index, hop in enumerate(path.hops):
        if not isinstance(hop, ChainHop) or hop.hook is not hook:
            continue
        if not walk or _ends(walk[-1][1]) or _table(hop) != _table(walk[-1][1]):
            walk = walks.setdefault((*_table(hop), hop.chain), [])
        walk.append((index, hop))
    return walks.values()


def _ends(hop: ChainHop) -> bool:
    """Tell whether a base chain ends with this hop."""
    return hop.event is TraceKind.POLICY or hop.verdict in LAST_VERDICTS


def _table(hop: ChainHop) -> tuple[object, ...]:
    return (hop.chain.backend, hop.chain.table_family, hop.chain.table, hop.priority)


def _base(walk: Walk) -> ChainRef:
    """Return the chain in which a walk began; only base chains have a policy."""
    policies = [hop.chain for _, hop in walk if hop.event is TraceKind.POLICY]
    return policies[-1] if policies else walk[0][1].chain


def _station(walk: Walk, both: bool, final: ChainHop | None) -> Station:
    first, base = walk[0][1], _base(walk)
    hops = [hop for _, hop in walk]
    dead = hops[-1] is final
    mark = f" {DEAD_MARK}" if dead else ""
    return Station(
        f"{_name(base, first.hook, both)}{_numbers(hops, base)}{mark}",
        _priority(first),
        tuple(index for index, _ in walk),
        tuple(change for hop in hops for change in hop.changes),
        dead=dead,
    )


def _priority(hop: ChainHop) -> int:
    if hop.priority is not None:
        return hop.priority
    return (builtin_priority(hop.chain.table, hop.hook) if hop.hook else None) or 0


def _name(base: ChainRef, hook: Hook | None, both: bool) -> str:
    """Return the table's name, for a chain of nft's own `table/chain`, unless inet its family."""
    table = _short(base.table, LONGEST_TABLE)
    iptables = base.table_family in (TableFamily.IP, TableFamily.IP6)
    own = base.backend is Backend.NFT and base.chain.upper() != hook
    if iptables and not own and (base.backend is Backend.LEGACY or base.table in TABLE_HOOKS):
        return f"{base.backend} {table}" if both else table
    family = "" if base.table_family is TableFamily.INET else f"{base.table_family} "
    return f"{family}{table}/{_short(base.chain, LONGEST_CHAIN)}"


def _short(name: str, columns: int) -> str:
    clean = clean_text(name)
    return clean if len(clean) <= columns else f"{clean[: columns - 1]}…"


def _numbers(hops: Sequence[ChainHop], base: ChainRef) -> str:
    numbers = [
        str(hop.number) if hop.number is not None else f"#{hop.handle}"
        for hop in hops
        if hop.event is TraceKind.RULE and hop.chain == base
    ]
    unique = list(dict.fromkeys(numbers))
    if len(unique) > 2:
        return f" {unique[0]}…{unique[-1]}"
    return f" {','.join(unique)}" if unique else ""


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
