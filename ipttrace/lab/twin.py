"""A twin: the parts of a lab that stand for a host, made from a snapshot of it.

Every interface becomes one end of a veth pair, whose other end lies in a second namespace, the
wire, where nobody answers.  Gateways have a permanent neighbour entry there, so that packets leave
as they do on the real host.  Bridges are bridges.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_interface

from ipttrace.lab.host import Bridge, Host, check_settings
from ipttrace.lab.host_state import LinkState, Snapshot
from ipttrace.lab.missing import Missing
from ipttrace.lab.parts import (
    LARGEST_MTU,
    SMALLEST_MTU,
    BadFieldError,
    check_interface_address,
    check_interface_name,
    check_mac,
)
from ipttrace.lab.routing import Neighbour
from ipttrace.lab.sysctls import in_order, interface_of, matters
from ipttrace.lab.topology import End, Link
from ipttrace.lab.twin_routes import Routing, routing_of
from ipttrace.lab.twin_services import Lacks, services_of

TWIN, WIRE = "twin", "wire"
GATEWAY_MAC = "02:00:00:00:00:fe"
PLAIN_KINDS = frozenset({"", "veth", "bridge", "loopback"})
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


def twin_parts(snapshot: Snapshot) -> TwinParts:
    """Return the parts of a lab that stand for the host, and what it has that they lack."""
    builder = Lacks(snapshot)
    links = list(_usable_links(builder))
    bridges = {link.name for link in links if link.kind == "bridge"}
    _say_stand_ins(builder, links)
    ends = tuple(end for link in links if (end := _end(builder, link, bridges)))
    ended = {end.interface for end in ends}
    made = _bridges(builder, links, ended)
    names = ended | made.keys()
    routing = routing_of(snapshot, links, _usable(links, names))
    builder.missing += routing.missing
    builder.notes += routing.notes
    host = _host(builder, routing, ends, made)
    builder.missing += [Missing(text, "it could not be read") for text in snapshot.unread]
    return TwinParts(
        host=host,
        ends=ends,
        joined=_joined(links, ended),
        dead=frozenset(link.name for link in links if link.up and not link.carrier),
        missing=tuple(builder.missing),
        notes=tuple(builder.notes),
    )


def _usable(links: Iterable[LinkState], names: set[str]) -> set[str]:
    """Return the interfaces that routes can lead by."""
    return {link.name for link in links if link.up and link.name in names} | {"lo"}


def _host(
    builder: Lacks, routing: Routing, ends: Iterable[End], bridges: dict[str, Bridge]
) -> Host:
    names = {end.interface for end in ends} | bridges.keys()
    loopback = tuple(_loopback(builder))
    held = [*(end.addresses for end in ends), *(each.addresses for each in bridges.values())]
    local = {str(ip_interface(text).ip) for texts in (*held, loopback) for text in texts}
    return Host(
        routes=routing.routes,
        loopback=loopback,
        policy=routing.policy,
        neighbours=_neighbours(routing),
        bridges=bridges,
        sysctls=_sysctls(builder, names),
        services=tuple(services_of(builder, local, names)),
    )


def _in(end: End, namespace: str) -> End:
    return End(
        namespace=namespace,
        interface=end.interface,
        addresses=end.addresses,
        mtu=end.mtu,
        mac=end.mac,
        up=end.up,
        arp=end.arp,
    )


# ---------------------------------------------------------------- interfaces


def _usable_links(builder: Lacks) -> Iterator[LinkState]:
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


def _say_stand_ins(builder: Lacks, links: Iterable[LinkState]) -> None:
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


def _end(builder: Lacks, link: LinkState, bridges: set[str]) -> End | None:
    if link.name in bridges:
        return None
    addresses = tuple(_addresses(builder, link))
    _say_odd(builder, link)
    return builder.attempt(
        lambda: End(
            namespace=TWIN,
            interface=link.name,
            addresses=addresses,
            mtu=_mtu(link),
            mac=_mac(link),
            up=link.up,
            arp=link.arp,
        ),
        link.name,
        "ip addr",
    )


def _bridges(builder: Lacks, links: list[LinkState], ends: set[str]) -> dict[str, Bridge]:
    made: dict[str, Bridge] = {}
    for link in links:
        if link.kind != "bridge":
            continue
        held = (each.name for each in links if each.master == link.name)
        ports = tuple(name for name in held if name in ends)
        addresses = tuple(_addresses(builder, link))
        _say_odd(builder, link)
        bridge = builder.attempt(
            lambda: Bridge(ports, addresses, _mac(link), _mtu(link), link.up),  # noqa: B023
            link.name,
            "ip addr",
        )
        if bridge is not None:
            made[link.name] = bridge
    return made


def _addresses(builder: Lacks, link: LinkState) -> Iterator[str]:
    """Yield the addresses that can be given, each once on the whole host."""
    for text in dict.fromkeys(link.addresses):
        try:
            check_interface_address(text)
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


def _say_odd(builder: Lacks, link: LinkState) -> None:
    """Say what of a device a veth end or a bridge cannot have."""
    if link.mtu is not None and not SMALLEST_MTU <= link.mtu <= LARGEST_MTU:
        builder.lacks(f"{link.name} mtu {link.mtu}", "no veth end can have it", "ip addr")
    if link.other:
        builder.lacks(f"{link.name} {link.other}", "a bridge of a twin has its defaults", "ip addr")
    if link.mac is not None and _mac(link) is None:
        builder.lacks(f"{link.name} {link.mac}", "no veth end can have this address", "ip addr")


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


def _loopback(builder: Lacks) -> list[str]:
    """Return what `lo` has beside what every namespace has."""
    usual = {"127.0.0.1/8", "::1/128"}
    loopbacks = [link for link in builder.snapshot.links if link.name == "lo"]
    found = [text for link in loopbacks[:1] for text in _addresses(builder, link)]
    return [text for text in found if text not in usual]


# ---------------------------------------------------------------- the rest


def _neighbours(routing: Routing) -> tuple[Neighbour, ...]:
    """Return entries for the gateways: whoever they are on the real host, they answer there."""
    found = {}
    for route in routing.routes:
        if route.via is not None and route.interface is not None:
            found[route.via, route.interface] = Neighbour(route.via, GATEWAY_MAC, route.interface)
    return tuple(found.values())


def _sysctls(builder: Lacks, names: set[str]) -> dict[str, str | int]:
    """Return the settings that decide on packets, those of interfaces only if they are there."""
    there = {"all", "default", "lo", *names}
    usable: dict[str, str | int] = {}
    for name, value in in_order(builder.snapshot.sysctls).items():
        text = f"{name} = {value}"
        if not matters(name):
            builder.lacks(text, "it decides on no packet of a namespace", "sysctl")
        elif (interface_of(name) or "all") in there:
            setting: dict[str, str | int] = {name: value}
            usable |= builder.attempt(lambda: _settable(setting), text, "sysctl") or {}  # noqa: B023
    return usable


def _settable(setting: dict[str, str | int]) -> dict[str, str | int]:
    check_settings(setting)
    return setting
