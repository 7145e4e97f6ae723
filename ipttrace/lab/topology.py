"""What a lab consists of: namespaces, and the links between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_interface

from ipttrace.lab.host import Host, check_device
from ipttrace.lab.parts import (
    BadFieldError,
    FieldPath,
    Part,
    check_interface_name,
    check_namespace_name,
)
from ipttrace.lab.source import Source

MOST_NAMESPACES = 64


class End(Part, frozen=True):
    """One end of a link."""

    namespace: str
    interface: str = "eth0"
    addresses: tuple[str, ...] = ()
    """With the length of the prefix: `198.51.100.1/24`."""
    mtu: int | None = None
    mac: str | None = None
    up: bool = True
    arp: bool = True
    """If not, no link address is asked for, as on a tunnel."""

    def __post_init__(self) -> None:
        check_interface_name(self.interface, "interface")
        check_device(self.addresses, self.mac, self.mtu)


Link = tuple[End, End]
"""A veth pair."""


@dataclass(frozen=True, slots=True)
class Topology:
    """Namespaces by name, and the veth links between them."""

    namespaces: dict[str, Host]
    links: tuple[Link, ...] = ()
    source: Source = field(default_factory=Source, compare=False)
    """The file that describes it: what its relative names start from, and where its lines are."""

    def __post_init__(self) -> None:
        if not self.namespaces:
            raise BadFieldError("a lab needs at least one namespace", "namespaces")
        if len(self.namespaces) > MOST_NAMESPACES:
            raise BadFieldError(f"a lab has at most {MOST_NAMESPACES} namespaces", "namespaces")
        for name in self.namespaces:
            check_namespace_name(name, "namespaces", name)
        self._check_ends()
        for name in self.namespaces:
            self._check_bridges(name)
            self._check_addresses(name)
        self._check_segments()

    def ends(self) -> Iterator[tuple[FieldPath, End]]:
        """Yield every end of a link, with its place in the lab file."""
        for number, link in enumerate(self.links):
            for side, end in enumerate(link):
                yield ("links", number, side), end

    def ends_in(self, namespace: str) -> list[End]:
        """Return the ends of links in a namespace."""
        return [end for _, end in self.ends() if end.namespace == namespace]

    def bridge_of(self, namespace: str, interface: str) -> str | None:
        """Return the bridge that an interface is a port of."""
        bridges = self.namespaces[namespace].bridges.items()
        return next((name for name, bridge in bridges if interface in bridge.ports), None)

    def _check_ends(self) -> None:
        taken: set[tuple[str, str]] = set()
        for path, end in self.ends():
            if end.namespace not in self.namespaces:
                message = f"a link ends in namespace {end.namespace!r}, which is not there"
                raise BadFieldError(message, *path, "namespace")
            bridges = self.namespaces[end.namespace].bridges
            name = (end.namespace, end.interface)
            if name in taken or end.interface in ("lo", *bridges):
                message = f"namespace {end.namespace} has two interfaces {end.interface}"
                raise BadFieldError(message, *path)
            taken.add(name)

    def _check_bridges(self, name: str) -> None:
        host = self.namespaces[name]
        ends = {end.interface: end for end in self.ends_in(name)}
        uses = Counter(port for bridge in host.bridges.values() for port in bridge.ports)
        for bridge_name, bridge in host.bridges.items():
            path = ("namespaces", name, "bridges", bridge_name)
            if bridge_name == "lo":
                raise BadFieldError(f"namespace {name} has two interfaces lo", *path)
            for place, port in enumerate(bridge.ports):
                if port not in ends:
                    message = f"port {port!r} of {bridge_name} is no end of a link in {name}"
                    raise BadFieldError(message, *path, "ports", place)
                if uses[port] > 1:
                    message = f"{port!r} is a port of two bridges"
                    raise BadFieldError(message, *path, "ports", place)

    def _check_addresses(self, name: str) -> None:
        """No namespace has an address twice: the kernel would take it on two devices."""
        taken: dict[object, str] = {}
        for place in self._places():
            if place.namespace != name or place.address.is_link_local:
                continue
            if place.address in taken:
                other = taken[place.address]
                raise BadFieldError(
                    f"namespace {name} has address {place.address} on {other} and on "
                    f"{place.interface}",
                    *place.path,
                )
            taken[place.address] = place.interface

    def _check_segments(self) -> None:
        """No two namespaces that hear each other's ARP have the same address."""
        segment = self._segments()
        taken: dict[tuple[object, object], str] = {}
        for place in self._places():
            where = (segment[place.namespace, place.interface], place.address)
            if taken.get(where, place.namespace) != place.namespace:
                raise BadFieldError(
                    f"{taken[where]} and {place.namespace} have the same address "
                    f"{place.address} on one link",
                    *place.path,
                )
            taken[where] = place.namespace

    def _segments(self) -> dict[tuple[str, str], object]:
        """Return, for each interface, what all those have that links and bridges join to it."""
        joined = [{(end.namespace, end.interface) for end in link} for link in self.links]
        for name, host in self.namespaces.items():
            for bridge_name, bridge in host.bridges.items():
                joined.append({(name, bridge_name), *((name, port) for port in bridge.ports)})
        segment: dict[tuple[str, str], object] = {}
        for number, group in enumerate(joined):
            met = {segment[each] for each in group if each in segment}
            old = [each for each, value in segment.items() if value in met]
            segment.update(dict.fromkeys([*old, *group], number))
        return segment

    def _places(self) -> Iterator[_Place]:
        """Yield every address, with its place in the lab file."""
        for path, end in self.ends():
            for place, address in enumerate(end.addresses):
                where = (*path, "addresses", place)
                yield _Place(where, end.namespace, end.interface, ip_interface(address).ip)
        for name, host in self.namespaces.items():
            for bridge_name, bridge in host.bridges.items():
                path = ("namespaces", name, "bridges", bridge_name)
                for place, address in enumerate(bridge.addresses):
                    where = (*path, "addresses", place)
                    yield _Place(where, name, bridge_name, ip_interface(address).ip)


@dataclass(frozen=True, slots=True)
class _Place:
    """An address of an interface."""

    path: FieldPath
    namespace: str
    interface: str
    address: IPv4Address | IPv6Address
