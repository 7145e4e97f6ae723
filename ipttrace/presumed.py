"""What tables, counters and settings alone say of a packet's death, where no event told of it.

A counter is of the whole namespace: it speaks only where a setting or a table agrees with it, and
where the packet vanished just there.  rt_cache's numbers are of the whole host, and prove nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from ipaddress import ip_address

from ipttrace.evidence import Scene
from ipttrace.netfilter import FATAL_VERDICTS, Hook, PacketFamily, Verdict
from ipttrace.packet import PacketSummary
from ipttrace.path import LEFT, Outcome, PacketPath, WireHop

REFUSING = frozenset({"blackhole", "unreachable", "prohibit"})
UNRESOLVED = frozenset({"incomplete", "failed"})
GONE = frozenset({Outcome.LOST, Outcome.DROPPED})
STOPPED = FATAL_VERDICTS | {Verdict.QUEUE, Verdict.STOLEN}

CHECKSUMS = {
    "tcp": ("Tcp.InCsumErrors",),
    "udp": ("Udp.InCsumErrors", "Udp6InCsumErrors"),
    "icmp": ("Icmp.InCsumErrors",),
    "icmp6": ("Icmp6InCsumErrors",),
}
IP_CHECKSUM = "IpExt.InCsumErrors"


class Sign(StrEnum):
    """A way to die, by the code of its cause."""

    RP_FILTER = "rp-filter"
    MARTIAN_LOOPBACK = "martian-loopback"
    FORWARDING_OFF = "forwarding-off"
    BLACKHOLE_ROUTE = "blackhole-route"
    NO_ROUTE = "no-route"
    TTL_EXCEEDED = "ttl-exceeded"
    MTU_EXCEEDED = "mtu-exceeded"
    BAD_CHECKSUM = "bad-checksum"
    NEIGHBOUR_FAILED = "neighbour-failed"


def presumed(path: PacketPath, scene: Scene, answers: Sequence[PacketPath] = ()) -> Sign | None:
    """Return how a packet must have died; None where that cannot be told."""
    if scene.trail is not None and scene.trail.drops:
        return None
    if waits_in_vain(path, scene, answers):
        return Sign.NEIGHBOUR_FAILED
    if path.outcome in GONE and _vanished_in_routing(path):
        sign = _in_routing(path, scene) or _by_error(path, answers)
        if sign is not None:
            return sign
    if scene.trail is None and _came_to_a_socket(path, answers):
        wrong = any(risen(scene, counter) for counter in CHECKSUMS.get(path.packet.protocol, ()))
        return Sign.BAD_CHECKSUM if wrong else None
    return None


def _came_to_a_socket(path: PacketPath, answers: Sequence[PacketPath]) -> bool:
    """Tell whether nothing stood between the packet and the sockets, and nobody answered it."""
    if path.outcome not in GONE | {Outcome.DELIVERED}:
        return False
    if any(answer.in_interface is None for answer in answers):
        return False
    last = path.chain_hops[-1] if path.chain_hops else None
    if last is None:
        return path.outcome is not Outcome.LOST and path.out_interface is None
    # Where INPUT has no chain but our own, the last one that shows is before it.
    least = {Hook.INPUT} if path.outcome is Outcome.LOST else {Hook.INPUT, Hook.PREROUTING}
    return last.hook in least and last.verdict not in STOPPED


def risen(scene: Scene, counter: str) -> int:
    """Return by how much a counter of the namespace rose; 0 also where that is unknown."""
    return (scene.counters or {}).get(counter, 0)


def setting(scene: Scene, family: PacketFamily, name: str, interface: str | None = "all") -> int:
    """Return an interface's setting as a number; 0 also where it is unknown."""
    folder = "ipv4" if family is PacketFamily.IPV4 else "ipv6"
    text = scene.settings.get(f"net/{folder}/conf/{interface}/{name}", "0")
    return int(text) if text.isdecimal() else 0


def rp_filter(scene: Scene, interface: str | None) -> int:
    """Return the mode that holds: the higher one of both (IN_DEV_RPFILTER, inetdevice.h)."""
    v4 = PacketFamily.IPV4
    return max(setting(scene, v4, "rp_filter"), setting(scene, v4, "rp_filter", interface))


def loopback_routed(scene: Scene, interface: str | None) -> bool:
    """Tell whether 127.0.0.0/8 is routed there (IN_DEV_ORCONF: either setting is enough)."""
    v4 = PacketFamily.IPV4
    names = ("all", interface)
    return any(setting(scene, v4, "route_localnet", name) for name in names)


def forwards(scene: Scene, family: PacketFamily, interface: str | None) -> bool | None:
    """Tell whether packets that come in there are forwarded; None where that is unknown.

    IPv4 asks the interface's own setting, IPv6 that of all interfaces (ip6_forward in
    net/ipv6/ip6_output.c), unless force_forwarding is set.
    """
    if family is PacketFamily.IPV4:
        known = f"net/ipv4/conf/{interface}/forwarding" in scene.settings
        return bool(setting(scene, family, "forwarding", interface)) if known else None
    if "net/ipv6/conf/all/forwarding" not in scene.settings:
        return None
    forced = setting(scene, family, "force_forwarding", interface)
    return bool(setting(scene, family, "forwarding") or forced)


def is_loopback(address: str) -> bool:
    """Tell whether an address is of 127.0.0.0/8; of a later fragment there may be none."""
    if "/" in address:
        return False
    known = ip_address(address)
    return known.version == 4 and known.is_loopback


def limit(scene: Scene) -> int | None:
    """Return how large a packet may be on its route; None where that is unknown."""
    route = scene.route
    if route is None or route.interface is None:
        return None
    known = [each for each in (scene.mtu.get(route.interface), route.mtu) if each]
    return min(known, default=None)


def is_contained(path: PacketPath) -> bool:
    """Tell whether we stopped the packet at the way out."""
    return any(isinstance(hop, WireHop) and hop.event == "contained" for hop in path.hops)


def waits_in_vain(path: PacketPath, scene: Scene, answers: Sequence[PacketPath] = ()) -> bool:
    """Tell whether a packet that went out waits for a next host that does not answer."""
    entry, trail = scene.neighbour, scene.trail
    if entry is None or entry.state not in UNRESOLVED or is_contained(path):
        return False
    if path.outcome not in LEFT | {Outcome.DROPPED} or not _came_to_the_way_out(path):
        return False
    if any(answer.in_interface is not None for answer in answers):
        return False
    since = trail.waits[-1].time if trail and trail.waits else None
    queued = [crossing.time for crossing in trail.queued] if trail else []
    return not any(since is None or time > since for time in queued)


def _came_to_the_way_out(path: PacketPath) -> bool:
    last = path.chain_hops[-1] if path.chain_hops else None
    if last is None:
        return path.out_interface is not None
    ways_out = (Hook.POSTROUTING, Hook.OUTPUT, Hook.FORWARD)
    return last.hook in ways_out and last.verdict not in STOPPED


def _vanished_in_routing(path: PacketPath) -> bool:
    """Tell whether the packet's last report is from before it was routed."""
    if path.in_interface is None or path.out_interface is not None:
        return False
    last = path.chain_hops[-1] if path.chain_hops else None
    return last is None or (last.hook is Hook.PREROUTING and last.verdict not in STOPPED)


def _in_routing(path: PacketPath, scene: Scene) -> Sign | None:
    """Return how a packet died between PREROUTING and the next hook, or before both."""
    packet = scene.last or path.packet
    interface, family = path.in_interface, packet.family
    v4 = family is PacketFamily.IPV4
    if v4 and not path.chain_hops and risen(scene, IP_CHECKSUM):
        return Sign.BAD_CHECKSUM
    if v4 and risen(scene, "TcpExt.IPReversePathFilter") and rp_filter(scene, interface):
        return Sign.RP_FILTER
    if is_loopback(packet.dst) and interface != "lo" and scene.settings:
        return None if loopback_routed(scene, interface) else Sign.MARTIAN_LOOPBACK
    wrong = "Ip.InAddrErrors" if v4 else "Ip6InAddrErrors"
    if risen(scene, wrong) and forwards(scene, family, interface) is False:
        return Sign.FORWARDING_OFF
    return _by_route(packet, scene)


def _by_error(path: PacketPath, answers: Sequence[PacketPath]) -> Sign | None:
    """Return how a packet died by the ICMP error that this host sent about it."""
    v4 = path.packet.family is PacketFamily.IPV4
    for answer in answers:
        icmp = answer.packet.icmp
        if icmp is None or answer.in_interface is not None:
            continue
        if path.packet.ttl <= 1 and (icmp.type, icmp.code) == ((11, 0) if v4 else (3, 0)):
            return Sign.TTL_EXCEEDED
        if (icmp.type, icmp.code) == ((3, 4) if v4 else (2, 0)):
            return Sign.MTU_EXCEEDED
    return None


def _by_route(packet: PacketSummary, scene: Scene) -> Sign | None:
    v4 = packet.family is PacketFamily.IPV4
    kind = scene.route.kind if scene.route else None
    if kind in REFUSING:
        return Sign.BLACKHOLE_ROUTE
    if kind == "none" and risen(scene, "IpExt.InNoRoutes" if v4 else "Ip6InNoRoutes"):
        return Sign.NO_ROUTE
    if packet.ttl <= 1 and risen(scene, "Ip.InHdrErrors" if v4 else "Ip6InHdrErrors"):
        return Sign.TTL_EXCEEDED
    most = limit(scene)
    if most and packet.length > most and risen(scene, "Ip.FragFails" if v4 else "Ip6FragFails"):
        return Sign.MTU_EXCEEDED
    return None
