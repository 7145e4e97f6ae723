"""Interfaces, addresses, neighbours and routes of the calling thread's namespace, by rtnetlink.

Every function takes an `IPRoute` that was opened in the namespace (`rtnetlink`): a netlink
socket stays in the namespace of the thread that opened it.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from pathlib import Path
from typing import Any

from ipttrace.errors import UsageError
from ipttrace.netfilter import PacketFamily
from ipttrace.system.namespaces import Namespace

AF = {PacketFamily.IPV4: socket.AF_INET, PacketFamily.IPV6: socket.AF_INET6}

IFF_UP, IFF_LOOPBACK = 0x1, 0x8
ARPHRD_ETHER = 1
NUD_INCOMPLETE, NUD_FAILED = 0x01, 0x20
RTM_F_LOOKUP_TABLE = 0x1000
RTN_LOCAL = 2
"""uapi/linux/if.h, if_arp.h, neighbour.h, rtnetlink.h."""

EPHEMERAL = (32768, 60999)
"""The default of net.ipv4.ip_local_port_range."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A link, as RTM_GETLINK describes it."""

    index: int
    name: str
    kind: str | None
    """`veth`, `bridge`, `tun` ...; None for hardware and loopback."""
    up: bool
    carrier: bool
    loopback: bool
    mac: str | None
    """None where there is no Ethernet header."""
    master: int | None
    """The bridge, bond or VRF that it is a port of."""


@dataclass(frozen=True, slots=True)
class Route:
    """The kernel's answer to RTM_GETROUTE."""

    interface: str | None
    source: str | None
    gateway: str | None
    table: int | None
    local: bool


@contextmanager
def rtnetlink() -> Iterator[Any]:
    """Open an `IPRoute` in the calling thread's namespace."""
    from pyroute2 import IPRoute

    with IPRoute() as opened:
        yield opened


def find_interface(ipr: Any, name: str, namespace: Namespace) -> Interface:
    """Return the interface called `name`; raises UsageError with the names that there are."""
    links = {link.get("ifname"): link for link in ipr.get_links()}
    if name not in links:
        raise UsageError(
            f"cannot find interface {name!r} in {namespace}: no such device",
            f"There are {', '.join(sorted(links))}.",
        )
    return read_link(links[name])


def interface_at(ipr: Any, index: int) -> Interface:
    """Return the interface with that index."""
    (link,) = ipr.get_links(index)
    return read_link(link)


def read_link(link: Any) -> Interface:
    """Return what one RTM_NEWLINK message says."""
    info = link.get("linkinfo")
    ethernet = link["ifi_type"] == ARPHRD_ETHER
    return Interface(
        index=link["index"],
        name=link.get("ifname"),
        kind=info.get("kind") if info else None,
        up=bool(link["flags"] & IFF_UP),
        carrier=link.get("carrier") != 0,
        loopback=bool(link["flags"] & IFF_LOOPBACK),
        mac=link.get("address") if ethernet else None,
        master=link.get("master"),
    )


@dataclass(frozen=True, slots=True)
class Address:
    """An address of ours with its network, and the far end of a point-to-point link."""

    own: IPv4Interface | IPv6Interface
    peer: str | None
    index: int


def addresses(ipr: Any, family: PacketFamily, index: int | None = None) -> list[Address]:
    """Return the addresses of one interface, or of all."""
    wanted = {} if index is None else {"index": index}
    found = []
    for message in ipr.get_addr(family=AF[family], **wanted):
        address = message.get("address")
        local = message.get("local") or address
        own = ip_interface(f"{local}/{message['prefixlen']}")
        found.append(Address(own, address if address != local else None, message["index"]))
    return found


def neighbours(ipr: Any, family: PacketFamily, index: int) -> dict[str, str | None]:
    """Return the neighbour table of one interface: address to MAC, None while unresolved."""
    table = {}
    for message in ipr.get_neighbours(family=AF[family], ifindex=index):
        unresolved = message["state"] & (NUD_INCOMPLETE | NUD_FAILED)
        table[message.get("dst")] = None if unresolved else message.get("lladdr")
    return table


def choose_source(own: list[Address], known: set[str], dst: str) -> str | None:
    """Return an address for an outside client: of an interface's network, and nobody's.

    `known` are the neighbours.  None where the networks have no room for one.
    """
    link_local = ip_address(dst).is_link_local
    fitting = [a for a in own if a.own.is_link_local == link_local] or own
    taken = {str(address.own.ip) for address in own} | {dst}
    for address in fitting:
        if address.peer is not None and address.peer not in taken:
            return address.peer
        for candidate in _candidates(address):
            if candidate not in taken | known:
                return candidate
    return next((c for a in fitting for c in _candidates(a) if c not in taken), None)


def _candidates(address: Address, most: int = 64) -> Iterator[str]:
    """Return hosts of the network in random order; not its first and last where they are special.

    RFC 3021 makes both addresses of an IPv4 /31 hosts; RFC 4291 section 2.6.1 reserves the first
    address of an IPv6 network for its routers.
    """
    network = address.own.network
    edge = 0 if network.prefixlen >= network.max_prefixlen - 1 else 1
    hosts = range(edge, network.num_addresses - edge)
    for offset in random.sample(hosts[: 1 << 16], min(most, len(hosts[: 1 << 16]))):
        yield str(network[offset])


def ports_in_use() -> frozenset[int]:
    """Return the local and remote ports of all TCP and UDP sockets of the thread's namespace."""
    used = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        path = Path("/proc/thread-self/net", table)
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            used |= {int(end.rpartition(":")[2], 16) for end in line.split()[1:3]}
    return frozenset(used)


def free_ports(count: int) -> list[int]:
    """Return `count` different random ports that no socket of the thread's namespace names."""
    used = ports_in_use()
    return random.sample([p for p in range(*EPHEMERAL) if p not in used], count)


def route_to(ipr: Any, dst: str, family: PacketFamily, src: str | None = None) -> Route | None:
    """Return how the kernel would send to `dst`; None where it has no route."""
    from pyroute2.netlink.exceptions import NetlinkError

    wanted = {} if src is None else {"src": src}
    try:
        (message,) = ipr.route(
            "get", family=AF[family], dst=dst, flags=RTM_F_LOOKUP_TABLE, **wanted
        )
    except NetlinkError:
        return None
    index = message.get("oif")
    return Route(
        interface=interface_at(ipr, index).name if index else None,
        source=message.get("prefsrc"),
        gateway=message.get("gateway"),
        table=message.get("table"),
        local=message["type"] == RTN_LOCAL,
    )


def is_local(namespace: Namespace, address: str, family: PacketFamily) -> bool:
    """Tell whether packets to `address` stay in the namespace (its own address)."""
    route = namespace.run(lambda: _route(address, family))
    return route is not None and route.local


def interface_towards(namespace: Namespace, address: str, family: PacketFamily) -> str | None:
    """Return the interface by which the namespace would reach `address`; None without a route."""
    route = namespace.run(lambda: _route(address, family))
    return route.interface if route else None


def interface_with(namespace: Namespace, address: str, family: PacketFamily) -> str | None:
    """Return the interface that has `address`; None if none has."""

    def look() -> str | None:
        with rtnetlink() as ipr:
            for each in addresses(ipr, family):
                if str(each.own.ip) == address:
                    return interface_at(ipr, each.index).name
        return None

    return namespace.run(look)


def _route(address: str, family: PacketFamily) -> Route | None:
    with rtnetlink() as ipr:
        return route_to(ipr, address, family)
