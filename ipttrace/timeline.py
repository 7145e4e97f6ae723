"""Puts what the kernel told beside the chains into a packet's path: further hops, and its fate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ipttrace.evidence import Scene, SocketEntry, Trail
from ipttrace.fates import (
    REFUSALS,
    aimed_at_many,
    death,
    fate,
    full_listener,
    own_resets,
    taken_by_rule,
)
from ipttrace.netfilter import Verdict
from ipttrace.path import (
    LEFT,
    DropHop,
    Hop,
    Outcome,
    PacketPath,
    ResetHop,
    Role,
    SocketHop,
    SocketState,
    WireHop,
)
from ipttrace.presumed import presumed
from ipttrace.roles import accepts
from ipttrace.route_hops import with_routes
from ipttrace.takers import taking


def with_evidence(path: PacketPath, scene: Scene, answers: Sequence[PacketPath] = ()) -> PacketPath:
    """Return the path with its route, socket, reset, drop and wire hops, and its fate."""
    path = replace(path, outcome=fate(path, scene.trail, answers))
    unseen = path.role is Role.PROBE and not path.hops and path.out_interface is None
    if unseen and scene.trail is not None and scene.trail.received:
        came_in_by = scene.trail.received[-1].interface
        if came_in_by != "lo":  # over lo come packets that were made here
            path = replace(path, in_interface=path.in_interface or came_in_by)
    dead = (
        presumed(path, scene, answers)
        or full_listener(path, scene, answers)
        or aimed_at_many(path, scene, answers)
    )
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
    yield from with_routes(path, scene)
    end = max((hop.time for hop in path.hops), default=path.time)
    yield from _ends(path, scene, trail, answers, end)


def _ends(
    path: PacketPath, scene: Scene, trail: Trail, answers: Sequence[PacketPath], end: float
) -> Iterator[Hop]:
    drop = death(path, scene.trail)
    taker = full_listener(path, scene, answers)
    if path.outcome is Outcome.DELIVERED and not taken_by_rule(path):
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
        yield from (ResetHop(each.time, None, "kernel") for each in own_resets(answers)[:1])
    elif path.outcome in LEFT and not any(accepts(answer.packet) for answer in answers):
        outside = [each for each in resets if each.in_interface is not None]
        yield from (ResetHop(each.time, None, "remote") for each in outside[:1])


def _socket(time: float, entry: SocketEntry) -> SocketHop:
    return SocketHop(
        time, entry.state, entry.address, entry.port, entry.pid, entry.process, entry.netns
    )
