"""Where a packet goes on that left a traced namespace for another one of this host."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ipttrace.diagnose.catalogue import Cause
from ipttrace.diagnose.endpoints import holder, place, port_words, socket_words
from ipttrace.evidence import SocketEntry
from ipttrace.path import LEFT, Evidence, PacketPath, Role, SocketState, Strength, WireHop
from ipttrace.result import TraceResult
from ipttrace.takers import taking

HERE = "/proc/self/ns/net"
"""What --netns takes for the namespace that the tool was started in."""
REMOTE = frozenset({Cause.REMOTE_REFUSED, Cause.REMOTE_SILENT})
SHORT_ID = 12
"""Characters of a container's id that the engines' own lists show."""


@dataclass(frozen=True, slots=True)
class OtherNamespace:
    """A namespace of this host, and what it is known by."""

    name: str | None = None
    """In `ip netns`."""
    container: str | None = None
    """The whole id."""
    pid: int | None = None
    """Its first process."""
    process: str | None = None
    here: bool = False
    """The one that the tool was started in."""

    @property
    def argument(self) -> str:
        """What --netns takes for it."""
        if self.here:
            return HERE
        return self.name or (self.container or "")[:SHORT_ID] or str(self.pid)

    def __str__(self) -> str:
        if self.here:
            return "the namespace that ipttrace was started in"
        process = ", ".join(filter(None, (f"pid {self.pid}" if self.pid else "", self.process)))
        about = f" ({process})" if process else ""
        if self.name:
            return f"namespace {self.name}{about}"
        if self.container:
            return f"container {self.container[:SHORT_ID]}{about}"
        return f"the namespace of pid {self.pid}" + (f" ({self.process})" if self.process else "")


@dataclass(frozen=True, slots=True)
class Onward:
    """What is known of a packet's further way, by the links between namespaces."""

    ways: tuple[tuple[OtherNamespace, ...], ...] = ()
    """The shortest to each namespace that has its destination, or to the next one alone."""
    arrives: bool = False
    """Whether the ways end where its destination is a local address."""
    sockets: tuple[tuple[SocketEntry, ...], ...] = ()
    """Those on its port at the end of each way; empty where they were not looked at."""


Find = Callable[[PacketPath], Onward]
"""Looks where a packet went that left; asked once for each path."""


def tell_onward(result: TraceResult, traced: Sequence[str | None], find: Find) -> TraceResult:
    """Return `result` with the further way of each probe that left the traced namespaces.

    `traced` are their names, in the order in which they were given.
    """
    last = {path.journey: path.id for path in result.paths if path.role is Role.PROBE}
    return replace(
        result,
        paths=tuple(
            _told(path, traced, find(path))
            if last.get(path.journey) == path.id and path.outcome in LEFT
            else path
            for path in result.paths
        ),
    )


def _told(path: PacketPath, traced: Sequence[str | None], onward: Onward) -> PacketPath:
    evidence = _evidence(path, onward)
    if not evidence or path.diagnosis is None:
        return path
    contained = any(isinstance(hop, WireHop) and hop.event == "contained" for hop in path.hops)
    told = replace(
        path.diagnosis,
        summary=path.diagnosis.summary + _fault(path, onward),
        evidence=(*path.diagnosis.evidence, *evidence),
        remedy=(_advice(onward, traced, contained=contained), *path.diagnosis.remedy),
    )
    return replace(path, diagnosis=told)


def _evidence(path: PacketPath, onward: Onward) -> list[Evidence]:
    if not onward.ways:
        return []
    if not onward.arrives:
        text = f"the other end of {path.out_interface} is in {onward.ways[0][0]}"
        return [Evidence(text, Strength.MATCHED)]
    address = (path.last_packet or path.packet).dst
    ends = " and of ".join(str(way[-1]) for way in onward.ways)
    there = [
        Evidence(f"in {way[-1]}: {_at_the_end(path, sockets)[1]}", Strength.MATCHED)
        for way, sockets in zip(onward.ways, onward.sockets, strict=False)
    ]
    return [Evidence(f"{address} is an address of {ends}", Strength.MATCHED), *there]


def _fault(path: PacketPath, onward: Onward) -> str:
    """Return what is wrong with the sockets where the packet came to, for the summary."""
    if path.diagnosis is None or path.diagnosis.cause not in REMOTE or len(onward.sockets) != 1:
        return ""
    fault, words = _at_the_end(path, onward.sockets[0])
    return f"; in {onward.ways[0][-1]}: {words}" if fault else ""


def _at_the_end(path: PacketPath, sockets: Sequence[SocketEntry]) -> tuple[bool, str]:
    """Tell whether the sockets of its last namespace explain why it failed, and how."""
    packet = path.last_packet or path.packet
    anywhere = [replace(each, interface=None) for each in sockets]
    taker = taking(anywhere, packet)
    listening = [each for each in sockets if each.state is SocketState.LISTEN]
    if taker is not None and taker.backlog is not None and taker.waiting > taker.backlog:
        queue = f"{taker.waiting} connections wait, and the backlog is {taker.backlog}"
        return True, f"{socket_words(taker)}, does not accept fast enough: {queue}"
    if taker is not None:
        return False, socket_words(taker)
    if listening:
        places = " and ".join(dict.fromkeys(map(place, listening)))
        return True, f"{port_words(packet)} is open only on {places} ({holder(listening[0])})"
    return True, f"no socket is on {port_words(packet)}"


def _advice(onward: Onward, traced: Sequence[str | None], *, contained: bool) -> str:
    goes = "would go on" if contained else "goes on"
    if len(onward.ways) > 1:
        where = " or ".join(str(way[-1]) for way in onward.ways)
        return f"it {goes} to {where}; to follow it there, add the right one with --netns"
    way = onward.ways[0]
    names = [HERE if name is None else name for name in traced] + [each.argument for each in way]
    words = [word for name in names for word in ("--netns", name)]
    options = shlex.join(["--let-out", *words] if contained else words)
    links = ", by links from there to " if len(way) > 1 else ""
    where = str(way[0]) + links + " and then to ".join(map(str, way[1:]))
    return f"it {goes} in {where}; to follow it there, repeat with: {options}"
