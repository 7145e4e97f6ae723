"""The second plane of one session: what the kernel says of its packets beside the chains' reports.

Every source of it may be absent; then the traced packets are as they were without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from ipttrace.diagnose.walk import mark_before, packet_before
from ipttrace.errors import IptTraceError
from ipttrace.evidence import NOTHING, Scene, Trail
from ipttrace.netfilter import Backend, Hook
from ipttrace.packet import Flow, PacketSummary
from ipttrace.path import ChainHop, Outcome, PacketPath
from ipttrace.ports import EventSource, KernelEvents, ProbeClient, SceneReader
from ipttrace.question import Question
from ipttrace.targets import sent_on_to
from ipttrace.ties import Report, Ties

LOST = "events of the kernel were overwritten before they could be read"
SETS_DSFIELD = re.compile(r"-j (?:TOS|DSCP)\b|\bdscp set\b")
UNTIED = (
    "this kernel does not say which of its events belong to which report: it has neither "
    "sk_data_ready nor kprobes"
)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the evidence of a session comes from."""

    events: KernelEvents | None = None
    scenes: Mapping[str | None, SceneReader] | None = None
    """By namespace; None: nobody asked for evidence."""
    missing: tuple[str, ...] = ()
    """Why there are no events, in words."""


NONE = Sources()
"""Nobody asked for evidence."""


class Gathering:
    """Gathers during one session; `tracers` are known by their number."""

    def __init__(self, sources: Sources) -> None:
        self._events = sources.events
        self._scenes = sources.scenes
        self._missing = sources.missing
        self._ties = Ties(sources.events.function if sources.events else lambda _: None)
        self._client: ProbeClient | None = None
        self._sent: list[float] = []

    @property
    def asked(self) -> bool:
        """Whether there is to be any evidence."""
        return self._scenes is not None

    def follow(self, number: int, source: EventSource) -> None:
        """Learn which socket a namespace's queue is; nothing is armed yet."""
        if self._events is None:
            return
        address = self._events.address_of(source)
        if address is not None:
            self._ties.follow(address, number)

    def begin(self, flows: Sequence[Flow], interfaces: Iterable[str], client: ProbeClient) -> None:
        """Note how things are before the first packet, and let the events come."""
        self._client = client
        for scene in (self._scenes or {}).values():
            scene.before(flows)
        if self._events is not None:
            devices = [client.device] if client.device else []
            names = sorted({*interfaces, *devices})
            self._ties.expect(devices, interfaces=names)
            self._events.start(names)
            self.drain()

    def sending(self, now: float) -> None:
        """Note that the next packet is about to be sent."""
        self._sent.append(now)

    def sent(self) -> None:
        """Note which thread sent it."""
        if self._client is not None and self._client.thread is not None:
            self._ties.expect(threads=[self._client.thread])

    def drain(self) -> None:
        """Take all events that wait."""
        if self._events is not None:
            self._ties.feed(*self._events.drain())

    def time_of(self, number: int, message: int) -> float | None:
        """Return when the kernel put a message into a queue."""
        report = (number, message)
        if self._ties.tied and report not in self._ties.times:
            self.drain()
        return self._ties.times.get(report)

    def close(self) -> None:
        """Stop the events."""
        if self._events is not None:
            self._events.close()

    def trails(self, numbers: Mapping[str | None, int], paths: Iterable[PacketPath]) -> Trails:
        """Return what the events say of each path; `numbers` are those of the namespaces."""
        if self._events is None:
            return Trails(None, {})
        paths = list(paths)
        made_here = {path.id for path in paths if path.in_interface is None}
        owners: dict[Report, int] = {
            (numbers[path.netns], message): path.id for path in paths for message in path.reports
        }
        flows = {
            path.id: (path.packet.flow, (path.last_packet or path.packet).flow) for path in paths
        }
        return Trails(self._ties, self._ties.trails(owners, made_here, flows))

    def unreported(self, index: int) -> Trail | None:
        """Return the trail of the packet sent as number `index` that no chain reported."""
        if self._events is None or self._client is None or index >= len(self._sent):
            return None
        client = self._client
        return self._ties.unreported(client.device, client.thread, self._sent[index])

    def scene(self, path: PacketPath, flows: tuple[Flow, ...], trail: Trail | None) -> Scene:
        """Return all that can be seen around a path's packet."""
        reader = (self._scenes or {}).get(path.netns)
        if reader is None:
            return NOTHING
        question = question_of(path, flows)
        scene = Scene(last=question.last)
        with suppress(IptTraceError):
            scene = reader.look(question)
        return replace(scene, trail=trail, missing=(*self._unseen(trail), *scene.missing))

    def resolving(self, path: PacketPath, trail: Trail | None) -> bool:
        """Tell whether a packet still waits for the next host's link address."""
        reader = (self._scenes or {}).get(path.netns)
        if reader is None or trail is None or not trail.waits or trail.drops:
            return False
        wait = trail.waits[-1]
        with suppress(IptTraceError, OSError):
            return reader.is_resolving(wait.interface, wait.address)
        return False

    def _unseen(self, trail: Trail | None) -> tuple[str, ...]:
        if self._events is None:
            return self._missing
        if self._ties.lost:
            return (LOST,)
        absent = tuple(f"this kernel has no event {name}" for name in self._events.missing)
        return absent if self._ties.tied or trail is not None else (UNTIED,)


@dataclass(frozen=True, slots=True)
class Trails:
    """What the events say of the paths of a session."""

    ties: Ties | None
    by_path: Mapping[int, Trail]

    def of(self, path: PacketPath) -> Trail | None:
        """Return a path's trail: empty if nothing was told of it, None if nothing can be."""
        if self.ties is None or not self.ties.tied or not path.reports:
            return None
        return self.by_path.get(path.id, Trail())


def question_of(path: PacketPath, flows: tuple[Flow, ...]) -> Question:
    """Return what is to be asked about a packet: as it was routed, and as it ended."""
    hops = path.chain_hops
    after = (Hook.INPUT, Hook.FORWARD, Hook.POSTROUTING)
    begins = next((hop for hop in hops if hop.hook in after), None)
    routed = packet_before(path, begins)
    last = path.last_packet or packet_before(path, None)
    if begins is None:
        routed = last = _sent_on(last, hops[-1] if hops else None)
    return Question(
        first=path.packet,
        routed=routed,
        last=last,
        flows=flows or (path.packet.flow,),
        in_interface=path.in_interface,
        out_interface=path.out_interface,
        mark=mark_before(path, begins) if begins is not None else _last_mark(path),
        dsfield=_dsfield(path, begins),
        refused=path.outcome in (Outcome.REFUSED, Outcome.REJECTED),
        seen=bool(path.reports or hops),
    )


def _sent_on(packet: PacketSummary, hop: ChainHop | None) -> PacketSummary:
    """Return the packet as the last rule left it, which no later report could show."""
    aim = sent_on_to(hop.rule) if hop is not None else None
    if aim is None:
        return packet
    return replace(packet, dst=aim[0], dport=packet.dport if aim[1] is None else aim[1])


def _dsfield(path: PacketPath, begins: ChainHop | None) -> int | None:
    """Return the field as it was when a packet was routed; a client of ours leaves it 0."""
    hops = path.chain_hops
    setters = [place for place, hop in enumerate(hops) if SETS_DSFIELD.search(hop.rule or "")]
    routed = len(hops) if begins is None else hops.index(begins)
    if not setters or setters[0] >= routed:
        told = path.packet.dsfield
        return 0 if told is None and path.in_interface is None else told
    last = setters[-1]
    shown = any(_shows_anew(hop, hops[last]) for hop in hops[last + 1 :])
    return path.last_packet.dsfield if path.last_packet and shown and last < routed else None


def _shows_anew(hop: ChainHop, setter: ChainHop) -> bool:
    """Tell whether a later report showed the headers: nft does once for each base chain."""
    place = (setter.chain.table, setter.hook, setter.priority)
    return hop.chain.backend is Backend.LEGACY or (hop.chain.table, hop.hook, hop.priority) != place


def _last_mark(path: PacketPath) -> int:
    marks = [c.new for hop in path.chain_hops for c in hop.changes if c.field == "mark"]
    return marks[-1] if marks and isinstance(marks[-1], int) else path.mark
