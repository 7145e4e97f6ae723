"""Which places of the flow picture hold rules: the others stand back."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

from ipttrace.event import TraceKind
from ipttrace.netfilter import Backend, Hook, TableFamily
from ipttrace.path import ChainHop, PacketPath
from ipttrace.render.journey import Journey
from ipttrace.render.stations import CONNTRACK, Lane, Station
from ipttrace.ruleset import Chain, Ruleset

SHARED_FAMILIES = frozenset({TableFamily.INET, TableFamily.BRIDGE, TableFamily.NETDEV})
"""Families of tables that packets of both IP versions meet."""

FAMILY = re.compile(rf"^(?:{'|'.join(TableFamily)}) (?=\S+/)")
"""Before the name of a chain of nft's own."""


def with_rules(way: Journey, path: PacketPath | None, rules: Ruleset) -> Journey:
    """Return the journey with what is known of each table: whether it holds rules at its hook."""
    families = SHARED_FAMILIES | (
        {path.packet.family.table_family} if path else {TableFamily.IP, TableFamily.IP6}
    )
    holding = [
        chain
        for chain in rules.chains.values()
        if chain.hook is not None and chain.user_rules and chain.ref.table_family in families
    ]
    return replace(
        way, lanes={hook: _lane(lane, path, holding) for hook, lane in way.lanes.items()}
    )


def without_empty(way: Journey) -> Journey:
    """Return the journey without tables that hold no rules, where a hook has others to show."""
    return replace(way, lanes={hook: _narrowed(lane) for hook, lane in way.lanes.items()})


def without_families(way: Journey) -> Journey:
    """Return the journey with chains named without their family, where that tells them apart."""
    return replace(way, lanes={hook: _brief(lane) for hook, lane in way.lanes.items()})


def _brief(lane: Lane) -> Lane:
    brief = [FAMILY.sub("", each.label) for each in lane.stations]
    names = Counter(label.split()[0] for label in brief)
    stations = (
        replace(each, label=label) if names[label.split()[0]] == 1 else each
        for each, label in zip(lane.stations, brief, strict=True)
    )
    return replace(lane, stations=tuple(stations))


def _narrowed(lane: Lane) -> Lane:
    kept = tuple(each for each in lane.stations if each.hops or each.ruled is not False)
    if lane.hook is not Hook.PREROUTING and all(each.label == CONNTRACK for each in kept):
        return lane
    return replace(lane, stations=kept)


def _lane(lane: Lane, path: PacketPath | None, holding: list[Chain]) -> Lane:
    chains = [chain for chain in holding if chain.hook is lane.hook]
    stations = (
        each if each.label == CONNTRACK else replace(each, ruled=_is_ruled(each, path, chains))
        for each in lane.stations
    )
    return replace(lane, stations=tuple(stations))


def _is_ruled(station: Station, path: PacketPath | None, chains: list[Chain]) -> bool:
    all_hops = path.hops if path is not None else ()
    hops = [hop for n in station.hops if isinstance(hop := all_hops[n], ChainHop)]
    if any(hop.event is TraceKind.RULE for hop in hops):
        return True
    met = {(hop.chain.backend, hop.chain.table_family, hop.chain.table) for hop in hops}
    return any(_is_at(chain, station, met) for chain in chains)


def _is_at(chain: Chain, station: Station, met: set[tuple[Backend, TableFamily, str]]) -> bool:
    """Tell whether a chain stands at a station: by its table, or by its name on the map."""
    ref = chain.ref
    here = (ref.backend, ref.table_family, ref.table)
    same = here in met if met else ref.table == station.label
    return same and chain.priority in (None, station.priority)
