"""The routes and policy rules of a twin, as the parts of a lab have them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from typing import get_args

from ipttrace.lab.host_state import LinkState, PolicyState, RouteState, Snapshot
from ipttrace.lab.missing import Missing
from ipttrace.lab.parts import BadFieldError
from ipttrace.lab.routing import PolicyAction, PolicyRule, Route, RouteType

TYPES = frozenset(get_args(RouteType))
ACTIONS = frozenset(get_args(PolicyAction))
TABLES = {"local": 255, "main": 254, "default": 253}
FIRST_UNNAMED = 10_000
"""Tables with a name of /etc/iproute2/rt_tables get numbers from here."""
USUAL = {
    "ipv4": {(0, "local"), (32766, "main"), (32767, "default")},
    "ipv6": {(0, "local"), (32766, "main")},
}
"""The routing rules that every namespace has."""

Network = IPv4Network | IPv6Network


@dataclass(slots=True)
class Routing:
    """Routes and rules, and what is lacking."""

    routes: tuple[Route, ...] = ()
    policy: tuple[PolicyRule, ...] = ()
    missing: list[Missing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Tables:
    """Numbers for the names of routing tables."""

    def __init__(self) -> None:
        self._given: dict[str, int] = {}

    def number(self, name: str) -> int:
        if name.isdecimal():
            return int(name)
        if name in TABLES:
            return TABLES[name]
        return self._given.setdefault(name, FIRST_UNNAMED + len(self._given))

    def notes(self) -> Iterator[str]:
        for name, number in self._given.items():
            yield f"routing table {name} has number {number}"


def routing_of(snapshot: Snapshot, links: Sequence[LinkState], up: set[str]) -> Routing:
    """Return what the twin has of the snapshot's routing; `up` names the interfaces it has."""
    routing, tables = Routing(), _Tables()
    connected = _connected(links)
    local = {str(ip_interface(text).ip) for link in snapshot.links for text in _valid(link)}
    wanted = [*snapshot.routes, *_of_peers(links, snapshot.routes)]
    routes: dict[tuple[object, ...], Route] = {}
    for state in sorted(wanted, key=lambda each: each.via is not None):
        if _is_connected(state, connected):
            continue
        route = _route(routing, state, tables, up, local, connected)
        if route is None:
            continue
        key = (route.network, route.version, route.table, route.metric)
        if key in routes:
            _lack(routing, state, "there is another one to the same network")
        else:
            routes[key] = route
    routing.routes = tuple(routes.values())
    routing.policy = tuple(_policies(routing, snapshot, tables))
    routing.notes += tables.notes()
    return routing


def _valid(link: LinkState) -> Iterator[str]:
    for text in link.addresses:
        try:
            ip_interface(text)
        except ValueError:
            continue
        yield text


def _connected(links: Sequence[LinkState]) -> dict[str, list[Network]]:
    return {
        link.name: [ip_interface(text).network for text in _valid(link)]
        for link in links
        if link.up
    }


def _of_peers(links: Sequence[LinkState], routes: Sequence[RouteState]) -> Iterator[RouteState]:
    """Yield routes to the other ends of point-to-point links: a twin's addresses have no peer."""
    known = {(route.to.partition("/")[0], route.interface) for route in routes}
    for link in links:
        for peer in link.peers:
            if (peer.partition("/")[0], link.name) in known:
                continue
            family = "ipv6" if ":" in peer else "ipv4"
            yield RouteState(peer, family, interface=link.name)


def _is_connected(state: RouteState, connected: dict[str, list[Network]]) -> bool:
    """Tell whether the kernel makes a route by itself when the address is added."""
    if state.via is not None or state.protocol != "kernel" or state.to == "default":
        return False
    try:
        network = ip_network(state.to, strict=False)
    except ValueError:
        return False
    link_local = network.version == 6 and network.is_link_local
    return link_local or network in connected.get(state.interface or "", ())


def _route(
    routing: Routing,
    state: RouteState,
    tables: _Tables,
    up: set[str],
    local: set[str],
    connected: dict[str, list[Network]],
) -> Route | None:
    if problem := _impossible(state, up):
        _lack(routing, state, problem)
        return None
    if state.other:
        _lack(routing, state, f"without: {state.other}")
    source = state.source if state.source in local else None
    if state.source is not None and source is None:
        _lack(routing, state, f"without its source: the twin has no address {state.source}")
    try:
        return Route(
            to=_network(state.to),
            via=state.via,
            interface=state.interface if state.type == "unicast" else None,
            table=tables.number(state.table) if state.table != "main" else None,
            type=state.type,  # type: ignore[arg-type]
            source=source,
            metric=state.metric,
            mtu=state.mtu,
            family="ipv6" if state.family == "ipv6" else "ipv4",
            onlink=state.onlink or not _reachable(state, connected),
        )
    except (BadFieldError, ValueError) as error:
        _lack(routing, state, str(error))
        return None


def _impossible(state: RouteState, up: set[str]) -> str | None:
    if state.type == "unicast" and state.interface not in up:
        return f"interface {state.interface} is not there, or not up"
    return None if state.type in TYPES else f"no lab has routes of type {state.type}"


def _network(text: str) -> str:
    return text if text == "default" else str(ip_network(text, strict=False))


def _reachable(state: RouteState, connected: dict[str, list[Network]]) -> bool:
    """Tell whether a network of the interface holds the gateway."""
    if state.via is None:
        return True
    via = ip_address(state.via)
    return via.is_link_local or any(
        via in each for each in connected.get(state.interface or "", ())
    )


def _lack(routing: Routing, state: RouteState, reason: str) -> None:
    kind = "" if state.type == "unicast" else f"{state.type} "
    via = f" via {state.via}" if state.via else ""
    device = f" dev {state.interface}" if state.interface else ""
    table = f" table {state.table}" if state.table != "main" else ""
    routing.missing.append(Missing(f"{kind}{state.to}{via}{device}{table}", reason, "ip route"))


def _policies(routing: Routing, snapshot: Snapshot, tables: _Tables) -> Iterator[PolicyRule]:
    for family, usual in USUAL.items():
        states = [each for each in snapshot.policy if each.family == family]
        plain = {(each.priority, each.table or "") for each in states if _is_plain(each)}
        for priority, table in sorted(usual - plain) if states else ():
            text = f"{priority}: from all lookup {table}"
            routing.missing.append(Missing(text, "the twin has it, the host has not", "ip rule"))
        for state in states:
            if _is_plain(state) and (state.priority, state.table or "") in usual:
                continue
            rule = _policy(routing, state, tables)
            if rule is not None:
                yield rule


def _is_plain(state: PolicyState) -> bool:
    plain = PolicyState(priority=state.priority, family=state.family, table=state.table)
    return state == plain


def _policy(routing: Routing, state: PolicyState, tables: _Tables) -> PolicyRule | None:
    text = _policy_text(state)
    odd = state.other or (state.action if state.action not in ACTIONS else "")
    if odd:
        routing.missing.append(Missing(text, f"nothing here stands for: {odd}", "ip rule"))
        return None
    lookup = state.action == "lookup" and state.table is not None
    try:
        return PolicyRule(
            from_network=state.source,
            to=state.to,
            mark=state.mark,
            in_interface=state.in_interface,
            out_interface=state.out_interface,
            table=tables.number(state.table or "") if lookup else None,
            priority=state.priority,
            action=state.action,  # type: ignore[arg-type]
            family="ipv6" if state.family == "ipv6" else "ipv4",
            inverted=state.inverted,
            suppress_prefix=state.suppress_prefix,
            uidrange=state.uidrange,
            dsfield=state.dsfield,
            ipproto=state.ipproto,
            sport=state.sport,
            dport=state.dport,
        )
    except (BadFieldError, ValueError) as error:
        routing.missing.append(Missing(text, str(error), "ip rule"))
        return None


def _policy_text(state: PolicyState) -> str:
    negation = "not " if state.inverted else ""
    words = [f"{state.priority}: {negation}from {state.source or 'all'}"]
    for name, value in (
        ("to", state.to),
        ("fwmark", state.mark),
        ("iif", state.in_interface),
        ("oif", state.out_interface),
        ("uidrange", state.uidrange),
        ("dsfield", state.dsfield),
        ("ipproto", state.ipproto),
        ("sport", state.sport),
        ("dport", state.dport),
        ("", state.other),
        ("lookup" if state.action == "lookup" else state.action, state.table or " "),
    ):
        if value:
            words.append(f"{name} {value}".strip())
    return " ".join(words)
