"""Packets' paths as text: one line a packet, one a hop; what tests compare and print a diff of."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

from ipttrace.correlate import Correlator
from ipttrace.decode.netlink import decode_datagram
from ipttrace.event import Event
from ipttrace.path import ChainHop, Hop, NatHop, PacketPath, WireHop
from ipttrace.ruleset import Ruleset
from tests.recordings import Recording

INTERFACES = {1: "lo", 2: "eth0"}


def events_of(recording: Recording) -> list[Event]:
    """Return all events of a recording; a message's number is its time."""
    return [
        event
        for number, message in enumerate(recording.messages, 1)
        for event in decode_datagram(message.data, float(number))
    ]


def correlate(ruleset: Ruleset, events: Iterable[Event]) -> Correlator:
    """Return a correlator that has taken all `events`."""
    correlator = Correlator(ruleset, ids=count(1), interfaces=INTERFACES)
    for event in events:
        correlator.feed(event)
    return correlator


def transcript(paths: Iterable[PacketPath], *, numbered: bool = True) -> str:
    """Return the paths as text; without ids where only the content matters."""
    lines: list[str] = []
    for path in paths:
        head = [f"{path.id}:"] if numbered else []
        flags = ",".join(path.packet.tcp_flags)
        words = [*head, path.packet.protocol, _endpoints(path), flags, str(path.packet.length)]
        words += [f"in={path.in_interface}", "=>", path.outcome]
        words += ["ambiguous"] if path.ambiguous else []
        lines.append(" ".join(word for word in words if word))
        lines += [f"  {hop_text(hop)}" for hop in path.hops]
    return "\n".join(lines) + "\n"


def _endpoints(path: PacketPath) -> str:
    packet = path.packet
    source = packet.src if packet.sport is None else f"{packet.src}:{packet.sport}"
    target = packet.dst if packet.dport is None else f"{packet.dst}:{packet.dport}"
    return f"{source}>{target}"


def hop_text(hop: Hop) -> str:
    """Return one hop as text."""
    if isinstance(hop, NatHop):
        return f"nat source={hop.source} destination={hop.destination} {hop.basis}"
    if isinstance(hop, WireHop):
        return f"wire {hop.event} {hop.interface}"
    if not isinstance(hop, ChainHop):
        return str(hop)
    place = hop.number if hop.number is not None else hop.handle or ""
    changes = [f"{change.field}:{change.old}->{change.new}" for change in hop.changes]
    words = [hop.chain.backend, str(hop.hook), str(hop.chain), hop.event, str(place)]
    words += [str(hop.verdict), hop.basis, *changes]
    return " ".join(word for word in words if word)
