"""The sockets of one namespace on one port, and the processes that hold them.

Asked by NETLINK_SOCK_DIAG (sock_diag(7)), which filters by port in the kernel, so that a host with
100,000 connections answers as fast as an idle one.  Processes are found by our own walk through
/proc, only for the few sockets that matter: a process may be gone, or not ours to see.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ipttrace.decode.sock_diag import (
    AF_INET,
    AF_INET6,
    TCP_CLOSE,
    TCP_ESTABLISHED,
    TCP_LISTEN,
    TCP_NEW_SYN_RECV,
    TCP_SYN_RECV,
    TCP_TIME_WAIT,
    DiagSocket,
    decode_socket,
    request,
)
from ipttrace.decode.text import clean_text
from ipttrace.evidence import SocketEntry
from ipttrace.packet import PacketSummary
from ipttrace.path import SocketState
from ipttrace.system.netlink_requests import NLM_F_DUMP, RequestSocket

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20

PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
LISTENING = {"tcp": 1 << TCP_LISTEN, "udp": 1 << TCP_CLOSE | 1 << TCP_ESTABLISHED}
"""States of the sockets that a dump gives: all there are of UDP."""
HALF = frozenset({TCP_SYN_RECV, TCP_NEW_SYN_RECV, TCP_TIME_WAIT})
"""No program has these: the kernel keeps them before accept() and after close()."""

PATIENCE = 0.1
"""Seconds for the walk through /proc."""

PROC = Path("/proc")

Found = tuple[SocketEntry, int]
"""A socket and its inode."""


class DiagQuery(RequestSocket):
    """Asks for the sockets of the namespace where it was made."""

    def __init__(self) -> None:
        super().__init__(NETLINK_SOCK_DIAG)

    def on_port(self, protocol: str, port: int) -> list[Found]:
        """Return the listeners of TCP, or all sockets of UDP, on a port; raises OSError."""
        number, states = PROTOCOLS[protocol], LISTENING[protocol]
        return [
            _found(protocol, each)
            for family in (AF_INET, AF_INET6)
            for each in self._sockets(request(family, number, states, port), NLM_F_DUMP)
        ]

    def connected(self, packet: PacketSummary, interface: int = 0) -> list[Found]:
        """Return the TCP connection that the packet belongs to, as the kernel looks it up."""
        family = AF_INET6 if ":" in packet.dst else AF_INET
        wanted = request(
            family,
            PROTOCOLS["tcp"],
            0,
            packet.dport or 0,
            address=packet.dst,
            remote=(packet.src, packet.sport or 0),
            interface=interface,
        )
        try:
            answers = self._sockets(wanted)
        except FileNotFoundError:  # no socket takes it
            return []
        alive = [each for each in answers if each.state not in HALF | {TCP_LISTEN}]
        return [_found("tcp", each) for each in alive]

    def _sockets(self, body: bytes, flags: int = 0) -> list[DiagSocket]:
        return [decode_socket(each) for each in self._ask(SOCK_DIAG_BY_FAMILY, body, flags)]


def read_sockets(packet: PacketSummary, interface: str | None) -> tuple[SocketEntry, ...] | None:
    """Return the calling thread's namespace's sockets on the packet's port, with their processes.

    All that listen there whatever their address, and the connection that it belongs to.  None for
    protocols without ports; raises OSError where the kernel has no inet_diag.
    """
    if packet.protocol not in PROTOCOLS or packet.dport is None:
        return None
    with DiagQuery() as asked:
        found = asked.on_port(packet.protocol, packet.dport)
        if packet.protocol == "tcp" and packet.sport:
            found += asked.connected(packet, _index(interface))
    return with_processes(found)


def listeners(protocol: str, port: int) -> list[Found]:
    """Return the listeners on a port in the calling thread's namespace; raises OSError."""
    with DiagQuery() as asked:
        found = asked.on_port(protocol, port)
    return [(entry, inode) for entry, inode in found if entry.state is SocketState.LISTEN]


def with_processes(found: Iterable[Found]) -> tuple[SocketEntry, ...]:
    """Return the sockets with the processes that hold them, as far as they are to be seen."""
    sockets = list(found)
    holders = _holders({inode for _, inode in sockets if inode})
    return tuple(
        replace(entry, pid=pid, process=_name(pid)) if (pid := holders.get(inode)) else entry
        for entry, inode in sockets
    )


def _found(protocol: str, told: DiagSocket) -> Found:
    listening = told.state == TCP_LISTEN
    remote = None if listening or told.state == TCP_CLOSE else (told.remote, told.remote_port)
    entry = SocketEntry(
        protocol,
        SocketState.LISTEN if remote is None else SocketState.ESTABLISHED,
        told.address,
        told.port,
        remote,
        v6_only=told.v6_only,
        interface=_interface(told.interface),
        waiting=told.rqueue if listening else 0,
        backlog=told.wqueue if listening else None,
    )
    return entry, told.inode


def _interface(index: int) -> str | None:
    if not index:
        return None
    try:
        return socket.if_indextoname(index)
    except OSError:  # it is gone; the socket takes nothing any more
        return f"interface {index}"


def _index(name: str | None) -> int:
    with suppress(OSError):
        return socket.if_nametoindex(name) if name else 0
    return 0


def _holders(inodes: set[int]) -> Mapping[int, int]:
    """Return, by inode, the lowest process that has a socket open; after PATIENCE what is known."""
    deadline = time.monotonic() + PATIENCE
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, int] = {}
    if not wanted:
        return found
    for pid in sorted(int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal()):
        for target in _targets(pid) & wanted.keys():
            found.setdefault(wanted[target], pid)
        if len(found) == len(wanted) or time.monotonic() > deadline:
            break
    return found


def _targets(pid: int) -> set[str]:
    """Return what a process has open; nothing where it is gone, or not ours to see."""
    targets: set[str] = set()
    with suppress(OSError), os.scandir(f"{PROC}/{pid}/fd") as entries:
        for entry in entries:
            with suppress(OSError):
                targets.add(os.readlink(entry.path))  # noqa: PTH115 - half the time of a Path
    return targets


def _name(pid: int) -> str | None:
    try:
        comm = (PROC / str(pid) / "comm").read_text(errors="replace")
    except OSError:
        return None
    return clean_text(comm.removesuffix("\n"))
