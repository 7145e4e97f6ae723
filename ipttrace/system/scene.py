"""Looks around in one namespace when a packet has come to its end (a `ports.SceneReader`).

One thread enters the namespace and asks all that is to be asked.  What cannot be read is named in
words, and the rest is read all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ipttrace.errors import IptTraceError
from ipttrace.evidence import Scene
from ipttrace.packet import Flow
from ipttrace.question import Question
from ipttrace.system.counters import read_counters, rises
from ipttrace.system.namespaces import Namespace
from ipttrace.system.network_settings import read_settings
from ipttrace.system.routes_seen import RoutesSeen, is_resolving, see_routes

T = TypeVar("T")


class NamespaceScene:
    """The tables, counters and settings of one namespace."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._counters: dict[str, int] = {}
        self._risen: dict[str, int] | None = None

    def before(self, flows: Sequence[Flow]) -> None:
        """Note what the counters and the connection table say before the packets are sent."""
        self._namespace.run(lambda: self._note(flows))

    def _note(self, flows: Sequence[Flow]) -> None:  # noqa: ARG002
        self._counters = read_counters()

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

        counters = attempt("counters", self._rises)
        routes = attempt("routes", lambda: see_routes(question)) or RoutesSeen()
        return Scene(
            last=question.last,
            counters=counters,
            settings=attempt("settings", lambda: read_settings(question)) or {},
            local=routes.local,
            route=routes.route,
            route_back=routes.back,
            neighbour=routes.neighbour,
            mtu=routes.mtu,
            missing=(*missing, *routes.missing),
        )

    def _rises(self) -> dict[str, int]:
        """Return by how much the counters rose; our own lookups count in them afterwards."""
        if self._risen is None:
            self._risen = rises(self._counters, read_counters())
        return self._risen
