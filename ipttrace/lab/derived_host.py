"""What is concluded of a host from its rules, while it is being concluded."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from ipttrace.lab.rule_facts import Network

Address = IPv4Address | IPv6Address

STOPS = frozenset({"DROP", "REJECT", "LOG", "NFLOG", "ULOG", "RETURN", ""})
"""A network that is stopped, like that of a bogon list, need not be behind the interface."""
BRIDGES = re.compile(r"(docker\d|br-|virbr|br\d|cni\d|lxcbr|lxdbr|vmbr|xenbr)")


@lru_cache(10_000)
def _network(text: str) -> Network:
    return ip_network(text, strict=False)


@dataclass(slots=True)
class Interface:
    """One interface, and why it is there."""

    name: str
    why: str
    addresses: dict[int, list[str]] = field(default_factory=lambda: {4: [], 6: []})

    def networks(self, version: int) -> list[Network]:
        """Return the networks of its addresses, of IP version 4 or 6."""
        return [_network(text) for text in self.addresses[version]]


@dataclass(slots=True)
class Derived:
    """What is known so far."""

    interfaces: dict[str, Interface] = field(default_factory=dict)
    ports: dict[str, str] = field(default_factory=dict)
    """Ports of bridges, with the place that names them."""
    notes: list[str] = field(default_factory=list)
    outside: str = ""
    """The interface that leads to everybody else."""

    def networks(self, version: int) -> list[Network]:
        """Return the networks of all interfaces."""
        return [network for each in self.interfaces.values() for network in each.networks(version)]

    def holds(self, address: Address) -> bool:
        """Tell whether an address is the host's own."""
        texts = (
            text for each in self.interfaces.values() for text in each.addresses[address.version]
        )
        return any(text.partition("/")[0] == str(address) for text in texts)


def address_of(text: str) -> Address | None:
    """Return the address of `A`, `A:P`, `A-B:P`, `[A6]:P`."""
    host = text[1:].partition("]")[0] if text.startswith("[") else text
    if not text.startswith("[") and host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        return ip_address(host.partition("-")[0])
    except ValueError:
        return None
