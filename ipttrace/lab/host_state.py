"""What a snapshot holds of a host: plain values, read leniently, since they come from anywhere."""

from __future__ import annotations

import msgspec

FORMAT = 1


class State(msgspec.Struct, frozen=True, rename="kebab", omit_defaults=True):
    """The base: fields that a later version adds are passed over."""


class SavedText(State, frozen=True):
    """What a program wrote, by lines."""

    program: str
    """`iptables-legacy`, `ip6tables-nft`, ..., `nft` or `ipset`."""
    lines: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All lines."""
        return "".join(f"{line}\n" for line in self.lines)


class LinkState(State, frozen=True):
    """One interface."""

    name: str
    kind: str = ""
    """`veth`, `bridge`, `vlan`, ...; empty for hardware."""
    up: bool = True
    carrier: bool = True
    arp: bool = True
    """Whether link addresses are asked for; not on tunnels."""
    mtu: int | None = None
    mac: str | None = None
    master: str | None = None
    """The bridge, bond or VRF that it is part of."""
    addresses: tuple[str, ...] = ()
    """With the length of their prefix."""
    peer: str | None = None
    """Of a veth end the other one, if the host has both."""
    peers: tuple[str, ...] = ()
    """Addresses at the other end of a point-to-point link."""
    other: str = ""
    """What it has beside that, which decides on packets: a bridge's options."""


class RouteState(State, frozen=True):
    """One route, in the words of ip-route(8)."""

    to: str
    family: str = "ipv4"
    via: str | None = None
    interface: str | None = None
    table: str = "main"
    type: str = "unicast"
    source: str | None = None
    metric: int | None = None
    mtu: int | None = None
    onlink: bool = False
    protocol: str = ""
    other: str = ""
    """What it has beside that: further ways, an encapsulation."""


class PolicyState(State, frozen=True):
    """One rule of policy routing, in the words of ip-rule(8)."""

    priority: int = 0
    family: str = "ipv4"
    source: str | None = None
    to: str | None = None
    mark: str | None = None
    in_interface: str | None = None
    out_interface: str | None = None
    table: str | None = None
    action: str = "lookup"
    inverted: bool = False
    suppress_prefix: int | None = None
    uidrange: str | None = None
    dsfield: str | None = None
    ipproto: str | None = None
    sport: str | None = None
    dport: str | None = None
    other: str = ""
    """Conditions beside those."""


class ListenerState(State, frozen=True):
    """A socket that waits for somebody."""

    protocol: str
    address: str
    """`*` takes both families."""
    port: int
    interface: str | None = None
    process: str = ""


class Snapshot(State, frozen=True, kw_only=True):
    """A host, or one namespace of it, at one moment."""

    ipttrace_snapshot: int = FORMAT
    """The version of the format."""
    host: str = ""
    taken: str = ""
    """When, as RFC 3339 writes it."""
    kernel: str = ""
    unread: tuple[str, ...] = ()
    """What could not be read, and why."""
    links: tuple[LinkState, ...] = ()
    routes: tuple[RouteState, ...] = ()
    policy: tuple[PolicyState, ...] = ()
    rules: tuple[SavedText, ...] = ()
    listeners: tuple[ListenerState, ...] = ()
    sysctls: dict[str, str] = {}

    def saved(self, program: str) -> str:
        """Return what a program wrote, empty if nothing."""
        return next((each.text for each in self.rules if each.program == program), "")
