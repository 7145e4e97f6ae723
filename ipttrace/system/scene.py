"""Looks around in one namespace when a packet has come to its end (a `ports.SceneReader`).

One thread enters the namespace and asks all that is to be asked.  What cannot be read is named in
words, and the rest is read all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from ipttrace.errors import IptTraceError
from ipttrace.evidence import Connection, Scene
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
            settings={**(attempt("conntrack's settings", read_conntrack_settings) or {})},
            connections=attempt("connections", lambda: read_connections(question.flows)),
            before=concerning(self._connections, question.flows),
            queues=attempt("queues", read_queues),
            missing=tuple(missing),
        )
