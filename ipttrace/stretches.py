"""The packets within one stretch of the kernel's events: who was received, sent, freed, answered.

`ties` says what a stretch is, and how its packets are known.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from ipttrace.event import KernelEvent
from ipttrace.evidence import Crossing, NeighbourWait
from ipttrace.headers import address_text
from ipttrace.packet import Flow
from ipttrace.path import Strength
from ipttrace.takers import MAPPED, WILDCARDS

Report = tuple[int, int]
"""The number of a queue, and of a message in it."""

Context = tuple[str, int]
"""`softirq` and the processor, or `thread` and its id."""


PAUSE = 0.1
"""Seconds without an event after which a thread does something else."""

SOFTIRQ_PAUSE = 0.01
"""Seconds without an event after which a softirq serves something else, a timer's packet too."""

RECEIVE, QUEUE, FREE = "netif_receive_skb", "net_dev_queue", "kfree_skb"
RESET, ERROR, READY = "tcp_send_reset", "icmp_send", "sk_data_ready"
WAIT = "neigh_event_send_done"

AF_INET, AF_INET6 = 2, 10
LOOPBACK = "lo"

SENDERS = re.compile(r"xmit|qdisc|queue|^sch_|dev_forward|^br_|tunnel")
"""How functions are called that free a packet on its way out of an interface."""
SENDERS_REASONS = re.compile(r"QDISC|FULL_RING|BACKLOG|^DEV_")
"""And how their reasons are (include/net/dropreason-core.h)."""

Flows = Mapping[int, Sequence[Flow]]
"""By path: the flows that its packet has had."""

Locate = Callable[[int], str | None]
"""Returns the name of the kernel function at an address."""


@dataclass(slots=True)
class Stretch:
    """The events of one context from a receiving to the next one, or of a thread at work."""

    context: Context
    events: list[KernelEvent] = field(default_factory=list)
    reports: dict[int, Report] = field(default_factory=dict)
    """By index in `events`."""
    wanted: bool = False
    """It has to do with what is traced."""


@dataclass(slots=True)
class Traced:
    """A packet within one stretch, and what is known of it."""

    path: int | None
    addresses: set[int] = field(default_factory=set)
    ended: bool = False
    guessed: int | None = None
    """The address of what was sent or freed last, if that may have been another packet."""
    gone: bool = False
    """It was given to an interface; who receives it there may be another namespace, unseen."""
    received: list[Crossing] = field(default_factory=list)
    queued: list[Crossing] = field(default_factory=list)
    drops: list[tuple[KernelEvent, Strength]] = field(default_factory=list)
    resets: list[KernelEvent] = field(default_factory=list)
    errors: list[KernelEvent] = field(default_factory=list)
    waits: list[KernelEvent] = field(default_factory=list)


def begins_anew(
    current: Stretch, event: KernelEvent, interfaces: AbstractSet[str] | None = None
) -> bool:
    """Tell whether another packet's stretch begins.

    The same packet is received again where a device hands it on: ours to its target, a port to its
    bridge.  What `lo` receives, or an interface that is none of `interfaces`, is another packet, if
    at the same address: one that a socket took leaves it without an event.
    """
    if not current.events:
        return False
    last = current.events[-1]
    pause = PAUSE if current.context[0] == "thread" else SOFTIRQ_PAUSE
    if event.time - last.time > pause:
        return True
    if event.name != RECEIVE:
        return False
    address, name = event.number("skbaddr"), event.text("name")
    if name == LOOPBACK or (interfaces is not None and name not in interfaces):
        return True
    for earlier in reversed(current.events):
        if earlier.name in (FREE, QUEUE) and earlier.number("skbaddr") == address:
            return True
        if earlier.name == RECEIVE:
            return earlier.number("skbaddr") != address or earlier.text("name") == name
    return True


def note_received(packets: list[Traced], event: KernelEvent) -> None:
    """Take a packet that an interface received, or that was handed on to another one."""
    address = event.number("skbaddr")
    known = next((each for each in packets if address in each.addresses), None)
    if known is None:
        known = Traced(None, {address})
        packets.append(known)
    known.gone = False
    known.received.append(Crossing(event.time, event.text("name")))


def note_queued(packets: list[Traced], event: KernelEvent) -> None:
    """Take a packet that was given to an interface."""
    packet = _named(packets, event) or _nameless(packets, event)
    packet.addresses.add(event.number("skbaddr"))
    packet.queued.append(Crossing(event.time, event.text("name")))
    packet.ended = True
    packet.gone = event.text("name") != LOOPBACK


def note_freed(packets: list[Traced], event: KernelEvent, locate: Locate) -> None:
    """Take a death; one whose address nobody told is that of a packet made here, or of no other.

    An answer that is not traced may die within the stretch of the packet that it answers.  A packet
    that is gone may die of the interface; what else frees it is on its way behind that.
    """
    packet, strength = _named(packets, event), Strength.REPORTED
    if packet is not None and packet.gone and not _frees_in_sending(event, locate):
        return
    if packet is None:
        packet, strength = _nameless(packets, event), Strength.MATCHED
    packet.drops.append((event, strength))
    packet.ended = True


def _nameless(packets: list[Traced], event: KernelEvent) -> Traced:
    """Return the packet of an address that nobody told: the one that acts, if it has none yet."""
    acting = _acting(packets)
    packet = acting if acting is not None and not acting.addresses else Traced(None)
    if packet is not acting:
        packets.append(packet)
    if acting is None or packet is acting:
        packet.guessed = event.number("skbaddr")
    return packet


def note_answered(packets: list[Traced], event: KernelEvent, flows: Flows) -> None:
    """Take what the kernel does about a packet; it may name a copy of the one received.

    Of a packet that nobody told of it may speak, too, one that was made in another namespace, and
    perhaps at the same address: it has neither end with the packet that acts.
    """
    if event.name == WAIT:
        _waits(packets, event)
        return
    packet = _named(packets, event) or _acting(packets)
    known = flows.get(packet.path, ()) if packet and packet.path is not None else ()
    if packet is None or packet.gone or (known and not _shares_an_end(event, known)):
        return
    packet.addresses.add(event.number("skbaddr"))
    (packet.resets if event.name == RESET else packet.errors).append(event)


def _shares_an_end(event: KernelEvent, flows: Sequence[Flow]) -> bool:
    told = [_end(event, name) for name in ("saddr", "daddr")]
    ends = [end for end in told if end is not None and end[0] not in WILDCARDS]
    known = {end for flow in flows for end in ((flow.src, flow.sport), (flow.dst, flow.dport))}
    addresses = {address for address, _ in known}
    return not ends or any(
        end in known if end[1] is not None else end[0] in addresses for end in ends
    )


def _end(event: KernelEvent, name: str) -> tuple[str, int | None] | None:
    """Return one end of a packet: a socket's address of a reset, or an ICMP error's fields.

    An ICMP error tells the ports of UDP only, else they are 0 (include/trace/events/icmp.h).
    """
    data = event.fields.get(name, b"")
    if not isinstance(data, bytes):
        return None
    if len(data) == 4:
        return address_text(data), event.number("sport" if name == "saddr" else "dport") or None
    family, port = int.from_bytes(data[:2], sys.byteorder), int.from_bytes(data[2:4], "big")
    if family == AF_INET:
        return address_text(data[4:8]), port
    if family == AF_INET6:
        return address_text(data[8:24]).removeprefix(MAPPED), port
    return None


def _frees_in_sending(event: KernelEvent, locate: Locate) -> bool:
    if SENDERS_REASONS.search(event.text("reason")):
        return True
    function = locate(event.number("location"))
    return function is not None and SENDERS.search(function) is not None


def _waits(packets: list[Traced], event: KernelEvent) -> None:
    """Take the packet that waits for a neighbour.

    What was sent or freed just before was not the packet, but the question for the neighbour's
    address (neigh_probe in __neigh_event_send, before the event is written).
    """
    candidates = (each for each in reversed(packets) if not each.ended or each.guessed is not None)
    packet = next(candidates, None)
    if packet is None:
        return
    if packet.guessed is not None:
        packet.drops = [
            drop for drop in packet.drops if drop[0].number("skbaddr") != packet.guessed
        ]
        if packet.guessed in packet.addresses and packet.queued:
            packet.queued.pop()
            packet.addresses.discard(packet.guessed)
    packet.guessed = None
    packet.waits.append(event)
    packet.ended = True


def _named(packets: Sequence[Traced], event: KernelEvent) -> Traced | None:
    address = event.number("skbaddr")
    named = [each for each in packets if address and address in each.addresses]
    return named[-1] if named else None


def _acting(packets: Sequence[Traced]) -> Traced | None:
    return next((each for each in reversed(packets) if not each.ended), None)


def neighbour_wait(event: KernelEvent) -> NeighbourWait:
    """Return what an event says of the neighbour that is waited for."""
    name = "primary_key4" if event.number("family") == AF_INET else "primary_key6"
    key = event.fields.get(name, b"")
    address = address_text(key) if isinstance(key, bytes) and len(key) in (4, 16) else ""
    return NeighbourWait(event.time, event.text("dev"), address)
