"""The other network namespaces of this host, and which of them a packet came to that left one.

A packet that leaves by a veth comes out in the namespace of its other end, one that leaves by a
bridge in one of those of its ports' other ends.  From there the links between namespaces are
followed, the nearest first, to where the packet's destination is a local address.  Addresses alone
would not do: two labs or two container networks may use the same ones.

A thread enters one namespace after the other and asks the kernel there; nothing is changed.  The
kernel may answer late while namespaces are made or deleted (rtnl_lock): nobody waits longer than
`PATIENCE`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from ipttrace.decode.text import clean_text
from ipttrace.diagnose.onward import Onward, OtherNamespace
from ipttrace.errors import IptTraceError
from ipttrace.packet import PacketSummary
from ipttrace.path import PacketPath
from ipttrace.system.containers import container_of
from ipttrace.system.namespaces import HERE, NAMED, Namespace, enter_descriptor
from ipttrace.system.route_netlink import Link, RouteSocket
from ipttrace.system.socket_table import PROTOCOLS, DiagQuery, Found, with_processes

PATIENCE = 0.1
"""Seconds."""
PROC = Path("/proc")

PAIRS = frozenset({"veth", "netkit"})
"""Kinds of interfaces whose packets come out at another one."""

Inode = tuple[int, int]
"""Device and number of the file that stands for a namespace: the same for the same namespace."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A namespace of this host, and an open file that stands for it."""

    known_as: OtherNamespace
    descriptor: int


_Way = tuple[Candidate, ...]
_Found = tuple[Onward, Sequence[Sequence[Found]]]


def find_onward(traced: Sequence[Namespace], path: PacketPath) -> Onward:
    """Return where a packet came to that left one of the `traced` namespaces by an interface."""
    left = next(each for each in traced if each.name == path.netns)
    packet = path.last_packet or path.packet
    if path.out_interface is None or _is_for_many(packet.dst):
        return Onward()
    found: list[_Found] = []
    search = partial(_search, left, path.out_interface, packet, traced, found)
    thread = threading.Thread(target=search, name="onward", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if not found:
        return Onward()
    onward, sockets = found[0]
    return replace(onward, sockets=tuple(map(with_processes, sockets)))


def _search(
    left: Namespace,
    interface: str,
    packet: PacketSummary,
    traced: Sequence[Namespace],
    found: list[_Found],
) -> None:
    """Append what was found to `found`; the kernel may let this thread wait for a while."""
    deadline = time.monotonic() + PATIENCE
    known = {inode for each in traced if (inode := inode_of(each.path)) is not None}
    with ExitStack() as files, suppress(IptTraceError, OSError):
        explorer = _Explorer(list(candidates(known, files)), packet, deadline)
        found.append(explorer.run(left, interface))


def _is_for_many(address: str) -> bool:
    """Tell whether an address is that of hosts on many links, or of many hosts."""
    known = ip_address(address)
    return known.is_multicast or known.is_link_local or address == "255.255.255.255"


@dataclass(frozen=True, slots=True)
class _Explorer:
    """Runs in a thread that no other work is done in."""

    candidates: Sequence[Candidate]
    packet: PacketSummary
    deadline: float

    def run(self, left: Namespace, interface: str) -> _Found:
        """Return the ways on from an interface of the namespace that the packet left.

        With them the sockets on the packet's port where each way ends.
        """
        left.enter()
        with RouteSocket() as here:
            link = here.link(interface)
            if link is None:
                return Onward(), ()
            pair = link.kind in PAIRS
            first = self._behind(here, [link] if pair else here.ports(of=link.index))
        ways = self._ways_to_owners([(each,) for each in first])
        if ways:
            sockets = tuple(self._sockets(way[-1]) for way in ways)
            found = () if None in sockets else tuple(each or () for each in sockets)
            return Onward(tuple(map(_way_described, ways)), arrives=True), found
        return (Onward((_way_described((first[0],)),)) if pair and first else Onward()), ()

    def _sockets(self, end: Candidate) -> Sequence[Found] | None:
        """Return the sockets on the packet's port; None where they cannot be looked at."""
        packet = self.packet
        if packet.protocol not in PROTOCOLS or packet.dport is None:
            return None
        with suppress(OSError):
            enter_descriptor(end.descriptor)
            with DiagQuery() as asked:
                return asked.on_port(packet.protocol, packet.dport)
        return None

    def _ways_to_owners(self, ways: list[_Way]) -> list[_Way]:
        """Follow the links until namespaces are found that have the destination."""
        seen = {way[-1].descriptor for way in ways}
        while ways and time.monotonic() < self.deadline:
            arrived = []
            further: list[_Way] = []
            for way in ways:
                enter_descriptor(way[-1].descriptor)
                with RouteSocket() as there:
                    if there.is_local(self.packet.dst):
                        arrived.append(way)
                        continue
                    onward = self._behind(there, there.links())
                new = [each for each in onward if each.descriptor not in seen]
                seen |= {each.descriptor for each in new}
                further += [(*way, each) for each in new]
            if arrived:
                return arrived
            ways = further
        return []

    def _behind(self, asked: RouteSocket, links: Sequence[Link]) -> list[Candidate]:
        """Return the namespaces in which the other ends of links are."""
        wanted = {link.peer_namespace for link in links if link.kind in PAIRS} - {None}
        if not wanted:
            return []
        return [each for each in self.candidates if asked.namespace_id(each.descriptor) in wanted]


def candidates(known: set[Inode], files: ExitStack) -> Iterator[Candidate]:
    """Yield the namespaces of `ip netns` and those of processes, but `known` ones, each once."""
    processes = _first_processes()
    here = inode_of(HERE.path)
    paths: list[tuple[Path, str | None]] = [*_files()]
    paths += [(PROC / str(pid) / "ns" / "net", None) for pid in processes.values()]
    for path, name in paths:
        inode = inode_of(path)
        if inode is None or inode in known:
            continue
        known.add(inode)
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            files.callback(os.close, descriptor)
            pid = processes.get(inode)
            yield Candidate(OtherNamespace(name, pid=pid, here=inode == here), descriptor)


def _files() -> Iterator[tuple[Path, str]]:
    if NAMED.is_dir():
        yield from ((entry, entry.name) for entry in sorted(NAMED.iterdir()))


def _first_processes() -> dict[Inode, int]:
    """Return the lowest process id in each namespace."""
    first: dict[Inode, int] = {}
    for pid in sorted(int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal()):
        inode = inode_of(PROC / str(pid) / "ns" / "net")
        if inode is not None:
            first.setdefault(inode, pid)
    return first


def inode_of(path: Path) -> Inode | None:
    """Return what tells a namespace's file from those of others; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _way_described(way: _Way) -> tuple[OtherNamespace, ...]:
    """Return the namespaces with what their first processes are called, and their containers."""
    return tuple(described(each.known_as) for each in way)


def described(found: OtherNamespace) -> OtherNamespace:
    """Return a namespace with what its first process is called, and its container."""
    if found.pid is None:
        return found
    process = None
    with suppress(OSError):
        comm = (PROC / str(found.pid) / "comm").read_text(errors="replace")
        process = clean_text(comm.removesuffix("\n"))
    return replace(found, process=process, container=container_of(found.pid))
