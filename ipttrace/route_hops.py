"""Where in a packet's path the kernel chose its route, and what it chose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ipttrace.evidence import Route, Scene
from ipttrace.fates import aimed_at_many, death, full_listener
from ipttrace.netfilter import FATAL_VERDICTS, Basis, Hook, TableFamily
from ipttrace.path import (
    LEFT,
    ChainHop,
    Decision,
    DropHop,
    Hop,
    Outcome,
    PacketPath,
    RouteHop,
    WireHop,
)
from ipttrace.presumed import Sign, presumed
from ipttrace.rewrites import aimed_hops

ROUTING_HOOKS = (Hook.INPUT, Hook.FORWARD)
AFTER_ROUTING = (*ROUTING_HOOKS, Hook.POSTROUTING, Hook.EGRESS)
"""Of a packet that came in: one that was made here may meet POSTROUTING, and then be for here."""
REJECTED_BY_ROUTE = {
    "blackhole": Decision.BLACKHOLE,
    "unreachable": Decision.UNREACHABLE,
    "prohibit": Decision.PROHIBIT,
    "none": Decision.UNREACHABLE,
}
UNROUTED = frozenset({"IP_INNOROUTES", "IP_OUTNOROUTES"})
REFUSERS = ("ip_error", "ip6_pkt_", "dst_discard")
"""How the functions are called that free what a route refuses."""
REFUSED = frozenset({Sign.BLACKHOLE_ROUTE, Sign.NO_ROUTE})
FORWARDERS = frozenset({"ip_forward", "ip6_forward"})


def with_routes(path: PacketPath, scene: Scene) -> Iterator[Hop]:
    """Yield the hops with the routing decisions where they were made."""
    if _is_bridged(path):
        yield from path.hops
        return
    anew = None
    if path.in_interface is None and scene.route is not None:
        refused = None if path.hops else REJECTED_BY_ROUTE.get(scene.route.kind)
        anew = _routed_anew_after(path)
        first = scene if anew is None else Scene()
        yield _route(path.time, refused or Decision.OUTPUT, path, first)
    shown_by = ROUTING_HOOKS if path.in_interface is None else AFTER_ROUTING
    routed = False
    before: Hop | None = None
    for hop in path.hops:
        if not routed and _shows_routing(hop, path, shown_by):
            routed = True
            local = isinstance(hop, ChainHop) and hop.hook is Hook.INPUT
            then = Decision.LOCAL if local else Decision.FORWARD
            yield _route(before.time if before else hop.time, then, path, scene)
        yield hop
        before = hop
        if hop is anew:
            yield _route(hop.time, Decision.OUTPUT, path, scene)
    if routed:
        return
    time = before.time if before else path.time
    if path.outcome is Outcome.DROPPED and scene.last is not None:
        yield from aimed_hops(path.last_packet or path.packet, scene.last, time)
    if (last := _last_decision(path, scene)) is not None:
        yield _route(time, last, path, scene)


def _shows_routing(hop: Hop, path: PacketPath, hooks: Sequence[Hook]) -> bool:
    """Tell whether a hop is behind the routing decision: by its hook, or as the way out."""
    if isinstance(hop, ChainHop):
        return hop.hook in hooks
    return isinstance(hop, WireHop) and hop.event == "contained" and path.in_interface is not None


def _routed_anew_after(path: PacketPath) -> ChainHop | None:
    """Return the hop of OUTPUT behind which a packet made here was routed a second time.

    The kernel does so once a table has changed the destination, or mangle the mark
    (ip_route_me_harder); the tables are asked for the route of the packet as it was then.
    """
    table, last = None, None
    for hop in path.chain_hops:
        here = (hop.chain.backend, hop.chain.table)
        if hop.hook is Hook.OUTPUT and any(_reroutes(hop, each.field) for each in hop.changes):
            table = here
        if hop.hook is Hook.OUTPUT and table == here:
            last = hop
    return last


def _reroutes(hop: ChainHop, field: str) -> bool:
    return field == "dst" or (field == "mark" and hop.chain.table == "mangle")


def _is_bridged(path: PacketPath) -> bool:
    """Tell whether a bridge handed the packet on from port to port, without any routing."""
    if path.physical_in is None or path.out_interface not in (None, path.in_interface):
        return False
    families = (TableFamily.BRIDGE, TableFamily.NETDEV)
    return not any(
        hop.hook is Hook.INPUT and hop.chain.table_family not in families for hop in path.chain_hops
    )


def _last_decision(path: PacketPath, scene: Scene) -> Decision | None:
    """Return the decision behind which no chain reported."""
    last = path.chain_hops[-1] if path.chain_hops else None
    if last is not None and last.verdict in FATAL_VERDICTS:
        return None
    if path.in_interface is None:
        return _refused_decision(path, scene) if last is not None else None
    if path.outcome in (Outcome.DELIVERED, Outcome.REFUSED):
        return Decision.LOCAL
    if full_listener(path, scene, ()) or aimed_at_many(path, scene, ()):
        return Decision.LOCAL
    if path.outcome in LEFT:
        return Decision.FORWARD
    return _refused_decision(path, scene)


def refused_anew(path: PacketPath, scene: Scene, drop: DropHop) -> bool:
    """Tell whether a packet made here died because its new destination, or mark, has no route.

    The hook of the table that changed it ends in NF_DROP_ERR then (nf_nat_ipv4_local_fn,
    nf_nat_ipv6_local_fn, ipt_mangle_out, nf_route_table_hook4), behind all its rules.
    """
    last = path.chain_hops[-1] if path.chain_hops else None
    return (
        drop.reason == "NETFILTER_DROP"
        and last is not None
        and last.hook is Hook.OUTPUT
        and last.verdict not in FATAL_VERDICTS
        and _goes_elsewhere(path, scene)
        and scene.route is not None
        and scene.route.kind in REJECTED_BY_ROUTE
    )


def _goes_elsewhere(path: PacketPath, scene: Scene) -> bool:
    """Tell whether OUTPUT changed where a packet goes, be it by the last rule that it met."""
    seen = path.last_packet or path.packet
    aimed = scene.last or seen
    return aimed.dst != seen.dst or _routed_anew_after(path) is not None


def _refused_decision(path: PacketPath, scene: Scene) -> Decision | None:
    """Return the decision after which a packet died that no later chain reported."""
    if path.outcome is not Outcome.DROPPED:
        return None
    drop, kind = death(path, scene.trail), scene.route.kind if scene.route else ""
    if drop is None:
        return REJECTED_BY_ROUTE.get(kind) if presumed(path, scene) in REFUSED else None
    if refused_anew(path, scene, drop):
        return REJECTED_BY_ROUTE[kind]
    if drop.reason in UNROUTED or (drop.location or "").startswith(REFUSERS):
        unrouted = Decision.UNREACHABLE if drop.reason in UNROUTED else None
        return REJECTED_BY_ROUTE.get(kind, unrouted)
    return Decision.FORWARD if drop.location in FORWARDERS and kind == "unicast" else None


def _route(time: float, decision: Decision, path: PacketPath, scene: Scene) -> RouteHop:
    route = scene.route
    if route is None:
        return RouteHop(time, decision, Basis.INFERRED, path.in_interface)
    if not _agrees(route, decision, path):
        return RouteHop(time, decision, Basis.INFERRED, path.in_interface)
    return RouteHop(
        time,
        decision,
        Basis.INFERRED,
        path.in_interface,
        route.interface,
        route.gateway,
        route.table,
        route.source,
    )


def _agrees(route: Route, decision: Decision, path: PacketPath) -> bool:
    """Tell whether what the tables say now is what was decided then."""
    if decision is Decision.OUTPUT:
        return route.kind not in REJECTED_BY_ROUTE
    if decision is Decision.FORWARD:
        return route.kind == "unicast" and path.out_interface in (None, route.interface)
    if decision is Decision.LOCAL:
        return route.kind in ("local", "broadcast", "multicast")
    return True
