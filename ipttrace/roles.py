"""What each traced packet is to the probe: the probe itself, an answer to it, or another packet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from ipttrace.journeys import JourneyBook
from ipttrace.packet import Flow, PacketSummary
from ipttrace.path import Outcome, PacketPath, Role

UNSPECIFIED = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, never bound to
UNREACHABLE_TYPES = {"icmp": frozenset({3}), "icmp6": frozenset({1})}
"""Destination unreachable (RFC 792, RFC 4443)."""

ERROR_TYPES = {"icmp": frozenset({3, 4, 5, 11, 12}), "icmp6": frozenset({1, 2, 3, 4})}


@dataclass(frozen=True, slots=True)
class Sent:
    """What the command sent."""

    packets: tuple[PacketSummary, ...]
    """What is known of each packet; None fields match anything."""
    results: tuple[str, ...] = ()
    """What each packet's client got, as far as it got anything."""
    netns: str | None = None
    """Where a packet that nobody saw is counted."""
    time: float = 0.0
    in_interface: str | None = None
    """Where it was injected."""


def assign_roles(
    paths: Sequence[PacketPath],
    flows: Mapping[int, tuple[Flow, ...]],
    sent: Sent,
    ids: Iterator[int],
) -> tuple[PacketPath, ...]:
    """Return `paths` with role, request, journey and leg, and an empty path for an unseen probe.

    `flows` are all the flows that each path's packet has had.  The n-th packet sent is journey n,
    and paths come in the order of their journeys and legs.  Packets that others trace are left out.
    """
    joined = JourneyBook().join(paths)
    probes = _find_probes(joined, sent.packets)
    named = _refuse([_with_role(path, probes, flows, joined) for path in joined], probes, sent)
    named = _concerning(named, flows, sent)
    missing = [index for index in range(len(sent.packets)) if index not in probes.values()]
    unseen = {index: _unseen(sent, index, next(ids)) for index in missing}
    return _numbered(named, probes, unseen, len(sent.packets))


def _find_probes(paths: Sequence[PacketPath], sent: Sequence[PacketSummary]) -> dict[int, int]:
    """Return path id to index in `sent`: the first packet that fits, on all legs of its journey."""
    journeys: dict[int, int] = {}
    for index, expected in enumerate(sent):
        for path in paths:
            if path.journey not in journeys and fits(expected, path.packet):
                journeys[path.journey] = index
                break
    return {path.id: journeys[path.journey] for path in paths if path.journey in journeys}


def fits(expected: PacketSummary, seen: PacketSummary) -> bool:
    """Tell whether a packet is the one that was sent, as far as that is known."""
    if (expected.family, expected.protocol) != (seen.family, seen.protocol):
        return False
    if expected.src not in UNSPECIFIED and expected.src != seen.src:
        return False
    if expected.tcp_flags and expected.tcp_flags != seen.tcp_flags:
        return False
    if expected.icmp and seen.icmp and not _same_icmp(expected, seen):
        return False
    shown = min(len(expected.payload), len(seen.payload))
    pairs = (
        (expected.dst, seen.dst),
        (expected.sport, seen.sport),
        (expected.dport, seen.dport),
        (expected.ip_id, seen.ip_id),
        (expected.tcp_seq, seen.tcp_seq),
        (expected.payload[:shown], seen.payload[:shown]),
    )
    return all(wanted is None or wanted == actual for wanted, actual in pairs)


def _same_icmp(expected: PacketSummary, seen: PacketSummary) -> bool:
    if expected.icmp is None or seen.icmp is None:
        return False
    if expected.icmp.type != seen.icmp.type:
        return False
    pairs = ((expected.icmp.id, seen.icmp.id), (expected.icmp.seq, seen.icmp.seq))
    return all(wanted is None or wanted == actual for wanted, actual in pairs)


def _with_role(
    path: PacketPath,
    probes: Mapping[int, int],
    flows: Mapping[int, tuple[Flow, ...]],
    paths: Sequence[PacketPath],
) -> PacketPath:
    if path.id in probes:
        return replace(path, role=Role.PROBE)
    asked = [
        other
        for other in paths
        if other.id in probes
        and other.netns == path.netns
        and other.time <= path.time
        and answers(path.packet, flows.get(other.id, (other.packet.flow,)))
    ]
    if not asked:
        return path
    # A packet that came through twice is answered where its answer comes through.
    mirrored = [other for other in asked if other.out_interface == path.in_interface]
    return replace(path, role=Role.REPLY, request=(mirrored or asked)[-1].id)


def answers(packet: PacketSummary, asked: Sequence[Flow]) -> bool:
    """Tell whether a packet goes back to who sent packets of the flows `asked`.

    But for TCP it may come from another address than they went to.
    """
    if packet.icmp is not None and packet.icmp.type in ERROR_TYPES[packet.protocol]:
        return _speaks_of(packet, frozenset(asked))
    back = packet.flow.reversed()
    aside = packet.protocol != "tcp" and any(replace(each, dst=back.dst) == back for each in asked)
    return (back in asked or aside) and not _is_echo_request(packet)


def _is_echo_request(packet: PacketSummary) -> bool:
    return packet.icmp is not None and packet.icmp.type in (8, 128)


def _refuse(paths: Sequence[PacketPath], probes: Mapping[int, int], sent: Sent) -> list[PacketPath]:
    """Call delivered probes refused that this host answered with a reset or an ICMP error.

    Of a connection that this host began by a SYN-ACK, a reset is the end: the program's, say.
    """
    replies = [path for path in paths if path.role is Role.REPLY]
    begun = {path.request for path in replies if accepts(path.packet)}
    refused = {path.request for path in replies if is_refusal(path)} - begun
    return [
        replace(path, outcome=Outcome.REFUSED)
        if path.outcome is Outcome.DELIVERED
        and path.role is Role.PROBE
        and (path.id in refused or _client_refused(probes[path.id], sent.results))
        else path
        for path in paths
    ]


def accepts(packet: PacketSummary) -> bool:
    """Tell whether a packet takes a new TCP connection: what resets it later is not a refusal."""
    return {"SYN", "ACK"} <= {*packet.tcp_flags}


def is_refusal(reply: PacketPath) -> bool:
    """Tell whether this host made the reply, and it says no."""
    if reply.in_interface is not None:
        return False
    if reply.packet.icmp is not None:
        return reply.packet.icmp.type in UNREACHABLE_TYPES[reply.packet.protocol]
    return "RST" in reply.packet.tcp_flags


def _client_refused(index: int, results: Sequence[str]) -> bool:
    return index < len(results) and results[index] == "ECONNREFUSED"


def _concerning(
    paths: Sequence[PacketPath], flows: Mapping[int, tuple[Flow, ...]], sent: Sent
) -> list[PacketPath]:
    """Return the probes, their answers, and packets that have to do with one of them.

    These are of the same flows either way, or speak of one, or come from the same client's port.
    """
    probes = {packet.flow for packet in sent.packets}
    answers: set[Flow] = set()
    for path in paths:
        if path.role is not Role.OBSERVED:
            (probes if path.role is Role.PROBE else answers).update(flows.get(path.id, ()))
    clients = {(flow.protocol, flow.src, flow.sport) for flow in probes if flow.sport is not None}
    known = probes | answers | {flow.reversed() for flow in probes | answers}
    return [
        path
        for path in paths
        if path.role is not Role.OBSERVED
        or any(
            flow in known or (flow.protocol, flow.src, flow.sport) in clients
            for flow in flows.get(path.id, (path.packet.flow,))
        )
        or _speaks_of(path.packet, known)
    ]


def _speaks_of(error: PacketSummary, flows: AbstractSet[Flow]) -> bool:
    """Tell whether a packet is an ICMP error about one of `flows`, or may be one."""
    if error.icmp is None or error.icmp.type not in ERROR_TYPES[error.protocol]:
        return False
    if error.quoted is not None:
        return error.quoted.flow in flows
    return any(error.dst == flow.src for flow in flows)


def _unseen(sent: Sent, index: int, number: int) -> PacketPath:
    """Return the path of a probe that no chain reported: the client's errno proves its death."""
    result = sent.results[index] if index < len(sent.results) else ""
    return PacketPath(
        id=number,
        netns=sent.netns,
        role=Role.PROBE,
        time=sent.time,
        packet=sent.packets[index],
        in_interface=sent.in_interface,
        outcome=Outcome.DROPPED if result.startswith("E") else Outcome.LOST,
    )


def _numbered(
    paths: Sequence[PacketPath],
    probes: Mapping[int, int],
    unseen: Mapping[int, PacketPath],
    sent: int,
) -> tuple[PacketPath, ...]:
    """Number the journeys: those of the probes as they were sent, then the others."""
    others = [path.journey for path in paths if path.id not in probes]
    numbers = {journey: sent + place for place, journey in enumerate(dict.fromkeys(others), 1)}
    known = [
        replace(path, journey=probes[path.id] + 1 if path.id in probes else numbers[path.journey])
        for path in paths
    ]
    known += [replace(path, journey=index + 1) for index, path in unseen.items()]
    return tuple(sorted(known, key=lambda path: (path.journey, path.leg)))
