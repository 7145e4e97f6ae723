"""Looks around in one namespace when a packet has come to its end (a `ports.SceneReader`).

One thread enters the namespace and asks all that is to be asked.  What cannot be read is named in
words, and the rest is read all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ipttrace.errors import IptTraceError
from ipttrace.evidence import Scene, SocketEntry
from ipttrace.packet import Flow
from ipttrace.question import Question
from ipttrace.system.counters import read_counters, rises
from ipttrace.system.namespaces import Namespace
from ipttrace.system.route_netlink import RouteSocket
from ipttrace.system.socket_table import read_sockets
from ipttrace.system.sockets_elsewhere import LATE, listeners_elsewhere

T = TypeVar("T")


class NamespaceScene:
    """The tables, counters and settings of one namespace."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._counters: dict[str, int] = {}

    def before(self, flows: Sequence[Flow]) -> None:
        """Note what the counters and the connection table say before the packets are sent."""
        self._namespace.run(lambda: self._note(flows))

    def _note(self, flows: Sequence[Flow]) -> None:
        self._counters = read_counters()

    def look(self, question: Question) -> Scene:
        """Return all that can be seen around a packet; its `trail` is left to the caller."""
        return self._namespace.run(lambda: self._look(question))

    def _look(self, question: Question) -> Scene:
        missing: list[str] = []

        def attempt(what: str, read: Callable[[], T]) -> T | None:
            try:
                return read()
            except (OSError, IptTraceError, ValueError) as error:
                missing.append(f"{what}: {error}")
                return None

        return Scene(
            last=question.last,
            counters=attempt("counters", lambda: rises(self._counters, read_counters())),
            sockets=attempt("sockets", lambda: read_sockets(question.last, question.in_interface)),
            elsewhere=attempt("sockets of other namespaces", lambda: self._elsewhere(question))
            or (),
            local=attempt("local addresses", lambda: _is_local(question.last.dst)),
            missing=tuple(missing),
        )

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


def _is_local(address: str) -> bool:
    with RouteSocket() as asked:
        return asked.is_local(address)
