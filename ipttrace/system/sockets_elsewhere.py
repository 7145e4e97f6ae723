"""Who listens on a port in the other network namespaces of this host.

A thread enters one namespace after the other and asks inet_diag there; nothing is changed.  With
hundreds of namespaces the answer must still come soon: nobody waits longer than `PATIENCE`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from ipttrace.errors import IptTraceError
from ipttrace.evidence import SocketEntry
from ipttrace.system.namespaces import Namespace, enter_descriptor
from ipttrace.system.neighbour_namespaces import (
    PAIRS,
    PATIENCE,
    Candidate,
    candidates,
    described,
    inode_of,
)
from ipttrace.system.route_netlink import RouteSocket
from ipttrace.system.socket_table import PROTOCOLS, Found, listeners, with_processes

LATE = "there are too many to look into all of them in time"


@dataclass(slots=True)
class Elsewhere:
    """What was found; grows while the thread looks."""

    sockets: list[Found] = field(default_factory=list)
    linked: set[str] = field(default_factory=set)
    """The namespaces that a link leads to from the one that was asked about."""
    complete: bool = False


def listeners_elsewhere(
    here: Namespace, protocol: str, port: int | None
) -> tuple[tuple[SocketEntry, ...], bool]:
    """Return the listeners on a port in all namespaces but `here`, the likeliest to be meant first.

    Likelier is one in a namespace that a link leads to, and one that more than loopback reaches.
    Also returns whether all namespaces were looked into.
    """
    if protocol not in PROTOCOLS or port is None:
        return (), True
    found = Elsewhere()
    arguments = (here, protocol, port, found)
    thread = threading.Thread(target=_search, args=arguments, name="elsewhere", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    complete, linked, sockets = found.complete, set(found.linked), list(found.sockets)
    entries = with_processes(sockets)
    return tuple(sorted(entries, key=lambda each: _rank(each, linked))), complete


def _rank(entry: SocketEntry, linked: set[str]) -> tuple[bool, bool, str]:
    alone = ip_address(entry.address).is_loopback
    return entry.netns not in linked, alone, entry.netns or ""


def _search(here: Namespace, protocol: str, port: int, found: Elsewhere) -> None:
    deadline = time.monotonic() + PATIENCE
    own = inode_of(here.path)
    with ExitStack() as files, suppress(IptTraceError, OSError):
        others = list(candidates({own} if own else set(), files))
        back = os.open(here.path, os.O_RDONLY | os.O_CLOEXEC)
        files.callback(os.close, back)
        holding = [each for each in others if _look_into(each, protocol, port, found, deadline)]
        found.complete = time.monotonic() <= deadline
        if holding:
            enter_descriptor(back)
            found.linked |= _linked(holding)


def _look_into(
    candidate: Candidate, protocol: str, port: int, found: Elsewhere, deadline: float
) -> bool:
    """Add a namespace's listeners; tell whether there are any."""
    if time.monotonic() > deadline:
        return False
    with suppress(OSError):
        enter_descriptor(candidate.descriptor)
        listening = listeners(protocol, port)
        if listening:
            where = str(described(candidate.known_as))
            found.sockets += [(replace(entry, netns=where), inode) for entry, inode in listening]
        return bool(listening)
    return False


def _linked(others: Sequence[Candidate]) -> set[str]:
    """Return those of the namespaces that links of the calling thread's namespace lead to."""
    with RouteSocket() as asked:
        peers = {link.peer_namespace for link in asked.links() if link.kind in PAIRS} - {None}
        near = [each for each in others if asked.namespace_id(each.descriptor) in peers]
    return {str(described(each.known_as)) for each in near}
