"""What a lab consists of: namespaces, links, addresses, routes, settings, services and rules."""

from __future__ import annotations

import re
import shlex
from ipaddress import ip_address, ip_interface, ip_network
from typing import Literal

import msgspec

NAMESPACE_NAME = re.compile(r"[a-z][a-z0-9-]{0,19}\Z")
INTERFACE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}\Z")
"""IFNAMSIZ is 16 with the final zero (uapi/linux/if.h)."""
SETTING_NAME = re.compile(r"net(\.[A-Za-z0-9_-]+)+\Z")
"""As sysctl(8) writes it; only settings that a namespace has of its own."""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of all parts: a misspelt field is an error."""


class Route(Part, frozen=True):
    """A route of a namespace."""

    to: str
    """A network, or `default`; `default` takes the family of `via`."""
    via: str | None = None
    interface: str | None = None

    def __post_init__(self) -> None:
        if self.to != "default":
            ip_network(self.to)
        if self.via is not None:
            ip_address(self.via)
        if self.via is None and self.interface is None:
            raise ValueError("a route needs `via` or `interface`")


class Service(Part, frozen=True):
    """A listener that sends back what it gets."""

    port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    address: str = "0.0.0.0"  # noqa: S104
    """`::` takes IPv6 only."""

    def __post_init__(self) -> None:
        ip_address(self.address)
        if not 1 <= self.port <= 65535:
            raise ValueError(f"port {self.port} is not a number from 1 to 65535")


class Host(Part, frozen=True):
    """One namespace."""

    routes: tuple[Route, ...] = ()
    sysctls: dict[str, str | int] = {}
    services: tuple[Service, ...] = ()
    iptables: str | tuple[str, ...] = ()
    """Text for iptables-restore, or the arguments of one iptables call a line."""
    ip6tables: str | tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.sysctls:
            if not SETTING_NAME.match(name):
                raise ValueError(f"{name!r} is not a setting below net.")
        for rules in (self.iptables, self.ip6tables):
            if not isinstance(rules, str):
                for line in rules:
                    words_of(line)


class End(Part, frozen=True):
    """One end of a link."""

    namespace: str
    interface: str = "eth0"
    addresses: tuple[str, ...] = ()
    """With the length of the prefix: `198.51.100.1/24`."""

    def __post_init__(self) -> None:
        if not INTERFACE_NAME.match(self.interface) or self.interface in (".", ".."):
            raise ValueError(f"{self.interface!r} cannot name an interface")
        for address in self.addresses:
            if "/" not in address:
                raise ValueError(f"address {address!r} lacks the length of its prefix")
            ip_interface(address)


Link = tuple[End, End]
"""A veth pair."""


class Topology(Part, frozen=True):
    """Namespaces by name, and the veth links between them."""

    namespaces: dict[str, Host]
    links: tuple[Link, ...] = ()

    def __post_init__(self) -> None:
        for name in self.namespaces:
            if not NAMESPACE_NAME.match(name):
                raise ValueError(f"{name!r} cannot name a namespace")
        ends = [end for link in self.links for end in link]
        for end in ends:
            if end.namespace not in self.namespaces:
                raise ValueError(f"a link ends in namespace {end.namespace!r}, which is not there")
        names = [(end.namespace, end.interface) for end in ends]
        for namespace, interface in names:
            if names.count((namespace, interface)) > 1:
                raise ValueError(f"namespace {namespace} has two interfaces {interface}")


def words_of(line: str) -> tuple[str, ...]:
    """Return the arguments of one line of rules; quotes work as in a shell, nothing else does."""
    return tuple(shlex.split(line))
