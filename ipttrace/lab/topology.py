"""What a lab consists of: namespaces, and the links between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_interface

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
        places = [
            ((*path, "addresses", place), end.interface, address)
            for path, end in self.ends()
            if end.namespace == name
            for place, address in enumerate(end.addresses)
        ]
        places += [
            (("namespaces", name, "bridges", bridge_name, "addresses", place), bridge_name, address)
            for bridge_name, bridge in self.namespaces[name].bridges.items()
            for place, address in enumerate(bridge.addresses)
        ]
        for path, device, text in places:
            address = ip_interface(text).ip
            if address in taken and not address.is_link_local:
                other = taken[address]
                message = f"namespace {name} has address {address} on {other} and on {device}"
                raise BadFieldError(message, *path)
            taken[address] = device
