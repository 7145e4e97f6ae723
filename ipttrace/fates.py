"""What became of a packet: its outcome, with what the kernel told beside the chains."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from ipttrace.evidence import Scene, SocketEntry, Trail
from ipttrace.netfilter import FATAL_VERDICTS, Verdict
from ipttrace.packet import PacketSummary
from ipttrace.path import DropHop, Outcome, PacketPath, WireHop
from ipttrace.takers import fitting, opens

OVERFLOWS = "TcpExt.ListenOverflows"
REFUSALS = frozenset({"NO_SOCKET"})
"""Reasons for which the kernel tells the sender that nobody is there."""


def fate(path: PacketPath, trail: Trail | None, answers: Sequence[PacketPath] = ()) -> Outcome:
    """Return a packet's fate, with what the kernel told of its death."""
    drop = death(path, trail)
    if drop is None:
        resets = trail.resets if trail else ()
        return Outcome.REFUSED if path.outcome is Outcome.DELIVERED and resets else path.outcome
    if path.outcome in (Outcome.REJECTED, Outcome.DROPPED):
        return path.outcome
    if drop.reason in REFUSALS or (trail and trail.resets) or own_resets(answers):
        return Outcome.REFUSED
    return Outcome.DROPPED


def own_resets(answers: Sequence[PacketPath]) -> list[PacketPath]:
    """Return those of a packet's answers that are resets made here.

    Before Linux 6.10 tcp_v4_send_reset tells of them only where a connection is open.
    """
    return [
        each for each in answers if "RST" in each.packet.tcp_flags and each.in_interface is None
    ]


def death(path: PacketPath, trail: Trail | None) -> DropHop | None:
    """Return how the kernel freed the packet, None if it did not, or it was we who stopped it."""
    drop = trail.drop if trail else None
    contained = any(isinstance(hop, WireHop) and hop.event == "contained" for hop in path.hops)
    return None if contained else drop


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
    full = fitting(scene.sockets or (), packet, path.in_interface)
    return next((each for each in full if each.waiting > (each.backlog or 0)), None)


def aimed_at_many(path: PacketPath, scene: Scene, answers: Sequence[PacketPath]) -> str | None:
    """Return `broadcast` or `multicast` if a SYN went to such an address, and died of it.

    A listener answers none and frees it without an event (tcp_v4_conn_request in
    net/ipv4/tcp_ipv4.c, tcp_v6_conn_request in net/ipv6/tcp_ipv6.c).
    """
    packet = scene.last or path.packet
    if path.outcome not in (Outcome.DELIVERED, Outcome.DROPPED) or not opens(packet) or answers:
        return None
    if path.chain_hops and path.chain_hops[-1].verdict in FATAL_VERDICTS:
        return None
    if death(path, scene.trail):
        return None
    return address_of_many(packet, scene)


def address_of_many(packet: PacketSummary, scene: Scene) -> str | None:
    """Return `broadcast` or `multicast` if that is what a packet's destination is."""
    if "/" not in packet.dst and ip_address(packet.dst).is_multicast:
        return "multicast"
    kind = scene.route.kind if scene.route else None
    return kind if kind == "broadcast" else None


def taken_by_rule(path: PacketPath) -> bool:
    """Tell whether a rule took the packet in a socket's place: SYNPROXY."""
    return bool(path.chain_hops) and path.chain_hops[-1].verdict is Verdict.STOLEN
