"""What the routing and neighbour tables of the calling thread's namespace say of one packet."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from ipttrace.evidence import Neighbour, Route
from ipttrace.question import Question
from ipttrace.system import network_owner
from ipttrace.system.route_lookup import Lookup, RouteTables

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RoutesSeen:
    """The answers; None is what could not be asked, as `missing` says."""

    route: Route | None = None
    back: Route | None = None
    neighbour: Neighbour | None = None
    mtu: Mapping[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def local(self) -> bool | None:
        """Whether the destination is an address of the namespace."""
        return None if self.route is None else self.route.kind in ("local", "broadcast")


def see_routes(question: Question) -> RoutesSeen:
    """Ask all that is to be asked of a packet; raises OSError where nothing can be."""
    missing: list[str] = []

    def attempt(what: str, ask: Callable[[], T]) -> T | None:
        try:
            return ask()
        except (OSError, ValueError, IndexError) as error:
            missing.append(f"{what}: {error}")
            return None

    lookup = Lookup(
        question.routed, question.mark, question.in_interface, question.dsfield, _uid(question)
    )
    with RouteTables() as tables:
        route = attempt("route", lambda: tables.route(lookup))
        back = attempt("way back", lambda: tables.back(question.routed, question.mark))
        neighbour = None
        if route is not None:
            neighbour = attempt("neighbour", lambda: tables.neighbour(route, question.routed))
        ends = (question.in_interface, question.out_interface, route.interface if route else None)
        mtu = attempt("mtu", lambda: tables.mtu(dict.fromkeys(ends))) or {}
    return RoutesSeen(route, back, neighbour, mtu, tuple(missing))


def _uid(question: Question) -> int | None:
    """Return whose packet it is to routing rules; None where that is not known.

    One that came in is the network's root's (sock_net_uid in ip_route_input_slow); one that was
    made here is our client's.
    """
    if question.in_interface is None:
        return os.geteuid()
    return 0 if network_owner.is_ours() else None


def is_resolving(interface: str, address: str) -> bool:
    """Tell whether the kernel still asks for a neighbour's link address; raises OSError."""
    with RouteTables() as tables:
        entry = tables.entry(interface, address)
    return entry is not None and entry.state == "incomplete"
