"""A twin: the parts of a lab that stand for a host, made from a snapshot of it.

Every interface becomes one end of a veth pair, whose other end lies in a second namespace, the
wire, where nobody answers.  Gateways have a permanent neighbour entry there, so that packets leave
as they do on the real host.  Bridges are bridges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface
from typing import TypeVar

from ipttrace.lab.host import Bridge, Host, Service
from ipttrace.lab.host_state import LinkState, ListenerState, Snapshot
from ipttrace.lab.missing import Missing
from ipttrace.lab.parts import (
    LARGEST_MTU,
    SMALLEST_MTU,
    BadFieldError,
    check_interface_name,
    check_mac,
)
from ipttrace.lab.routing import Neighbour
from ipttrace.lab.sysctls import in_order
from ipttrace.lab.topology import End, Link
from ipttrace.lab.twin_routes import Routing, routing_of

T = TypeVar("T")

TWIN, WIRE = "twin", "wire"
GATEWAY_MAC = "02:00:00:00:00:fe"
PLAIN_KINDS = frozenset({"", "veth", "bridge", "loopback"})
MOST_LISTENERS = 500
"""The keeper of a lab holds them, and a process may open 1,024 files by default."""
WIRE_HOST = Host(sysctls={"net.ipv6.conf.all.disable_ipv6": 1})
"""Nobody there speaks."""


@dataclass(slots=True)
class TwinParts:
    """The parts of a lab that stand for one host; its rules are not in it yet."""

    host: Host
    ends: tuple[End, ...]
    """Its interfaces but bridges; `namespace` is TWIN."""
    joined: tuple[tuple[str, str], ...] = ()
    """Interfaces that are the two ends of one link."""
    dead: frozenset[str] = frozenset()
    """Interfaces without a carrier."""
    missing: tuple[Missing, ...] = ()
    notes: tuple[str, ...] = ()

    def links(self, namespace: str, wire: str, taken: Iterable[str] = ()) -> list[Link]:
        """Return the links of its interfaces to the wire, but of those that are `taken`."""
        ends = {end.interface: end for end in self.ends if end.interface not in set(taken)}
        links: list[Link] = []
        for near, far in self.joined:
            if near in ends and far in ends:
                links.append((_in(ends.pop(near), namespace), _in(ends.pop(far), namespace)))
        for name, end in ends.items():
            other = End(namespace=wire, interface=name, mtu=end.mtu, up=name not in self.dead)
            links.append((_in(end, namespace), other))
        return links


@dataclass(slots=True)
class _Builder:
    snapshot: Snapshot
    missing: list[Missing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lacks(self, text: str, reason: str, source: str) -> None:
        self.missing.append(Missing(text, reason, source))

    def attempt(self, make: Callable[[], T], text: str, source: str) -> T | None:
        """Return what `make` makes, or note why it cannot."""
        try:
            return make()
        except (BadFieldError, ValueError) as error:
            self.lacks(text, str(error), source)
            return None


def twin_parts(snapshot: Snapshot) -> TwinParts:
    """Return the parts of a lab that stand for the host, and what it has that they lack."""
    builder = _Builder(snapshot)
    links = list(_usable_links(builder))
    bridges = {link.name for link in links if link.kind == "bridge"}
    _say_stand_ins(builder, links)
    ends = tuple(end for link in links if (end := _end(builder, link, bridges)))
    made = _bridges(builder, links)
    names = {end.interface for end in ends} | made.keys()
    loopback = _loopback(snapshot)
    up = {link.name for link in links if link.up and link.name in names} | {"lo"}
    routing = routing_of(snapshot, links, up)
    builder.missing += routing.missing
    builder.notes += routing.notes
    held = [*(end.addresses for end in ends), *(bridge.addresses for bridge in made.values())]
    local = {str(ip_interface(text).ip) for texts in (*held, loopback) for text in texts}
    host = Host(
        routes=routing.routes,
        loopback=tuple(loopback),
        policy=routing.policy,
        neighbours=_neighbours(routing, links),
        bridges=made,
        sysctls=_sysctls(builder, names),
        services=tuple(_services(builder, local, names)),
    )
    if snapshot.unread:
        builder.missing += [Missing(text, "it could not be read") for text in snapshot.unread]
    return TwinParts(
        host=host,
        ends=ends,
        joined=_joined(links, names - made.keys()),
        dead=frozenset(link.name for link in links if link.up and not link.carrier),
        missing=tuple(builder.missing),
        notes=tuple(builder.notes),
    )


def _in(end: End, namespace: str) -> End:
    return End(
        namespace=namespace,
        interface=end.interface,
        addresses=end.addresses,
        mtu=end.mtu,
        mac=end.mac,
        up=end.up,
    )


# ---------------------------------------------------------------- interfaces


def _usable_links(builder: _Builder) -> Iterator[LinkState]:
    seen: set[str] = set()
    for link in builder.snapshot.links:
        if link.name == "lo" or link.kind == "loopback":
            continue
        if link.name in seen:
            builder.lacks(link.name, "there are two interfaces of that name", "ip addr")
            continue
        seen.add(link.name)
        source = "ip addr"
        made = builder.attempt(lambda: _checked(link), link.name, source)  # noqa: B023
        if made is not None:
            yield made


def _checked(link: LinkState) -> LinkState:
    check_interface_name(link.name, "interface")
    return link


def _say_stand_ins(builder: _Builder, links: Iterable[LinkState]) -> None:
    for link in links:
        if link.kind in PLAIN_KINDS:
            continue
        if link.kind == "vrf":
            builder.lacks(link.name, "a VRF: its table is looked up only by its routes", "ip addr")
        else:
            builder.notes.append(f"{link.name} ({link.kind}) is stood in by a veth end")
    masters = {link.name: link.kind for link in links}
    for link in links:
        kind = masters.get(link.master or "")
        if link.master and kind != "bridge":
            what = f"part of {link.master} ({kind or 'which is not there'})"
            builder.notes.append(f"{link.name}, {what}, stands by itself")


def _end(builder: _Builder, link: LinkState, bridges: set[str]) -> End | None:
    if link.name in bridges:
        return None
    addresses = tuple(_addresses(builder, link))
    return builder.attempt(
        lambda: End(
            namespace=TWIN,
            interface=link.name,
            addresses=addresses,
            mtu=_mtu(link),
            mac=_mac(link),
            up=link.up,
        ),
        link.name,
        "ip addr",
    )


def _bridges(builder: _Builder, links: list[LinkState]) -> dict[str, Bridge]:
    made: dict[str, Bridge] = {}
    for link in links:
        if link.kind != "bridge":
            continue
        ports = tuple(each.name for each in links if each.master == link.name)
        addresses = tuple(_addresses(builder, link))
        bridge = builder.attempt(
            lambda: Bridge(ports, addresses, _mac(link), _mtu(link), link.up),  # noqa: B023
            link.name,
            "ip addr",
        )
        if bridge is not None:
            made[link.name] = bridge
    return made


def _addresses(builder: _Builder, link: LinkState) -> Iterator[str]:
    """Yield the addresses that can be given, each once on the whole host."""
    for text in dict.fromkeys(link.addresses):
        try:
            address = ip_interface(text)
        except ValueError as error:
            builder.lacks(f"{link.name} {text}", str(error), "ip addr")
            continue
        earlier = _holder(builder.snapshot, link.name, str(address.ip))
        if earlier is not None and not address.ip.is_link_local:
            builder.lacks(f"{link.name} {text}", f"{earlier} has it, too", "ip addr")
        else:
            yield text


def _holder(snapshot: Snapshot, name: str, address: str) -> str | None:
    """Return the interface before `name` that has the same address."""
    for link in snapshot.links:
        if link.name == name:
            return None
        if any(text.split("/")[0] == address for text in link.addresses):
            return link.name
    return None


def _mtu(link: LinkState) -> int | None:
    usable = link.mtu is not None and SMALLEST_MTU <= link.mtu <= LARGEST_MTU
    return link.mtu if usable and link.mtu != 1500 else None


def _mac(link: LinkState) -> str | None:
    try:
        check_mac(link.mac or "", "mac")
    except BadFieldError:
        return None
    return link.mac if link.mac != "00:00:00:00:00:00" else None


def _joined(links: list[LinkState], ends: set[str]) -> tuple[tuple[str, str], ...]:
    """Return the veth pairs of which the host has both ends."""
    peers = {link.name: link.peer for link in links if link.peer}
    return tuple(
        (near, far)
        for near, far in peers.items()
        if peers.get(far) == near and near < far and {near, far} <= ends
    )


def _loopback(snapshot: Snapshot) -> list[str]:
    """Return what `lo` has beside what every namespace has."""
    usual = {"127.0.0.1/8", "::1/128"}
    loopbacks = [link for link in snapshot.links if link.name == "lo"]
    return [text for link in loopbacks for text in link.addresses if text not in usual]


# ---------------------------------------------------------------- the rest


def _neighbours(routing: Routing, links: list[LinkState]) -> tuple[Neighbour, ...]:
    """Return entries for the gateways: whoever they are on the real host, they answer there."""
    known = {link.name for link in links if link.up}
    found = {}
    for route in routing.routes:
        if route.via is not None and route.interface in known:
            found[route.via, route.interface] = Neighbour(route.via, GATEWAY_MAC, route.interface)
    return tuple(found.values())


def _sysctls(builder: _Builder, names: set[str]) -> dict[str, str | int]:
    """Return the settings, those of interfaces only where the interface is there."""
    there = {"all", "default", "lo", *names}
    return {
        name: value
        for name, value in in_order(builder.snapshot.sysctls).items()
        if ".conf." not in name
        or name.split(".conf.")[1].rpartition(".")[0].replace("/", ".") in there
    }


def _services(builder: _Builder, local: set[str], names: set[str]) -> Iterator[Service]:
    seen: set[tuple[object, ...]] = set()
    for listener in builder.snapshot.listeners:
        text = _words(listener)
        if listener.interface is not None and listener.interface not in {*names, "lo"}:
            builder.lacks(text, f"there is no interface {listener.interface}", "ss")
            continue
        for address in _heard(listener.address):
            key = (listener.protocol, address, listener.port, listener.interface)
            if key in seen:
                continue
            seen.add(key)
            if len(seen) > MOST_LISTENERS:
                builder.lacks(text, f"more than {MOST_LISTENERS} listeners", "ss")
            elif problem := _cannot_listen(address, local):
                builder.lacks(text, problem, "ss")
            elif service := _service(builder, listener, address, text):
                yield service


def _service(builder: _Builder, listener: ListenerState, address: str, text: str) -> Service | None:
    if listener.protocol not in ("tcp", "udp"):
        builder.lacks(text, "neither TCP nor UDP", "ss")
        return None
    protocol = "tcp" if listener.protocol == "tcp" else "udp"
    interface = listener.interface
    return builder.attempt(
        lambda: Service(
            listener.port,
            protocol,  # type: ignore[arg-type]
            address,
            interface=interface,
        ),
        text,
        "ss",
    )


def _words(listener: ListenerState) -> str:
    process = f" ({listener.process})" if listener.process else ""
    where = f"%{listener.interface}" if listener.interface else ""
    return f"{listener.protocol} {listener.address}{where} port {listener.port}{process}"


def _heard(address: str) -> tuple[str, ...]:
    """Return the addresses of the sockets that hear what one on `address` hears."""
    if address == "*":
        return ("0.0.0.0", "::")  # noqa: S104
    return (address.removeprefix("::ffff:"),) if "." in address else (address,)


def _cannot_listen(text: str, local: set[str]) -> str | None:
    try:
        address = ip_address(text)
    except ValueError as error:
        return str(error)
    if address.is_link_local and address.version == 6:
        return "a link-local address"
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        return "a multicast address" if address.is_multicast else None
    return None if str(address) in local else f"the twin has no address {text}"
