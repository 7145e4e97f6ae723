"""Ties the kernel's events, which are of the whole host, to single packets.

Theory of operation
===================

Tracepoints name a packet by the address of its sk_buff only, and addresses are reused at once.
What ties events to a packet are its own trace reports: each message that the kernel puts into one
of our netlink queues is an event itself (sk_data_ready), written in the midst of the others by the
processor that walks the packet.  The n-th such event of a queue is the n-th message read from it,
so every report says where in the stream of events its packet was.

Events come in contexts: a processor serves one softirq at a time, a thread does one thing at a
time.  Within a context a packet's stretch begins where an interface receives it (netif_receive_skb)
or, if it was made here, with its first report; it ends where the next packet is received.  Packets
that are born in the stretch of another one (a reset, an ICMP error, a clone) have reports of their
own.  An event belongs to the packet whose address it names, as far as receiving, sending or
answering has told that (reported); else to the packet that reported last and has not ended
(matched).  Where messages of two processors come so close that their order in the queue is not
sure, they tie nothing.

A packet without any report is known by the device that we inject through, or by the thread in which
we sent it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from ipttrace.event import KernelEvent
from ipttrace.evidence import Crossing, ErrorSent, NeighbourWait, Trail
from ipttrace.headers import address_text
from ipttrace.path import DropHop, ResetHop, Strength

Report = tuple[int, int]
"""The number of a queue, and of a message in it."""

Context = tuple[str, int]
"""`softirq` and the processor, or `thread` and its id."""

CLOSE = 20e-6
"""Seconds: messages of two processors that are closer may be in the queue the other way round."""

PAUSE = 0.1
"""Seconds without an event after which a thread does something else."""

SOFTIRQ_PAUSE = 0.01
"""Seconds without an event after which a softirq serves something else, a timer's packet too."""

MOST_STRETCHES = 20_000
"""The oldest are forgotten."""

MOST_ENDS = 10_000
"""How many sent and freed packets are remembered, of all traffic."""

RECEIVE, QUEUE, FREE = "netif_receive_skb", "net_dev_queue", "kfree_skb"
RESET, ERROR, READY = "tcp_send_reset", "icmp_send", "sk_data_ready"
WAIT = "neigh_event_send_done"

AF_INET = 2


@dataclass(slots=True)
class _Stretch:
    """The events of one context from a receiving to the next one, or of a thread at work."""

    context: Context
    events: list[KernelEvent] = field(default_factory=list)
    reports: dict[int, Report] = field(default_factory=dict)
    """By index in `events`."""
    wanted: bool = False
    """It has to do with what is traced."""


@dataclass(slots=True)
class _Traced:
    """A packet within one stretch, and what is known of it."""

    path: int | None
    addresses: set[int] = field(default_factory=set)
    ended: bool = False
    guessed: int | None = None
    """The address of what was sent or freed last, if that may have been another packet."""
    received: list[Crossing] = field(default_factory=list)
    queued: list[Crossing] = field(default_factory=list)
    drops: list[tuple[KernelEvent, Strength]] = field(default_factory=list)
    resets: list[KernelEvent] = field(default_factory=list)
    errors: list[KernelEvent] = field(default_factory=list)
    waits: list[KernelEvent] = field(default_factory=list)


Locate = Callable[[int], str | None]
"""Returns the name of the kernel function at an address."""


class Ties:
    """The kernel's events of one session, as far as they have to do with it."""

    def __init__(self, locate: Locate = lambda _: None) -> None:
        self.lost = 0
        """How often events were overwritten: after that nothing is tied."""
        self.times: dict[Report, float] = {}
        self._locate = locate
        self._queues: dict[int, int] = {}
        self._counts: dict[int, int] = {}
        self._latest: dict[int, tuple[KernelEvent, Report]] = {}
        self._doubtful: set[Report] = set()
        self._open: dict[Context, _Stretch] = {}
        self._closed: list[_Stretch] = []
        self._ends: deque[KernelEvent] = deque(maxlen=MOST_ENDS)
        self._devices: frozenset[str] = frozenset()
        self._threads: frozenset[int] = frozenset()
        self._made_here: AbstractSet[int] = frozenset()
        self._crossing: set[int] = set()
        """Addresses of what these threads gave to an interface, as far as it may come in again."""

    def follow(self, address: int, queue: int) -> None:
        """Count the messages of the queue whose socket has that address, from now on."""
        self._queues[address] = queue
        self._counts[address] = 0

    def expect(self, devices: Iterable[str] = (), threads: Iterable[int] = ()) -> None:
        """Keep what is received from these devices, and what these threads do."""
        self._devices = self._devices | frozenset(devices)
        self._threads = self._threads | frozenset(threads)

    @property
    def tied(self) -> bool:
        """Whether reports tie events: the queues are known, and nothing was lost."""
        return bool(self._queues) and not self.lost

    def feed(self, events: Sequence[KernelEvent], lost: int = 0) -> None:
        """Take events in the order of time."""
        self.lost += lost
        for event in events:
            self._take(event)

    def _take(self, event: KernelEvent) -> None:
        stretch = self._stretch(event)
        if event.name == READY:
            report = self._count(event)
            if report is None:
                return
            stretch.reports[len(stretch.events)] = report
            stretch.wanted = True
        elif event.name == RECEIVE:
            address = event.number("skbaddr")
            crosses = address in self._crossing
            self._crossing.discard(address)
            stretch.wanted = stretch.wanted or crosses or event.text("name") in self._devices
        elif event.name in (FREE, QUEUE):
            self._ends.append(event)
        if not event.softirq and event.pid in self._threads:
            stretch.wanted = True
            if event.name == QUEUE:
                self._crossing.add(event.number("skbaddr"))
        stretch.events.append(event)

    def _stretch(self, event: KernelEvent) -> _Stretch:
        context = ("softirq", event.cpu) if event.softirq else ("thread", event.pid)
        current = self._open.get(context)
        if current is None or _begins_anew(current, event):
            if current is not None and current.wanted:
                self._closed.append(current)
                del self._closed[:-MOST_STRETCHES]
            current = self._open[context] = _Stretch(context)
        return current

    def _count(self, event: KernelEvent) -> Report | None:
        address = event.number("skaddr")
        queue = self._queues.get(address)
        if queue is None:
            return None
        report = (queue, self._counts[address])
        self._counts[address] += 1
        self.times[report] = event.time
        before = self._latest.get(address)
        if before is not None:
            other, earlier = before
            if other.cpu != event.cpu and event.time - other.time < CLOSE:
                self._doubtful |= {report, earlier}
        self._latest[address] = (event, report)
        return report

    def trails(
        self, owners: Mapping[Report, int], made_here: AbstractSet[int] = frozenset()
    ) -> dict[int, Trail]:
        """Return each path's trail; `owners` says which path each message is a report of.

        Paths of packets that were made in their namespace came in by no interface but lo.
        """
        if not self.tied:
            return {}
        self._made_here = made_here
        found: defaultdict[int, list[_Traced]] = defaultdict(list)
        for stretch in self._wanted():
            for traced in self._read(stretch, owners):
                if traced.path is not None:
                    found[traced.path].append(traced)
        self._tie_late(found)
        return {path: self._trail(parts) for path, parts in found.items()}

    def unreported(self, device: str | None, thread: int | None, since: float) -> Trail | None:
        """Return the trail of a packet that no chain reported.

        It is the first one since then that came in by our device, or that the thread sent.
        """
        if self.lost:
            return None
        for stretch in self._wanted():
            for traced in self._read(stretch, {}):
                times = [event.time for event, _ in traced.drops]
                times += [crossing.time for crossing in (*traced.received, *traced.queued)]
                if not times or min(times) < since:
                    continue
                injected = device in {crossing.interface for crossing in traced.received}
                sent = stretch.context == ("thread", thread) and not traced.received
                if injected if device else sent:
                    return self._trail([traced, *self._beyond(traced)])
        return Trail() if device is None else None

    def _beyond(self, sent: _Traced) -> Iterator[_Traced]:
        """Yield the packet where it came out of a veth: at once, and with the same address."""
        for stretch in self._wanted():
            for traced in self._read(stretch, {}):
                if traced is sent or not (traced.received and sent.queued):
                    continue
                delay = traced.received[0].time - sent.queued[-1].time
                if 0 <= delay < PAUSE and traced.addresses & sent.addresses:
                    yield traced
                    return

    def _wanted(self) -> Iterator[_Stretch]:
        yield from self._closed
        yield from (stretch for stretch in self._open.values() if stretch.wanted)

    def _read(self, stretch: _Stretch, owners: Mapping[Report, int]) -> list[_Traced]:
        """Return the packets of a stretch, each with its events."""
        packets: list[_Traced] = []
        for index, event in enumerate(stretch.events):
            report = stretch.reports.get(index)
            if report is not None:
                self._reported(packets, owners.get(report), doubtful=report in self._doubtful)
            elif event.name == RECEIVE:
                _received(packets, event)
            elif event.name == QUEUE:
                _queued(packets, event)
            elif event.name == FREE:
                _freed(packets, event)
            elif event.name in (RESET, ERROR, WAIT):
                _answered(packets, event)
        return packets

    def _reported(self, packets: list[_Traced], path: int | None, *, doubtful: bool) -> None:
        """Make the packet that reported the last one of the list: the one that acts."""
        if path is None or doubtful:
            return
        known = next((each for each in packets if each.path == path), None)
        if known is None and packets and self._may_be(packets[-1], path):
            known = packets[-1]
            known.path = path
        if known is None:
            packets.append(_Traced(path))
            return
        packets.remove(known)
        packets.append(known)
        known.ended = False
        known.guessed = None

    def _may_be(self, received: _Traced, path: int) -> bool:
        """Tell whether a packet that was received may be one that reports for the first time."""
        if received.path is not None or received.ended or not received.received:
            return False
        return path not in self._made_here or received.received[-1].interface == "lo"

    def _tie_late(self, found: Mapping[int, list[_Traced]]) -> None:
        """Give packets that waited for a neighbour the end that came later, in another context.

        A packet that waits keeps its address: the first that is sent or freed there is the packet.
        What has no known address is tied to nothing.
        """
        for part in (part for parts in found.values() for part in parts if part.waits):
            since = part.waits[-1].time
            later = (event for event in self._ends if event.time > since)
            end = next((e for e in later if e.number("skbaddr") in part.addresses), None)
            if end is None or part.drops:
                continue
            if end.name == FREE:
                part.drops.append((end, Strength.REPORTED))
            else:
                part.queued.append(Crossing(end.time, end.text("name")))

    def _trail(self, parts: Sequence[_Traced]) -> Trail:
        drops = [
            DropHop(
                event.time,
                event.text("reason") or str(event.number("reason")),
                self._locate(event.number("location")),
                strength,
            )
            for part in parts
            for event, strength in part.drops
        ]
        return Trail(
            received=tuple(each for part in parts for each in part.received),
            queued=tuple(each for part in parts for each in part.queued),
            drops=tuple(sorted(drops, key=lambda drop: drop.time)),
            resets=tuple(
                ResetHop(event.time, event.text("reason") or None, "kernel")
                for part in parts
                for event in part.resets
            ),
            errors=tuple(
                ErrorSent(event.time, event.number("type"), event.number("code"))
                for part in parts
                for event in part.errors
            ),
            waits=tuple(_wait(event) for part in parts for event in part.waits),
        )


def _begins_anew(current: _Stretch, event: KernelEvent) -> bool:
    """Tell whether another packet's stretch begins.

    The same packet is received again where a device hands it on: ours to its target, a port to its
    bridge.
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
    for earlier in reversed(current.events):
        if earlier.name in (FREE, QUEUE) and earlier.number("skbaddr") == address:
            return True
        if earlier.name == RECEIVE:
            return earlier.number("skbaddr") != address or earlier.text("name") == name
    return True


def _received(packets: list[_Traced], event: KernelEvent) -> None:
    address = event.number("skbaddr")
    known = next((each for each in packets if address in each.addresses), None)
    if known is None:
        known = _Traced(None, {address})
        packets.append(known)
    known.received.append(Crossing(event.time, event.text("name")))


def _queued(packets: list[_Traced], event: KernelEvent) -> None:
    packet = _named(packets, event)
    if packet is None:
        packet = _acting(packets)
        if packet is None:
            packet = _Traced(None)
            packets.append(packet)
        packet.guessed = event.number("skbaddr")
    packet.addresses.add(event.number("skbaddr"))
    packet.queued.append(Crossing(event.time, event.text("name")))
    packet.ended = True


def _freed(packets: list[_Traced], event: KernelEvent) -> None:
    """Take a death; one whose address nobody told is that of a packet made here, or of no other.

    An answer that is not traced may die within the stretch of the packet that it answers.
    """
    packet, strength = _named(packets, event), Strength.REPORTED
    if packet is None:
        acting, strength = _acting(packets), Strength.MATCHED
        packet = acting if acting is not None and not acting.addresses else None
        if packet is None:
            packet = _Traced(None)
            packets.append(packet)
        if acting is None or packet is acting:
            packet.guessed = event.number("skbaddr")
    packet.drops.append((event, strength))
    packet.ended = True


def _answered(packets: list[_Traced], event: KernelEvent) -> None:
    """Take what the kernel does about a packet; it may name a copy of the one received."""
    if event.name == WAIT:
        _waits(packets, event)
        return
    packet = _named(packets, event) or _acting(packets)
    if packet is None:
        return
    packet.addresses.add(event.number("skbaddr"))
    (packet.resets if event.name == RESET else packet.errors).append(event)


def _waits(packets: list[_Traced], event: KernelEvent) -> None:
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


def _named(packets: Sequence[_Traced], event: KernelEvent) -> _Traced | None:
    address = event.number("skbaddr")
    named = [each for each in packets if address and address in each.addresses]
    return named[-1] if named else None


def _acting(packets: Sequence[_Traced]) -> _Traced | None:
    return next((each for each in reversed(packets) if not each.ended), None)


def _wait(event: KernelEvent) -> NeighbourWait:
    name = "primary_key4" if event.number("family") == AF_INET else "primary_key6"
    key = event.fields.get(name, b"")
    address = address_text(key) if isinstance(key, bytes) and len(key) in (4, 16) else ""
    return NeighbourWait(event.time, event.text("dev"), address)
