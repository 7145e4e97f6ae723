"""Ties the kernel's events, which are of the whole host, to single packets.

Theory of operation
===================

Tracepoints name a packet by the address of its sk_buff only, and addresses are reused at once.
What ties events to a packet are its own trace reports: each message that the kernel puts into one
of our netlink queues is an event itself (sk_data_ready; where that is missing, a probe of ours
writes the same), written in the midst of the others by the processor that walks the packet.  The
n-th such event of a queue is the n-th message read from it, so every report says where in the
stream of events its packet was.

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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

from ipttrace.event import KernelEvent
from ipttrace.evidence import Crossing, ErrorSent, Trail
from ipttrace.path import DropHop, ResetHop, Strength
from ipttrace.stretches import (
    ERROR,
    FREE,
    PAUSE,
    QUEUE,
    READY,
    RECEIVE,
    RESET,
    WAIT,
    Context,
    Flows,
    Locate,
    Report,
    Stretch,
    Traced,
    begins_anew,
    neighbour_wait,
    note_answered,
    note_freed,
    note_queued,
    note_received,
)

__all__ = ["Report", "Ties"]

CLOSE = 20e-6
"""Seconds: messages of two processors that are closer may be in the queue the other way round."""

MOST_STRETCHES = 20_000
"""The oldest are forgotten."""

MOST_ENDS = 10_000
"""How many sent and freed packets are remembered, of all traffic."""

NOT_A_DEATH = frozenset(
    {
        ("NO_SOCKET", "ping_rcv"),
        ("NO_SOCKET", "icmp_rcv"),
        ("NO_SOCKET", "icmpv6_rcv"),
        ("NOT_SPECIFIED", "icmpv6_rcv"),
    }
)
"""How an echo reply ends after raw sockets, ping's, had their copies.  The others are of Linux 6.1,
where icmp_rcv and icmpv6_rcv free it; icmpv6_rcv frees all that it took by the last one."""


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
        self._open: dict[Context, Stretch] = {}
        self._closed: list[Stretch] = []
        self._ends: deque[KernelEvent] = deque(maxlen=MOST_ENDS)
        self._devices: frozenset[str] = frozenset()
        self._interfaces: frozenset[str] | None = None
        """Of the traced namespaces; None: unknown."""
        self._threads: frozenset[int] = frozenset()
        self._made_here: AbstractSet[int] = frozenset()
        self._flows: Flows = {}
        self._crossing: set[int] = set()
        """Addresses of what these threads gave to an interface, as far as it may come in again."""

    def follow(self, address: int, queue: int) -> None:
        """Count the messages of the queue whose socket has that address, from now on."""
        self._queues[address] = queue
        self._counts[address] = 0

    def expect(
        self,
        devices: Iterable[str] = (),
        threads: Iterable[int] = (),
        interfaces: Iterable[str] | None = None,
    ) -> None:
        """Keep what is received from these devices, and what these threads do.

        `interfaces` are those of the traced namespaces: no other takes over what one received.
        """
        if interfaces is not None:
            self._interfaces = frozenset(interfaces)
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

    def _stretch(self, event: KernelEvent) -> Stretch:
        context = ("softirq", event.cpu) if event.softirq else ("thread", event.pid)
        current = self._open.get(context)
        if current is None or begins_anew(current, event, self._interfaces):
            if current is not None and current.wanted:
                self._closed.append(current)
                del self._closed[:-MOST_STRETCHES]
            current = self._open[context] = Stretch(context)
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
        self,
        owners: Mapping[Report, int],
        made_here: AbstractSet[int] = frozenset(),
        flows: Flows | None = None,
    ) -> dict[int, Trail]:
        """Return each path's trail; `owners` says which path each message is a report of.

        Paths of packets that were made in their namespace came in by no interface but lo.
        """
        if not self.tied:
            return {}
        self._made_here, self._flows = made_here, flows or {}
        found: defaultdict[int, list[Traced]] = defaultdict(list)
        for stretch in self._wanted():
            if owners.keys().isdisjoint(stretch.reports.values()):
                continue  # nobody asks for these packets
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

    def _beyond(self, sent: Traced) -> Iterator[Traced]:
        """Yield the packet where it came out of a veth: at once, and with the same address."""
        for stretch in self._wanted():
            for traced in self._read(stretch, {}):
                if not (traced.received and sent.queued):
                    continue
                delay = traced.received[0].time - sent.queued[-1].time
                if 0 <= delay < PAUSE and traced.addresses & sent.addresses:
                    yield traced
                    return

    def _wanted(self) -> Iterator[Stretch]:
        yield from self._closed
        yield from (stretch for stretch in self._open.values() if stretch.wanted)

    def _read(self, stretch: Stretch, owners: Mapping[Report, int]) -> list[Traced]:
        """Return the packets of a stretch, each with its events."""
        packets: list[Traced] = []
        for index, event in enumerate(stretch.events):
            report = stretch.reports.get(index)
            if report is not None:
                self._reported(packets, owners.get(report), doubtful=report in self._doubtful)
            elif event.name == RECEIVE:
                note_received(packets, event)
            elif event.name == QUEUE:
                note_queued(packets, event)
            elif event.name == FREE:
                note_freed(packets, event, self._locate)
            elif event.name in (RESET, ERROR, WAIT):
                note_answered(packets, event, self._flows)
        return packets

    def _reported(self, packets: list[Traced], path: int | None, *, doubtful: bool) -> None:
        """Make the packet that reported the last one of the list: the one that acts."""
        if path is None or doubtful:
            return
        known = next((each for each in packets if each.path == path), None)
        if known is None and packets and self._may_be(packets[-1], path):
            known = packets[-1]
            known.path = path
        if known is None:
            packets.append(Traced(path))
            return
        packets.remove(known)
        packets.append(known)
        known.ended = known.gone = False
        known.guessed = None

    def _may_be(self, received: Traced, path: int) -> bool:
        """Tell whether a packet that was received may be one that reports for the first time."""
        if received.path is not None or received.ended or not received.received:
            return False
        return path not in self._made_here or received.received[-1].interface == "lo"

    def _tie_late(self, found: Mapping[int, list[Traced]]) -> None:
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

    def _trail(self, parts: Sequence[Traced]) -> Trail:
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
        drops = [drop for drop in drops if (drop.reason, drop.location) not in NOT_A_DEATH]
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
            waits=tuple(neighbour_wait(event) for part in parts for event in part.waits),
        )
