"""The causes that lie in routing: routes, forwarding and source validation."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from ipttrace.diagnose.case import Case
from ipttrace.diagnose.catalogue import Cause
from ipttrace.diagnose.exempt import spared
from ipttrace.diagnose.proof import answer_words, call_refused, not_judged, proof
from ipttrace.diagnose.walk import last_change, mark_before, name
from ipttrace.evidence import Route
from ipttrace.netfilter import PacketFamily
from ipttrace.path import ChainHop, Diagnosis, DropHop, Evidence, Strength
from ipttrace.presumed import (
    REFUSING,
    Sign,
    forwards,
    is_loopback,
    loopback_routed,
    rp_filter,
)
from ipttrace.route_hops import REFUSERS, UNROUTED, refused_anew
from ipttrace.targets import sent_on_to

MODES = {1: "strict", 2: "loose"}
"""Of rp_filter (Documentation/networking/ip-sysctl.rst)."""
UNREACHABLE = {PacketFamily.IPV4: 3, PacketFamily.IPV6: 1}
"""The type of ICMP errors about destinations."""
NO_REASON = "NOT_SPECIFIED"


def rp_filter_dropped(case: Case) -> Diagnosis | None:
    """Return the cause where source validation refused the packet: IPv4 only."""
    counter = frozenset({"TcpExt.IPReversePathFilter"})
    found = proof(case, Sign.RP_FILTER, lambda drop: drop.reason == "IP_RPFILTER", counter)
    if found is None:
        return None
    packet, interface = case.packet, case.path.in_interface
    way = _way_back(case)
    summary = f"dropped by the reverse path filter of {interface}: {way}"
    evidence = (*found, *_filter_setting(case), Evidence(way, Strength.MATCHED))
    remedy = (
        (
            f"if {packet.src} belongs behind {interface}, give it a route there: "
            f"{_route_add(packet.src, interface)}"
        ),
        f"or accept sources that have any route: {sysctl(conf(case, 'rp_filter'), 2)}",
    )
    return Diagnosis(Cause.RP_FILTER, summary, evidence=evidence, remedy=remedy)


def _way_back(case: Case) -> str:
    back, src = case.scene.route_back, case.packet.src
    if back is None:
        return f"the way back to {src} does not lead out of it"
    if back.kind == "none" or back.kind in REFUSING:
        return f"there is no route back to {src}"
    if back.kind == "local":
        return f"{src} is an address of this host itself"
    if back.interface != case.path.in_interface:
        return f"the way back to {src} leads out of {back.interface}"
    return f"the way back to {src} does not lead out of it for this packet"


def _filter_setting(case: Case) -> Iterator[Evidence]:
    mode = rp_filter(case.scene, case.path.in_interface)
    if mode:
        names = (conf(case, "rp_filter", "all"), conf(case, "rp_filter"))
        words = ", ".join(f"{each} = {case.scene.settings.get(each, '?')}" for each in names)
        text = f"the filter of {case.path.in_interface} is {MODES.get(mode, mode)}: {words}"
        yield Evidence(text, Strength.MATCHED)


def martian_loopback(case: Case) -> Diagnosis | None:
    """Return the cause where a packet from outside was sent on to 127.0.0.0/8.

    IP_LOCALNET since Linux 6.14; before, ip_route_input_noref failed without a reason.
    """
    packet, interface = case.packet, case.path.in_interface
    if not is_loopback(packet.dst) or interface in (None, "lo"):
        return None

    def fits(drop: DropHop) -> bool:
        unnamed = drop.reason == NO_REASON and (drop.location or "").startswith("ip_rcv_finish")
        closed = not loopback_routed(case.scene, interface)
        return drop.reason == "IP_LOCALNET" or (unnamed and closed)

    found = proof(case, Sign.MARTIAN_LOOPBACK, fits)
    if found is None:
        return None
    rules = setters(case)
    refs = tuple(hop.ref for hop in rules)
    who = f"{refs[0]} sent it on to" if refs else "it is addressed to"
    setting = conf(case, "route_localnet")
    summary = (
        f"dropped by routing: {who} {packet.dst}, and no packet from outside may go to "
        f"127.0.0.0/8 ({setting} is {case.scene.settings.get(setting, '0')})"
    )
    strength = Strength.MATCHED if case.scene.settings else Strength.INFERRED
    closed = Evidence(f"route_localnet is 0 for {interface} and for all", strength)
    remedy = (
        f"let the service listen on an address of {interface} too, and send packets there",
        (
            f"or open 127.0.0.0/8 to what comes in by {interface}, with all that listens there: "
            f"{sysctl(setting, 1)}"
        ),
    )
    rule = [Evidence(f"{each.ref}: {each.rule}", Strength.INFERRED) for each in rules]
    evidence = (*found, closed, *rule)
    return Diagnosis(Cause.MARTIAN_LOOPBACK, summary, refs, evidence, remedy=remedy)


def setters(case: Case) -> list[ChainHop]:
    """Return the hop, if there is one, whose rule gave the packet its destination."""
    return [hop for hop in case.path.chain_hops if sent_on_to(hop.rule) is not None][-1:]


def forwarding_off(case: Case) -> Diagnosis | None:
    """Return the cause where the packet is for another host, and none are forwarded here."""
    packet, interface = case.packet, case.path.in_interface
    if forwards(case.scene, packet.family, interface) is not False:
        return None
    v4 = packet.family is PacketFamily.IPV4
    counters = frozenset({"Ip.InAddrErrors"} if v4 else {"Ip6InAddrErrors"})
    found = proof(
        case, Sign.FORWARDING_OFF, lambda drop: drop.reason == "IP_INADDRERRORS", counters
    )
    if found is None:
        return None
    whole = case.scene.settings.get("net/ipv4/ip_forward") == "0"
    setting = conf(case, "forwarding", interface if v4 else "all")
    setting = "net/ipv4/ip_forward" if v4 and whole else setting
    summary = (
        f"dropped by routing: {packet.dst} is no address of this host, and it forwards nothing"
        f"{'' if not v4 or whole else f' that comes in by {interface}'} ({setting} is 0)"
    )
    evidence = (*found, Evidence(f"{setting} = 0", Strength.MATCHED))
    remedy = [f"to let this host forward: {sysctl(setting, 1)}"]
    if not v4:
        remedy.append("mind that it then ignores router advertisements unless accept_ra is 2")
    return Diagnosis(Cause.FORWARDING_OFF, summary, evidence=evidence, remedy=tuple(remedy))


def blackhole_route(case: Case) -> Diagnosis | None:
    """Return the cause where the route is one that refuses: blackhole, unreachable, prohibit.

    ip_error frees such a packet without a reason (net/ipv4/route.c); IPv6 has IP_INNOROUTES for
    two of the three types (ip6_pkt_drop in net/ipv6/route.c).
    """
    route = case.scene.route
    if route is None or route.kind not in REFUSING:
        return None

    def fits(drop: DropHop) -> bool:
        unnamed = drop.reason == NO_REASON and (drop.location or "").startswith(REFUSERS)
        return drop.reason in UNROUTED or unnamed or refused_anew(case.path, case.scene, drop)

    found = call_refused(case, route.error) or proof(case, Sign.BLACKHOLE_ROUTE, fits)
    if found is None:
        return None
    what = _refusing_entry(route)
    refs = tuple(hop.ref for hop in setters(case))
    by = f", the destination that {refs[0]} gave it," if refs else ""
    setter, led = _by_mark(case, route)
    refs += (setter.ref,) if setter else ()
    summary = f"dropped by routing: {case.packet.dst}{by} has {what}{led}"
    seen = Evidence(f"RTM_GETROUTE for it ends with {route.error}: {what}", Strength.MATCHED)
    told = answer_words(case, "an ICMP error", UNREACHABLE[case.packet.family])
    spare = spared(case, setter) if setter else ()
    remedy = (*spare, *_without_entry(route, _ip(case)))
    evidence = (*found, seen, *not_judged(route), *told)
    return Diagnosis(Cause.BLACKHOLE_ROUTE, summary, refs, evidence, remedy=remedy)


def _by_mark(case: Case, route: Route) -> tuple[ChainHop | None, str]:
    """Return the rule whose mark led to a route, and in words how; "" where no mark did."""
    if route.marked is None:
        return None, ""
    hop = last_change(case.path, "mark")
    who = f", which {name(hop)} had set" if hop else ""
    mark = f"mark {mark_before(case.path, None):#x}"
    leads = "asks for" if route.rule is not None else "leads there for"
    return hop, f"; ip rule {route.marked} {leads} {mark}{who}"


def _without_entry(route: Route, program: str) -> tuple[str, ...]:
    """Return how to see and to delete what refuses."""
    if route.rule is not None:
        return (
            f"to see the rule: {program} rule show pref {route.rule}",
            f"to delete it: {program} rule del pref {route.rule}",
        )
    return (
        f"to see the route: {program} route show table {route.table} type {route.kind}",
        f"to delete it: {program} route del {route.kind} {route.prefix} table {route.table}",
    )


def _refusing_entry(route: Route) -> str:
    article = "an" if route.kind == "unreachable" else "a"
    if route.rule is not None:
        return f"{article} {route.kind} routing rule (ip rule, priority {route.rule})"
    return f"{article} {route.kind} route: {route.prefix} in table {route.table}"


def no_route(case: Case) -> Diagnosis | None:
    """Return the cause where no route was found."""
    packet, route = case.packet, case.scene.route
    v4 = packet.family is PacketFamily.IPV4
    counters = frozenset(
        {"IpExt.InNoRoutes", "Ip.OutNoRoutes"} if v4 else {"Ip6InNoRoutes", "Ip6OutNoRoutes"}
    )

    def fits(drop: DropHop) -> bool:
        return drop.reason in UNROUTED or refused_anew(case.path, case.scene, drop)

    found = call_refused(case, "ENETUNREACH") or proof(case, Sign.NO_ROUTE, fits, counters)
    if found is None:
        return None
    seen: tuple[Evidence, ...] = ()
    if route is not None and route.kind == "none":
        none = Evidence(f"RTM_GETROUTE finds none: {route.error}", Strength.MATCHED)
        seen = (none, *not_judged(route))
    where = "" if case.client_here or case.path.in_interface else " in the client's namespace"
    for_what = f" for what comes in by {case.path.in_interface}" if case.path.in_interface else ""
    refs = tuple(hop.ref for hop in setters(case))
    by = f", the destination that {refs[0]} gave it" if refs else ""
    summary = f"there is no route to {packet.dst}{by}{for_what}{where}"
    summary = f"dropped by routing: {summary}" if for_what else f"not sent: {summary}"
    told = answer_words(case, "an ICMP error", UNREACHABLE[packet.family])
    remedy = (
        f"to see the routes: {_ip(case)} route show",
        f"to see which one a packet takes: {_route_get(case)}",
    )
    return Diagnosis(Cause.NO_ROUTE, summary, refs, (*found, *seen, *told), remedy=remedy)


def conf(case: Case, setting: str, interface: str | None = None) -> str:
    """Return the name of an interface's setting: by default of the one that it came in by."""
    folder = "ipv4" if case.packet.family is PacketFamily.IPV4 else "ipv6"
    return f"net/{folder}/conf/{interface or case.path.in_interface}/{setting}"


def sysctl(name: str, value: int) -> str:
    """Return the command that changes a setting."""
    return shlex.join(["sysctl", "-w", f"{name}={value}"])


def _ip(case: Case) -> str:
    return "ip" if case.packet.family is PacketFamily.IPV4 else "ip -6"


def _route_add(address: str, interface: str | None) -> str:
    return shlex.join(["ip", "route", "add", address, "dev", str(interface)])


def _route_get(case: Case) -> str:
    packet, interface = case.packet, case.path.in_interface
    came = ["from", packet.src, "iif", interface] if interface else []
    return shlex.join(["ip", "route", "get", packet.dst, *came])


CAUSES: tuple[Callable[[Case], Diagnosis | None], ...] = (
    rp_filter_dropped,
    martian_loopback,
    forwarding_off,
    blackhole_route,
    no_route,
)
