"""The causes that lie on the way to the wire, in the packet itself, or with the other host."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from ipttrace.diagnose.case import Case
from ipttrace.diagnose.catalogue import Cause
from ipttrace.diagnose.client import client_got
from ipttrace.diagnose.discovery import deaf_chains
from ipttrace.diagnose.exempt import removal, spared
from ipttrace.diagnose.proof import answer_words, call_refused, freed, not_judged, proof, told
from ipttrace.diagnose.remedy import let_discovery_in
from ipttrace.diagnose.walk import last_change, made_here, name
from ipttrace.netfilter import Hook, PacketFamily
from ipttrace.path import ChainHop, Diagnosis, DropHop, Evidence, Strength
from ipttrace.presumed import CHECKSUMS, IP_CHECKSUM, UNRESOLVED, Sign, limit
from ipttrace.route_hops import REFUSERS

NEIGHBOUR_DROPS = frozenset({"NEIGH_FAILED", "NEIGH_QUEUEFULL", "NEIGH_DEAD"})
CHECKSUM_DROPS = {
    "IP_CSUM": "IPv4 header",
    "TCP_CSUM": "TCP",
    "UDP_CSUM": "UDP",
    "ICMP_CSUM": "ICMP",
    "SKB_CSUM": "transport",
}
"""Reasons, and whose checksum each one means."""

MEANINGS = {
    "TC_INGRESS": "a tc filter on the way in dropped it",
    "TC_EGRESS": "a tc filter on the way out dropped it",
    "XDP": "an XDP program dropped it",
    "BPF_CGROUP_EGRESS": "a BPF program of the sender's control group dropped it",
    "SOCKET_FILTER": "a filter of the receiving socket dropped it",
    "QDISC_DROP": "the queue of the interface dropped it",
    "FULL_RING": "the queue of the interface was full",
    "OTHERHOST": "it was addressed to another host's link address",
    "IP_LOCAL_SOURCE": "its source is an address of this very host",
    "IP_LOCALNET": "127.0.0.0/8 may not come from or go to the outside",
    "IP_INVALID_SOURCE": "its source is no address that a host can have",
    "SOCKET_RCVBUFF": "the receiving socket's buffer was full",
    "DEV_READY": "the interface was not ready",
    "NOMEM": "there was no memory",
}
"""What a reason means (include/net/dropreason-core.h)."""

REDIRECTS = frozenset({("icmp", 5), ("icmp6", 137)})
"""The ICMP types that tell a sender of a better first hop."""

V4 = PacketFamily.IPV4


def neighbour_failed(case: Case) -> Diagnosis | None:
    """Return the cause where the next host does not tell its link address (ARP, ND).

    arp_error_report frees what waited with NEIGH_FAILED, ndisc_error_report without a reason.
    """
    entry, wait = case.scene.neighbour, next(reversed(case.trail.waits), None)

    def fits(drop: DropHop) -> bool:
        waited = wait is not None and drop.time > wait.time
        return drop.reason in NEIGHBOUR_DROPS or (waited and drop.reason == "NOT_SPECIFIED")

    found = proof(case, Sign.NEIGHBOUR_FAILED, fits)
    if found is None:
        return None
    drop = told(case)
    address = wait.address if wait else entry.address if entry else case.packet.dst
    interface = wait.interface if wait else entry.interface if entry else case.path.out_interface
    who = "the next host" if address == case.packet.dst else "the gateway"
    asks = "ARP" if case.packet.family is V4 else "neighbour discovery"
    deaf = list(deaf_chains(case, address, interface))
    silent = f"{who} {address} does not answer {asks}"
    if deaf:
        refs = " and ".join(str(chain.ref) for chain in deaf)
        silent = f"{who} {address} is not found: {refs} lets no neighbour advertisement in"
    summary = f"dropped on its way out of {interface}: {silent}"
    asking = entry is not None and entry.state == "incomplete" and case.client in (None, "TIMEOUT")
    if drop is None and asking:
        summary = f"{summary} (the kernel still asks, and gives up after about 3 s)"
    remedy = (
        f"check that {address} is up, in this network, and on the link of {interface}",
        "to see the entry: " + shlex.join(["ip", "neigh", "show", address]),
    )
    let = (f"to let them in: {let_discovery_in(each.ref, each.user_rules)}" for each in deaf)
    shut = (Evidence(f"{each.ref}: no rule fits, policy DROP", Strength.INFERRED) for each in deaf)
    evidence = (*found, *_neighbour_evidence(case), *shut)
    return Diagnosis(Cause.NEIGHBOUR_FAILED, summary, evidence=evidence, remedy=(*let, *remedy))


def _neighbour_evidence(case: Case) -> Iterator[Evidence]:
    for wait in case.trail.waits[-1:]:
        text = f"it waited for the link address of {wait.address} on {wait.interface}"
        yield Evidence(text, Strength.REPORTED)
    entry = case.scene.neighbour
    if entry is not None and entry.state in UNRESOLVED:
        state = entry.state.upper()
        text = f"the neighbour entry of {entry.address} on {entry.interface} is {state}"
        yield Evidence(text, Strength.MATCHED)
    if case.client == "EHOSTUNREACH":
        yield Evidence(client_got(case.client), Strength.REPORTED)


def mtu_exceeded(case: Case) -> Diagnosis | None:
    """Return the cause where the packet was too large, and might not be fragmented."""
    v4 = case.packet.family is V4
    counters = frozenset({"Ip.FragFails"} if v4 else {"Ip6FragFails", "Ip6InTooBigErrors"})
    found = call_refused(case, "EMSGSIZE")
    found = found or proof(case, Sign.MTU_EXCEEDED, _has("PKT_TOO_BIG"), counters)
    if found is None:
        return None
    most, route = limit(case.scene), case.scene.route
    size = f"{case.packet.length} bytes" if case.packet.length else "a packet"
    by = f" of {route.interface}" if route is not None and route.interface else ""
    reason = "it has DF set" if v4 else "IPv6 routers do not fragment"
    told = f" ({most})" if most else ""
    summary = f"dropped: {size} are more than the MTU{by or ' of its way'}{told}, and {reason}"
    seen = [Evidence(f"the MTU of the way{by} is {most}", Strength.MATCHED)] if most else []
    message = "ICMP 3/4 (fragmentation needed)" if v4 else "ICMPv6 2/0 (packet too big)"
    heard = answer_words(case, message, 3 if v4 else 2)
    program = "iptables" if v4 else "ip6tables"
    remedy = (
        f"let {message} reach the sender: it must not be dropped on its way",
        (
            f"for TCP: {program} -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS "
            "--clamp-mss-to-pmtu"
        ),
    )
    return Diagnosis(Cause.MTU_EXCEEDED, summary, evidence=(*found, *seen, *heard), remedy=remedy)


def ttl_exceeded(case: Case) -> Diagnosis | None:
    """Return the cause where the TTL or hop limit ran out at this host (ip_forward)."""
    packet = case.packet
    if packet.ttl > 1:
        return None
    v4 = packet.family is V4
    counters = frozenset({"Ip.InHdrErrors"} if v4 else {"Ip6InHdrErrors"})
    found = proof(
        case,
        Sign.TTL_EXCEEDED,
        lambda drop: drop.reason == "IP_INHDR" and "forward" in (drop.location or "forward"),
        counters,
    )
    if found is None:
        return None
    word = "TTL" if v4 else "hop limit"
    summary = f"dropped where it was to be forwarded: its {word} was {packet.ttl}"
    seen = Evidence(f"it came in with {word} {case.path.packet.ttl}", Strength.REPORTED)
    message = "ICMP 11/0 (time exceeded)" if v4 else "ICMPv6 3/0 (time exceeded)"
    evidence = (*found, seen, *answer_words(case, message, 11 if v4 else 3))
    if (setter := _spent_by(case)) is not None:
        summary = f"{summary}, which {name(setter)} had set"
        remedy = (*spared(case, setter, f"the {word} of that rule"), *removal(setter))
        evidence = (*evidence, Evidence(f"{setter.ref}: {setter.rule}", Strength.INFERRED))
        return Diagnosis(Cause.TTL_EXCEEDED, summary, (setter.ref,), evidence, remedy=remedy)
    remedy = (
        f"look for a routing loop: traceroute -n {shlex.quote(packet.dst)}",
        f"or let the sender use a larger {word}",
    )
    return Diagnosis(Cause.TTL_EXCEEDED, summary, evidence=evidence, remedy=remedy)


def _spent_by(case: Case) -> ChainHop | None:
    """Return the rule of this host that left the packet too small a TTL; None if it came so."""
    return last_change(case.path, "ttl") if case.path.packet.ttl > 1 else None


def bad_checksum(case: Case) -> Diagnosis | None:
    """Return the cause where a checksum of the packet is wrong."""
    counters = frozenset({IP_CHECKSUM, *CHECKSUMS.get(case.packet.protocol, ())})
    drop = told(case)
    found = proof(case, Sign.BAD_CHECKSUM, lambda each: each.reason in CHECKSUM_DROPS, counters)
    if found is None:
        return None
    early = not case.path.chain_hops
    whose = CHECKSUM_DROPS[drop.reason] if drop else "IPv4 header" if early else "transport"
    summary = f"dropped: its {whose} checksum is wrong"
    interface = case.path.in_interface or "any"
    remedy = (
        "look for what rewrites packets without mending them (tc filters, offloading, hardware)",
        "to see it: " + shlex.join(["tcpdump", "-vvni", interface, "host", case.packet.src]),
    )
    return Diagnosis(Cause.BAD_CHECKSUM, summary, evidence=found, remedy=remedy)


def kernel_drop(case: Case) -> Diagnosis | None:
    """Return the kernel's own words, where no other cause explains them."""
    drop, last = told(case), case.last
    if drop is None:
        return None
    where = f" in {drop.location}" if drop.location else ""
    meaning = MEANINGS.get(drop.reason)
    after = f" after {name(last)}" if last else ""
    summary = f"the kernel dropped it{after}: {drop.reason}{where}"
    summary += f" ({meaning})" if meaning else ""
    place = [Evidence(f"{name(last)} is its last report", Strength.REPORTED)] if last else []
    if _is_redirect_of_nat(case, drop):
        text = "NAT lets no ICMP redirect of a translated connection out"
        evidence = (freed(drop), *place, Evidence(text, Strength.INFERRED))
        needless = "nothing need be done: a translated connection has to go through this host"
        summary = f"{summary}: {text}"
        return Diagnosis(Cause.KERNEL_DROP, summary, evidence=evidence, remedy=(needless,))
    if drop.reason == "NETFILTER_DROP" and last is None:
        place = list(_at_ingress(case))
    if case.scene.route is not None and (drop.location or "").startswith(REFUSERS):
        place += not_judged(case.scene.route)
    remedy = tuple(_look(case, drop))
    return Diagnosis(Cause.KERNEL_DROP, summary, evidence=(freed(drop), *place), remedy=remedy)


def _is_redirect_of_nat(case: Case, drop: DropHop) -> bool:
    """Return whether it is a redirect that this host made for a packet whose addresses changed.

    nf_nat_icmp_reply_translation, and its kin for IPv6, drop it.
    """
    icmp = case.path.packet.icmp
    if icmp is None or (case.path.packet.protocol, icmp.type) not in REDIRECTS:
        return False
    request = next((path for path in case.paths if path.id == case.path.request), None)
    hops = request.chain_hops if request else ()
    fields = {change.field for hop in hops for change in hop.changes}
    made = drop.reason == "NETFILTER_DROP" and made_here(case.path)
    return made and bool(fields & {"src", "dst", "sport", "dport"})


def _at_ingress(case: Case) -> Iterator[Evidence]:
    """Yield the chains at ingress: they are asked first of what comes in."""
    if case.path.in_interface is None:
        return
    for chain in case.ruleset.chains.values():
        if chain.hook is Hook.INGRESS:
            where = f"{chain.ref.table_family} {chain.ref}"
            text = f"no chain reported it; {where} stands at ingress"
            yield Evidence(text, Strength.INFERRED)


def _look(case: Case, drop: DropHop) -> Iterator[str]:
    interface = case.path.in_interface or case.path.out_interface or "<interface>"
    if drop.reason.startswith("TC_"):
        way = "ingress" if drop.reason == "TC_INGRESS" else "egress"
        yield "to see the filters: " + shlex.join(["tc", "filter", "show", "dev", interface, way])
    elif drop.reason.startswith("XDP"):
        yield "to see the program: " + shlex.join(["ip", "link", "show", "dev", interface])
    elif drop.reason.startswith("BPF_CGROUP"):
        yield "to see the programs: bpftool cgroup tree"
    elif drop.reason in ("QDISC_DROP", "FULL_RING"):
        yield "to see the queue: " + shlex.join(["tc", "-s", "qdisc", "show", "dev", interface])
    elif drop.reason == "NETFILTER_DROP" and case.last is None and any(_at_ingress(case)):
        yield "to see the chains at ingress: nft list ruleset"


def _has(reason: str) -> Callable[[DropHop], bool]:
    return lambda drop: drop.reason == reason


CAUSES: tuple[Callable[[Case], Diagnosis | None], ...] = (
    neighbour_failed,
    mtu_exceeded,
    ttl_exceeded,
    bad_checksum,
)
