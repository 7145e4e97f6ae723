"""Puts what the kernel told beside the chains into a packet's path: further hops, and its fate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ipttrace.evidence import Route, Scene, SocketEntry, Trail
from ipttrace.netfilter import FATAL_VERDICTS, Basis, Hook, TableFamily, Verdict
from ipttrace.packet import PacketSummary
from ipttrace.path import (
    LEFT,
    ChainHop,
    Decision,
    DropHop,
    Hop,
    Outcome,
    PacketPath,
    ResetHop,
    Role,
    RouteHop,
    SocketHop,
    SocketState,
    WireHop,
)
from ipttrace.presumed import Sign, presumed
from ipttrace.rewrites import aimed_hops

WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, never bound to
MAPPED = "::ffff:"
LOOPBACK = "lo"
OVERFLOWS = "TcpExt.ListenOverflows"

OPEN = frozenset({Outcome.LOST, Outcome.INCOMPLETE})
REFUSALS = frozenset({"NO_SOCKET"})
"""Reasons for which the kernel tells the sender that nobody is there."""

ROUTING_HOOKS = (Hook.INPUT, Hook.FORWARD)
AFTER_ROUTING = (*ROUTING_HOOKS, Hook.POSTROUTING)
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


def fate(path: PacketPath, trail: Trail | None) -> Outcome:
    """Return a packet's fate, with what the kernel told of its death."""
    drop = death(path, trail)
    if drop is None:
        resets = trail.resets if trail else ()
        return Outcome.REFUSED if path.outcome is Outcome.DELIVERED and resets else path.outcome
    if path.outcome in (Outcome.REJECTED, Outcome.DROPPED):
        return path.outcome
    if drop.reason in REFUSALS or (trail and trail.resets):
        return Outcome.REFUSED
    return Outcome.DROPPED


def death(path: PacketPath, trail: Trail | None) -> DropHop | None:
    """Return how the kernel freed the packet, None if it did not, or it was we who stopped it."""
    drop = trail.drop if trail else None
    contained = any(isinstance(hop, WireHop) and hop.event == "contained" for hop in path.hops)
    return None if contained else drop


def with_evidence(path: PacketPath, scene: Scene, answers: Sequence[PacketPath] = ()) -> PacketPath:
    """Return the path with its route, socket, reset, drop and wire hops, and its fate."""
    path = replace(path, outcome=fate(path, scene.trail))
    unseen = path.role is Role.PROBE and not path.hops and path.out_interface is None
    if unseen and scene.trail is not None and scene.trail.received:
        came_in_by = scene.trail.received[-1].interface
        if came_in_by != "lo":  # over lo come packets that were made here
            path = replace(path, in_interface=path.in_interface or came_in_by)
    dead = presumed(path, scene, answers) or full_listener(path, scene, answers)
    if path.role is Role.PROBE and dead is not None:
        path = replace(path, outcome=Outcome.DROPPED)
    if path.role is Role.OBSERVED and scene.trail is None:
        return path
    return replace(path, hops=tuple(_hops(path, scene, answers)))


def _hops(path: PacketPath, scene: Scene, answers: Sequence[PacketPath]) -> Iterator[Hop]:
    trail = scene.trail or Trail()
    seen = scene.trail is not None or path.hops or path.outcome in LEFT
    if path.in_interface is not None and seen:
        received = trail.received[-1].time if trail.received else path.time
        yield WireHop(received, "received", path.in_interface)
    yield from _with_routes(path, scene)
    end = max((hop.time for hop in path.hops), default=path.time)
    yield from _ends(path, scene, trail, answers, end)


def _with_routes(path: PacketPath, scene: Scene) -> Iterator[Hop]:
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
        if not routed and isinstance(hop, ChainHop) and hop.hook in shown_by:
            routed = True
            then = Decision.LOCAL if hop.hook is Hook.INPUT else Decision.FORWARD
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
    if path.outcome in (Outcome.DELIVERED, Outcome.REFUSED) or full_listener(path, scene, ()):
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


def _ends(
    path: PacketPath, scene: Scene, trail: Trail, answers: Sequence[PacketPath], end: float
) -> Iterator[Hop]:
    drop = death(path, scene.trail)
    taker = full_listener(path, scene, answers)
    if path.outcome is Outcome.DELIVERED:
        taker = taking(scene.sockets or (), scene.last or path.packet, path.in_interface)
    if taker is not None:
        yield _socket(end, taker)
    if _is_nobody_there(path, scene, drop):
        yield SocketHop(end, SocketState.NONE, port=(scene.last or path.packet).dport)
    yield from trail.resets
    yield from _other_resets(path, answers, told=bool(trail.resets))
    if drop is not None:
        yield drop
    contained = any(isinstance(hop, WireHop) for hop in path.hops)
    if path.outcome in LEFT and not contained:
        yield WireHop(trail.queued[-1].time if trail.queued else end, "sent", path.out_interface)


def _is_nobody_there(path: PacketPath, scene: Scene, drop: DropHop | None) -> bool:
    """Tell whether a refused packet found no socket: the kernel says so, or the socket table."""
    if path.outcome is not Outcome.REFUSED:
        return False
    if drop is not None:
        return drop.reason in REFUSALS
    told = scene.trail is not None and scene.trail != Trail()
    packet = scene.last or path.packet
    if told or scene.sockets is None or packet.dport is None:
        return False
    return taking(scene.sockets, packet, path.in_interface) is None


def _other_resets(
    path: PacketPath, answers: Sequence[PacketPath], told: bool
) -> Iterator[ResetHop]:
    """Yield the resets that the kernel's TCP did not tell of: a rule's, or another host's.

    Where no events are to be had, also its own: `told` is whether it told of one.
    """
    resets = [answer for answer in answers if "RST" in answer.packet.tcp_flags]
    last = path.chain_hops[-1] if path.chain_hops else None
    if last is not None and last.verdict is Verdict.REJECT:
        yield from (ResetHop(each.time, None, "rule") for each in resets[:1])
    elif path.outcome is Outcome.REFUSED and not told:
        own = [each for each in resets if each.in_interface is None]
        yield from (ResetHop(each.time, None, "kernel") for each in own[:1])
    elif path.outcome in LEFT:
        outside = [each for each in resets if each.in_interface is not None]
        yield from (ResetHop(each.time, None, "remote") for each in outside[:1])


def _socket(time: float, entry: SocketEntry) -> SocketHop:
    return SocketHop(
        time, entry.state, entry.address, entry.port, entry.pid, entry.process, entry.netns
    )


def full_listener(
    path: PacketPath, scene: Scene, answers: Sequence[PacketPath]
) -> SocketEntry | None:
    """Return the listener that had no room for a connection, if that is what became of a SYN.

    tcp_conn_request in net/ipv4/tcp_input.c counts it and frees it without an event: the proof is
    the counter, a queue that is too long still, and no answer.
    """
    last = path.chain_hops[-1] if path.chain_hops else None
    packet = scene.last or path.packet
    if last is not None and last.verdict in FATAL_VERDICTS:
        return None
    if path.outcome not in (Outcome.DELIVERED, Outcome.DROPPED) or not opens(packet) or answers:
        return None
    if death(path, scene.trail) or not (scene.counters or {}).get(OVERFLOWS):
        return None
    fitting = _fitting(scene.sockets or (), packet, path.in_interface)
    return next((each for each in fitting if each.waiting > (each.backlog or 0)), None)


def opens(packet: PacketSummary) -> bool:
    """Tell whether a packet asks for a new TCP connection: only a listener takes it."""
    return packet.protocol == "tcp" and {"SYN", "ACK", "RST", "FIN"} & {*packet.tcp_flags} == {
        "SYN"
    }


def taking(
    sockets: Sequence[SocketEntry], packet: PacketSummary, interface: str | None = None
) -> SocketEntry | None:
    """Return the socket that takes a packet: the most particular one (__inet_lookup in the kernel).

    A connected one comes first, then one that is bound to the address, then one that is not.
    `interface` is where it came in, None for a packet made here.
    """
    fitting = _fitting(sockets, packet, interface)
    return max(
        fitting,
        key=lambda each: (each.remote is not None, not _is_wild(each), each.interface is not None),
        default=None,
    )


def _fitting(
    sockets: Sequence[SocketEntry], packet: PacketSummary, interface: str | None
) -> list[SocketEntry]:
    return [
        each
        for each in sockets
        if _takes(each, packet) and each.interface in (None, interface or LOOPBACK)
    ]


def _takes(entry: SocketEntry, packet: PacketSummary) -> bool:
    if entry.protocol != packet.protocol or entry.port != packet.dport:
        return False
    if entry.remote is not None and opens(packet):
        return False
    if entry.remote is not None and (_plain(entry.remote[0]), entry.remote[1]) != (
        packet.src,
        packet.sport,
    ):
        return False
    address = _plain(entry.address)
    if address == "::":
        return packet.family == "ipv6" or not entry.v6_only
    return address in (packet.dst, "0.0.0.0") and (  # noqa: S104 - compared with
        (":" in address) == (packet.family == "ipv6")
    )


def _plain(address: str) -> str:
    """Return an IPv4 address that an IPv6 socket holds as it is written in IPv4."""
    return address.removeprefix(MAPPED)


def _is_wild(entry: SocketEntry) -> bool:
    return entry.address in WILDCARDS
