"""What routing says of one packet, and of the way back to its source: RTM_GETROUTE and its kin.

A lookup that ends at a blackhole, unreachable or prohibit route answers with an errno alone, also
with RTM_F_FIB_MATCH (inet_rtm_getroute in net/ipv4/route.c, inet6_rtm_getroute in
net/ipv6/route.c): the entry is then looked for in a dump of the routes of that type.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_address

from ipttrace.decode.routing_rule import (
    DSCP,
    PROTOCOLS,
    UNTOLD,
    Asked,
    RuleMessage,
    decode_rule,
)
from ipttrace.decode.rtnetlink import (
    ROUTE_KINDS,
    RouteMessage,
    decode_mtu,
    decode_neighbour,
    decode_route,
)
from ipttrace.evidence import Neighbour, Route, Unjudged
from ipttrace.packet import PacketSummary
from ipttrace.presumed import is_loopback
from ipttrace.system.netlink_attributes import attribute, number16, string
from ipttrace.system.netlink_requests import NLM_F_DUMP
from ipttrace.system.route_netlink import IFLA_IFNAME, RTM_GETROUTE, RouteSocket
from ipttrace.system.route_refusals import Refusal, most_likely, refusals, unjudged_before

RTM_GETLINK, RTM_GETNEIGH, RTM_GETRULE = 18, 30, 34
RTM_F_LOOKUP_TABLE = 0x1000
"""IPv4 names the table only on request, IPv6 always (inet6_rtm_valid_getroute_req refuses it)."""
RTA_DST, RTA_SRC, RTA_IIF, RTA_MARK = 1, 2, 3, 16
RTA_UID, RTA_IP_PROTO, RTA_SPORT, RTA_DPORT = 25, 27, 28, 29
NDA_DST = 1
SOL_NETLINK, NETLINK_GET_STRICT_CHK = 270, 12
"""Lets a dump be filtered by type in the kernel (uapi/linux/netlink.h)."""

REFUSING = {errno.EINVAL: "blackhole", errno.EHOSTUNREACH: "unreachable", errno.EACCES: "prohibit"}
"""What a lookup answers for routes of these types (fib_props in net/ipv4/fib_semantics.c)."""
REFUSING_RULES = {
    errno.EINVAL: "blackhole",
    errno.ENETUNREACH: "unreachable",
    errno.EACCES: "prohibit",
}
"""What it answers for routing rules (fib4_rule_action in net/ipv4/fib_rules.c)."""

UNSPECIFIED = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, never bound to
UNSPECIFIED_OF: dict[int, str] = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # noqa: S104 - the same

_RTMSG = struct.Struct("=BBBBBBBBI")
_NDMSG = struct.Struct("=BxxxiHBB")
_IFINFOMSG = struct.Struct("=BxHiII")
_U32 = struct.Struct("=I")


class Lookup(Asked):
    """One question to the routing tables."""

    __slots__ = ()

    def fits(self, rule: RuleMessage) -> bool:
        """Tell whether a routing rule is surely for the packet."""
        return rule.judge(self)[0]

    @property
    def is_whole(self) -> bool:
        """Whether all is known that a rule may ask for and a question can tell."""
        return self.dsfield is not None and self.uid is not None

    def encode(self) -> bytes:
        """Return it as the body of an RTM_GETROUTE."""
        packet = self.packet
        dst = _packed(packet.dst)
        src = b"" if packet.src in UNSPECIFIED else _packed(packet.src)
        words = [attribute(RTA_DST, dst)]
        if src:
            words.append(attribute(RTA_SRC, src))
        if self.in_interface is not None:
            words.append(attribute(RTA_IIF, _U32.pack(socket.if_nametoindex(self.in_interface))))
        if self.mark:
            words.append(attribute(RTA_MARK, _U32.pack(self.mark)))
        if packet.protocol in PROTOCOLS:
            words.append(attribute(RTA_IP_PROTO, bytes([PROTOCOLS[packet.protocol]])))
        if self.uid is not None:
            words.append(attribute(RTA_UID, _U32.pack(self.uid)))
        for kind, port in ((RTA_SPORT, packet.sport), (RTA_DPORT, packet.dport)):
            if port is not None:
                words.append(number16(kind, port))
        family = _family(packet.dst)
        flags = RTM_F_LOOKUP_TABLE if family == socket.AF_INET else 0
        tos = (self.dsfield or 0) & DSCP
        header = _RTMSG.pack(family, len(dst) * 8, len(src) * 8, tos, 0, 0, 0, 0, flags)
        return header + b"".join(words)


class RouteTables(RouteSocket):
    """Asks in the namespace where it was made; what cannot be asked raises OSError."""

    def __init__(self) -> None:
        super().__init__()
        self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)

    def route(self, lookup: Lookup) -> Route:
        """Return how a packet would be routed now."""
        try:
            found = self._named(decode_route(self._ask(RTM_GETROUTE, lookup.encode())[0]))
        except OSError as error:
            return self._refused(lookup, error.errno or 0)
        asked = None if lookup.packet.src in UNSPECIFIED else lookup.packet.src
        if found.source is None and lookup.in_interface is None:
            # IPv4 tells the source only where it is another one than was asked for (rt_fill_info).
            found = replace(found, source=asked)
        return found if lookup.is_whole else replace(found, unjudged=tuple(self._open(lookup)))

    def _open(self, lookup: Lookup) -> Iterator[Unjudged]:
        """Yield the rules that ask for what could not be told to the kernel."""
        for rule in self._rules(lookup.packet.dst):
            _, criteria = rule.judge(lookup)
            untold = tuple(each for each in criteria if each in UNTOLD)
            if untold:
                yield Unjudged(rule.priority, untold)

    def back(self, packet: PacketSummary, mark: int = 0) -> Route | None:
        """Return the way to a packet's source, as source validation asks for it."""
        if packet.src in UNSPECIFIED:
            return None
        here = PacketSummary(packet.family, "", UNSPECIFIED_OF[_family(packet.src)], packet.src)
        return self.route(Lookup(here, mark, uid=0))

    def neighbour(self, route: Route, packet: PacketSummary) -> Neighbour | None:
        """Return the entry of the next host on a route; None where there is none."""
        if route.interface is None or route.kind != "unicast":
            return None
        return self.entry(route.interface, route.gateway or packet.dst)

    def entry(self, interface: str, address: str) -> Neighbour | None:
        """Return the entry of a host on an interface's link; None where there is none."""
        index = socket.if_nametoindex(interface)
        header = _NDMSG.pack(_family(address), index, 0, 0, 0)
        try:
            found = self._ask(RTM_GETNEIGH, header + attribute(NDA_DST, _packed(address)))
        except FileNotFoundError:
            return None
        return Neighbour(interface, address, decode_neighbour(found[0]).state)

    def mtu(self, interfaces: Iterable[str | None]) -> dict[str, int]:
        """Return the MTU of each interface that there is."""
        found: dict[str, int] = {}
        for name in interfaces:
            if name is None:
                continue
            body = _IFINFOMSG.pack(0, 0, 0, 0, 0) + string(IFLA_IFNAME, name)
            limit = decode_mtu(self._ask(RTM_GETLINK, body)[0])
            if limit is not None:
                found[name] = limit
        return found

    def _named(self, message: RouteMessage) -> Route:
        interface = socket.if_indextoname(message.interface) if message.interface else None
        return Route(
            message.kind,
            interface,
            message.gateway,
            message.table,
            message.source,
            mtu=message.mtu,
        )

    def _refused(self, lookup: Lookup, error: int) -> Route:
        """Return the route of a lookup that ended with an errno, with the entry that did it.

        A lookup for a packet that came in may be refused for its source: then the destination
        alone is asked for.
        """
        word = errno.errorcode.get(error, str(error))
        if error == errno.EINVAL and (way := self._kept_in(lookup)) is not None:
            return Route("none", way, error=word)
        if error not in REFUSING and error not in REFUSING_RULES:
            return Route("none", error=word)
        dst, kind = lookup.packet.dst, REFUSING.get(error)
        entries = [each for each in self._entries(dst, kind) if each.covers(dst)] if kind else []
        rules = sorted(self._rules(dst), key=lambda each: each.priority)
        first = next(refusals(lookup, REFUSING_RULES.get(error), rules, entries), None)
        if lookup.in_interface and not self._refuses(lookup, error, rules, first):
            return Route("none", error=word)
        unjudged = tuple(unjudged_before(lookup, REFUSING_RULES.get(error), rules, entries, first))
        if first is None:
            return replace(most_likely(lookup, kind, word, rules, entries), unjudged=unjudged)
        rule, entry = first
        marked = rule.priority if rule.mask else None
        if entry is None:
            found = Route(str(rule.action), error=word, rule=rule.priority, marked=marked)
        else:
            found = Route(
                entry.kind, table=entry.table, error=word, prefix=entry.prefix, marked=marked
            )
        return replace(found, unjudged=unjudged)

    def _kept_in(self, lookup: Lookup) -> str | None:
        """Return by which interface a packet may not leave because it comes from 127.0.0.0/8.

        So it is while the interface's route_localnet is 0 (__mkroute_output in net/ipv4/route.c).
        """
        packet = lookup.packet
        if lookup.in_interface or not is_loopback(packet.src) or is_loopback(packet.dst):
            return None
        anyone = replace(packet, src=UNSPECIFIED_OF[_family(packet.dst)])
        try:
            body = self._ask(RTM_GETROUTE, Lookup(anyone, lookup.mark).encode())[0]
        except OSError:
            return None
        return self._named(decode_route(body)).interface

    def _refuses(
        self, lookup: Lookup, error: int, rules: list[RuleMessage], first: Refusal | None
    ) -> bool:
        """Tell whether a packet that came in was refused for where it goes to."""
        packet = replace(lookup.packet, src=UNSPECIFIED_OF[_family(lookup.packet.dst)])
        try:
            body = self._ask(
                RTM_GETROUTE, replace(lookup, packet=packet, in_interface=None).encode()
            )[0]
        except OSError as other:
            return other.errno == error
        table = decode_route(body).table
        found = (each for each in rules if each.table == table and lookup.fits(each))
        other_way = next(found, None)
        return first is not None and (other_way is None or first[0].priority < other_way.priority)

    def _entries(self, address: str, kind: str) -> list[RouteMessage]:
        wanted = next(number for number, word in ROUTE_KINDS.items() if word == kind)
        header = _RTMSG.pack(_family(address), 0, 0, 0, 0, 0, 0, wanted, 0)
        found = map(decode_route, self._ask(RTM_GETROUTE, header, NLM_F_DUMP))
        return [each for each in found if each.kind == kind]

    def _rules(self, address: str) -> list[RuleMessage]:
        header = _RTMSG.pack(_family(address), 0, 0, 0, 0, 0, 0, 0, 0)
        found = map(decode_rule, self._ask(RTM_GETRULE, header, NLM_F_DUMP))
        return [self._with_vrf(rule) for rule in found]

    def _with_vrf(self, rule: RuleMessage) -> RuleMessage:
        """Leave a rule open that asks for a VRF: all its ports are that (l3mdev_fib_rule_match)."""
        vrfs = []
        for word, name in (("iif", rule.in_interface), ("oif", rule.out_interface)):
            link = self.link(name) if name and name != "lo" else None
            vrfs += [f"{word} of a VRF"] if link is not None and link.kind == "vrf" else []
        if not vrfs:
            return rule
        open_ones = (*rule.unjudged, *vrfs)
        return replace(rule, in_interface=None, out_interface=None, unjudged=open_ones)


def _packed(address: str) -> bytes:
    return ip_address(address).packed


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
