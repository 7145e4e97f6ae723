"""Looks around in one namespace when a packet has come to its end (a `ports.SceneReader`).

One thread enters the namespace and asks all that is to be asked.  What cannot be read is named in
words, and the rest is read all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from ipttrace.errors import IptTraceError
from ipttrace.evidence import Connection, Scene, SocketEntry
from ipttrace.packet import Flow
from ipttrace.question import Question
from ipttrace.system.connections import (
    concerning,
    read_connections,
    read_conntrack_settings,
    read_queues,
)
from ipttrace.system.counters import read_counters, rises
from ipttrace.system.namespaces import Namespace
from ipttrace.system.network_settings import read_settings
from ipttrace.system.routes_seen import RoutesSeen, is_resolving, see_routes
from ipttrace.system.socket_table import read_sockets
from ipttrace.system.sockets_elsewhere import LATE, listeners_elsewhere

T = TypeVar("T")


class NamespaceScene:
    """The tables, counters and settings of one namespace."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._counters: dict[str, int] = {}
        self._connections: tuple[Connection, ...] = ()

    def before(self, flows: Sequence[Flow]) -> None:
        """Note what the counters and the connection table say before the packets are sent."""
        self._namespace.run(lambda: self._note(flows))

    def _note(self, flows: Sequence[Flow]) -> None:
        self._counters = read_counters()
        with suppress(OSError, IptTraceError, ValueError):  # `look` tells what cannot be read
            self._connections = read_connections(flows)

    def look(self, question: Question) -> Scene:
        """Return all that can be seen around a packet; its `trail` is left to the caller."""
        return self._namespace.run(lambda: self._look(question))

    def is_resolving(self, interface: str, address: str) -> bool:
        """Tell whether the kernel still asks for the link address of a neighbour."""
        return self._namespace.run(lambda: is_resolving(interface, address))

    def _look(self, question: Question) -> Scene:
        missing: list[str] = []

        def attempt(what: str, read: Callable[[], T]) -> T | None:
            try:
                return read()
            except (OSError, IptTraceError, ValueError) as error:
                missing.append(f"{what}: {error}")
                return None

        counters = attempt("counters", read_counters)
        routes = attempt("routes", lambda: see_routes(question)) or RoutesSeen()
        scene = Scene(
            last=question.last,
            counters=rises(self._counters, counters) if counters is not None else None,
            settings={
                **(attempt("settings", lambda: read_settings(question)) or {}),
                **(attempt("conntrack's settings", read_conntrack_settings) or {}),
            },
            connections=attempt("connections", lambda: read_connections(question.flows)),
            before=concerning(self._connections, question.flows),
            queues=attempt("queues", read_queues),
            sockets=attempt("sockets", lambda: read_sockets(question.last, question.in_interface)),
            elsewhere=attempt("sockets of other namespaces", lambda: self._elsewhere(question))
            or (),
            local=routes.local,
            route=routes.route,
            route_back=routes.back,
            neighbour=routes.neighbour,
            mtu=routes.mtu,
            missing=(*missing, *routes.missing),
        )
        self._leave_out(counters)
        return scene

    def _leave_out(self, before: dict[str, int] | None) -> None:
        """Leave what our own lookups added to the counters out of their rises from now on."""
        if before is None:
            return
        for name, number in rises(before, read_counters()).items():
            self._counters[name] = self._counters.get(name, 0) + number

    def _elsewhere(self, question: Question) -> tuple[SocketEntry, ...]:
        """Return the listeners in other namespaces of a port that was refused here.

        Those found before time was up are not all: that none listens then is not known.
        """
        if not question.refused:
            return ()
        packet = question.last
        found, complete = listeners_elsewhere(self._namespace, packet.protocol, packet.dport)
        if not complete and not found:
            raise ValueError(LATE)
        return found
