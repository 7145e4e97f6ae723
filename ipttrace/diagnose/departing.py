"""The causes that lie in routing of what is made here, and may not be sent where it was to go."""

from __future__ import annotations

from collections.abc import Callable

from ipttrace.diagnose.case import Case
from ipttrace.diagnose.catalogue import Cause
from ipttrace.diagnose.proof import call_refused, proof
from ipttrace.diagnose.routing import conf, setters, sysctl
from ipttrace.fates import address_of_many
from ipttrace.path import Diagnosis, DropHop, Evidence, Strength
from ipttrace.presumed import Sign
from ipttrace.route_hops import refused_anew


def loopback_source(case: Case) -> Diagnosis | None:
    """Return the cause where a packet from 127.0.0.0/8 was to leave this host."""
    packet, route = case.packet, case.scene.route
    if route is None or route.kind != "none" or route.interface is None:
        return None

    def fits(drop: DropHop) -> bool:
        return refused_anew(case.path, case.scene, drop)

    found = call_refused(case, route.error) or proof(case, Sign.NO_ROUTE, fits)
    if found is None:
        return None
    rules = setters(case)
    refs = tuple(hop.ref for hop in rules)
    who = f"{refs[0]} sent it on to" if refs else "it is addressed to"
    setting = conf(case, "route_localnet", route.interface)
    summary = (
        f"not sent: {who} {packet.dst}, but it comes from {packet.src}, and no packet from "
        f"127.0.0.0/8 may leave by {route.interface} ({setting} is 0)"
    )
    seen = Evidence(
        f"RTM_GETROUTE ends with {route.error} for it, and finds {route.interface} for packets "
        "from elsewhere",
        Strength.MATCHED,
    )
    rule = [Evidence(f"{each.ref}: {each.rule}", Strength.INFERRED) for each in rules]
    remedy = (
        "send to an address of this host that is not of 127.0.0.0/8, and so from there",
        (
            "or let them leave, and give them another source by a rule of nat/POSTROUTING, or no "
            f"answer finds its way back: {sysctl(setting, 1)}"
        ),
    )
    evidence = (*found, seen, *rule)
    return Diagnosis(Cause.MARTIAN_LOOPBACK, summary, refs, evidence, remedy=remedy)


def to_many(case: Case) -> Diagnosis | None:
    """Return the cause where TCP refused to connect to a broadcast or multicast address."""
    packet = case.packet
    kind = address_of_many(packet, case.scene) if packet.protocol == "tcp" else None
    found = call_refused(case, "ENETUNREACH")
    if kind is None or found is None:
        return None
    summary = f"not sent: {packet.dst} is a {kind} address, and TCP connects to one host only"
    remedy = ("send to the address of one host",)
    return Diagnosis(Cause.KERNEL_DROP, summary, evidence=found, remedy=remedy)


CAUSES: tuple[Callable[[Case], Diagnosis | None], ...] = (loopback_source, to_many)
