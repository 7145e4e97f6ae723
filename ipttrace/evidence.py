"""What is known of a packet beside the chains' reports: the second plane of evidence.

A `Trail` is what the kernel's own events say of one packet; a `Scene` is what its tables, counters
and settings said when the packet had come to its end.  Every part is optional: what could not be
looked at is None, or named in `missing`, and proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ipttrace.packet import Flow, PacketSummary
from ipttrace.path import DropHop, ResetHop, SocketState


@dataclass(frozen=True, slots=True)
class Crossing:
    """The packet passed an interface."""

    time: float
    interface: str


@dataclass(frozen=True, slots=True)
class ErrorSent:
    """The kernel answered the packet with an ICMP error (tracepoint icmp_send).

    On 6.18 the rate limits were asked before (__icmp_send in net/ipv4/icmp.c).
    """

    time: float
    type: int
    code: int


@dataclass(frozen=True, slots=True)
class NeighbourWait:
    """The packet waits for the link address of the next host (tracepoint neigh_event_send_done)."""

    time: float
    interface: str
    address: str


@dataclass(frozen=True, slots=True)
class Trail:
    """What the kernel's events say of one packet in one namespace, each in the order of time."""

    received: tuple[Crossing, ...] = ()
    queued: tuple[Crossing, ...] = ()
    """Given to an interface to be sent: net_dev_queue."""
    drops: tuple[DropHop, ...] = ()
    resets: tuple[ResetHop, ...] = ()
    """TCP resets that the kernel's TCP sent in answer to it."""
    errors: tuple[ErrorSent, ...] = ()
    waits: tuple[NeighbourWait, ...] = ()

    @property
    def drop(self) -> DropHop | None:
        """The last death of it that was seen: a packet may have several copies."""
        return self.drops[-1] if self.drops else None


@dataclass(frozen=True, slots=True)
class SocketEntry:
    """One socket of a namespace's tables (inet_diag)."""

    protocol: str
    """`tcp` or `udp`."""
    state: SocketState
    address: str
    """`0.0.0.0` and `::` take every address of the namespace."""
    port: int
    remote: tuple[str, int] | None = None
    v6_only: bool = False
    """An IPv6 wildcard that takes no IPv4."""
    interface: str | None = None
    """Bound to one device (SO_BINDTODEVICE)."""
    pid: int | None = None
    process: str | None = None
    waiting: int = 0
    """Of a listener: connections that wait for accept() (Recv-Q)."""
    backlog: int | None = None
    """Of a listener: how many may (Send-Q)."""
    netns: str | None = None
    """Where it is, in words for people, if that is another namespace of this host."""


@dataclass(frozen=True, slots=True)
class Unjudged:
    """A routing rule of which it is not known whether it is for the packet."""

    priority: int
    criteria: tuple[str, ...]
    """What it asks for that is not known, in the words of ip-rule(8)."""


@dataclass(frozen=True, slots=True)
class Route:
    """What routing says of a packet (RTM_GETROUTE with its addresses, mark and interface)."""

    kind: str
    """`unicast local broadcast multicast blackhole unreachable prohibit throw none`; `none` is
    that no route was found, or that the lookup was refused with `error`."""
    interface: str | None = None
    """With `none`: the one by which what comes from 127.0.0.0/8 may not leave."""
    gateway: str | None = None
    table: str | None = None
    """`main`, `local`, or a number."""
    source: str | None = None
    error: str | None = None
    """An errno's name: ENETUNREACH, EHOSTUNREACH, EACCES, EINVAL."""
    prefix: str | None = None
    """Of a blackhole, unreachable or prohibit route: what it is for, `192.0.2.0/24`."""
    rule: int | None = None
    """The priority of the routing rule (`ip rule`) that refuses by itself, without a route."""
    mtu: int | None = None
    """A limit of the route's own, beside the interface's."""
    marked: int | None = None
    """Of a route that refuses: the priority of the routing rule that led to it for the mark."""
    unjudged: tuple[Unjudged, ...] = ()
    """Routing rules that may lead elsewhere; of a lookup that was refused, those before that one
    which may have refused it."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry of the neighbour table (RTM_GETNEIGH)."""

    interface: str
    address: str
    state: str
    """`reachable stale delay probe incomplete failed noarp permanent`."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A conntrack entry."""

    original: Flow
    reply: Flow
    status: int = 0
    """IPS_* bits of uapi/linux/netfilter/nf_conntrack_common.h."""
    state: str | None = None
    """TCP's, as conntrack names it: SYN_SENT, ESTABLISHED."""
    mark: int = 0

    @property
    def replied(self) -> bool:
        """Whether a packet of the other direction was seen (IPS_SEEN_REPLY)."""
        return bool(self.status & 2)


@dataclass(frozen=True, slots=True)
class Scene:
    """All that was seen around one packet in one namespace, when it had come to its end."""

    trail: Trail | None = None
    """None where the kernel's events cannot be read."""
    last: PacketSummary | None = None
    """The packet as it was looked up in the tables: after all NAT that was seen."""
    counters: Mapping[str, int] | None = None
    """By how much the namespace's counters rose in the probe's window, `TcpExt.ListenDrops`; only
    those that rose.  Of all traffic: proof only where nothing else explains it."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Sysctls by path below /proc/sys: `net/ipv4/ip_forward`."""
    sockets: tuple[SocketEntry, ...] | None = None
    """Of this namespace, of the packet's protocol, on its port whatever the address."""
    elsewhere: tuple[SocketEntry, ...] = ()
    """Listeners on that port in other namespaces of this host, the likeliest to be meant first;
    looked for only if refused."""
    local: bool | None = None
    """Whether the destination is an address of this namespace."""
    route: Route | None = None
    """Of the packet as it came to be routed."""
    route_back: Route | None = None
    """To its source, by which an answer would go and which rp_filter asks for."""
    neighbour: Neighbour | None = None
    """Of the next host on the way of `route`."""
    connections: tuple[Connection, ...] | None = None
    """Of the packet's flow, now; None where connections are not tracked or cannot be read."""
    before: tuple[Connection, ...] = ()
    """Of the packet's flow, before it was sent."""
    queues: frozenset[int] | None = None
    """Numbers of the NFQUEUE queues that programs listen on."""
    mtu: Mapping[str, int] = field(default_factory=dict)
    """By interface."""
    missing: tuple[str, ...] = ()
    """What could not be looked at, and why, in words."""


NOTHING = Scene(missing=("evidence was not asked for (--evidence none)",))
"""For `--evidence none`."""
