"""Packets, hops and fates in words; text of rules and interfaces is cleaned here."""

from __future__ import annotations

import re

from ipttrace.decode.text import clean_text
from ipttrace.diagnose.remedy import is_native, program
from ipttrace.diagnose.walk import with_port
from ipttrace.event import TraceKind
from ipttrace.netfilter import FATAL_VERDICTS, Basis, ChainRef, PacketFamily, TableFamily, Verdict
from ipttrace.packet import IcmpHeader, PacketSummary
from ipttrace.path import (
    ChainHop,
    Change,
    DropHop,
    NatHop,
    Outcome,
    PacketPath,
    ResetHop,
    RouteHop,
    SocketHop,
    SocketState,
    WireHop,
)

ICMP_NAMES = {
    (PacketFamily.IPV4, 0): "echo reply",
    (PacketFamily.IPV4, 3): "unreachable",
    (PacketFamily.IPV4, 5): "redirect",
    (PacketFamily.IPV4, 8): "echo request",
    (PacketFamily.IPV4, 11): "time exceeded",
    (PacketFamily.IPV4, 12): "parameter problem",
    (PacketFamily.IPV6, 1): "unreachable",
    (PacketFamily.IPV6, 2): "packet too big",
    (PacketFamily.IPV6, 3): "time exceeded",
    (PacketFamily.IPV6, 4): "parameter problem",
    (PacketFamily.IPV6, 128): "echo request",
    (PacketFamily.IPV6, 129): "echo reply",
    (PacketFamily.IPV6, 135): "neighbour solicitation",
    (PacketFamily.IPV6, 136): "neighbour advertisement",
}
"""RFC 792, RFC 4443, RFC 4861."""

EXTENSIONS = {
    "0": "hop-by-hop options",
    "43": "routing header",
    "44": "fragment",
    "51": "authentication header",
    "60": "destination options",
}
"""Of IPv6 (RFC 8200), where nft does not show what is behind them."""

MARKS = {
    Outcome.DELIVERED: ">",
    Outcome.FORWARDED: ">",
    Outcome.SENT: ">",
    Outcome.REJECTED: "x",
    Outcome.REFUSED: "x",
    Outcome.DROPPED: "x",
    Outcome.LOST: "?",
    Outcome.INCOMPLETE: "?",
}
"""The sign before a packet's fate."""

AMBIGUOUS = "ambiguous: an equal packet was under way; hops of the two may be exchanged"
RULES_CHANGED = "rules were changed meanwhile: its hops may be of the rules before that or after"
UNREADABLE = "(rule not readable)"

STOPS = FATAL_VERDICTS | {Verdict.QUEUE, Verdict.STOLEN}
VERDICT_MAP = re.compile(r"\bvmap\b")


def endpoint(address: str, port: int | None) -> str:
    """Return `address:port`, with brackets round IPv6; the bare address without a port."""
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def flow_words(packet: PacketSummary) -> str:
    """Return `tcp 203.0.113.7:40000 > 198.51.100.1:8443`."""
    source = endpoint(packet.src, packet.sport)
    protocol = "ipv6" if packet.partial else packet.protocol
    return f"{protocol} {source} > {endpoint(packet.dst, packet.dport)}"


def packet_words(packet: PacketSummary) -> str:
    """Return who speaks to whom, the flags or ICMP type, and the size."""
    parts = [flow_words(packet)]
    if packet.protocol == "tcp" and packet.sport is not None:
        parts.append(" ".join(packet.tcp_flags) or "no flags")
    if packet.icmp is not None:
        parts.append(_icmp_words(packet.family, packet.icmp))
    if packet.fragment_offset or packet.more_fragments:
        parts.append(f"fragment at {packet.fragment_offset}")
    if packet.partial:
        parts.append(EXTENSIONS.get(packet.protocol, f"extension header {packet.protocol}"))
    if packet.length:
        parts.append(f"{packet.length} bytes")
    if packet.quoted is not None:
        parts.append(f"about {flow_words(packet.quoted)}")
    return "  ".join(parts)


def _icmp_words(family: PacketFamily, header: IcmpHeader) -> str:
    name = ICMP_NAMES.get((family, header.type), f"type {header.type}")
    if header.id is not None:
        return f"{name} id {header.id} seq {header.seq}"
    return f"{name} ({header.type}/{header.code})"


def programs(path: PacketPath) -> list[str]:
    """Return the programs whose rules the packet met: `iptables-legacy`, `nft`."""
    hops = path.chain_hops
    return sorted({program(hop.chain, is_native(hop.chain, hop.rule)) for hop in hops})


def origin(path: PacketPath) -> str:
    """Return where the packet came in, or that it was made here."""
    if path.in_interface:
        return f"in on {clean_text(with_port(path.in_interface, path.physical_in))}"
    if path.out_interface:
        way_out = with_port(path.out_interface, path.physical_out)
        return f"made here, out by {clean_text(way_out)}"
    return "made here"


def about(path: PacketPath) -> list[str]:
    """Return what a packet is to the others, whose rules it met, and where it came in."""
    parts = [*programs(path), origin(path)]
    if path.netns is not None:
        parts.append(f"namespace {clean_text(path.netns)}")
    if path.request is not None:
        parts.insert(0, f"answer to #{path.request}")
    if path.leg > 1:
        parts.insert(0, f"leg {path.leg}")
    return parts


def table_name(chain: ChainRef) -> str:
    """Return a table's name, with its family where iptables has none such."""
    table = clean_text(chain.table)
    if chain.table_family in (TableFamily.IP, TableFamily.IP6):
        return table
    return f"{chain.table_family} {table}"


def rule_words(text: str, chain: str) -> str:
    """Return a rule's text without what its line says already: the chain."""
    return clean_text(text.removeprefix(f"-A {chain} "))


def hop_rule(hop: ChainHop) -> str:
    """Return what stands in the rule column of a hop."""
    if hop.event is TraceKind.POLICY:
        return f"policy {hop.verdict}" if hop.verdict else "end of chain"
    if hop.event is TraceKind.RETURN:
        return "end of chain"
    return rule_words(hop.rule, hop.chain.chain) if hop.rule is not None else unknown_rule(hop)


def unknown_rule(hop: ChainHop) -> str:
    """Return what stands for a rule that is not known."""
    return "(a rule that was changed or deleted meanwhile)" if hop.replaced else UNREADABLE


def cautions(path: PacketPath) -> list[str]:
    """Return what keeps a packet's hops from being certain."""
    ambiguous = [AMBIGUOUS] if path.ambiguous else []
    return [*ambiguous, *([RULES_CHANGED] if path.rules_changed else [])]


def hop_effects(hop: ChainHop) -> tuple[str, ...]:
    """Return the changes and the verdict of a hop, as far as its rule's text does not say it."""
    changes = tuple(change_words(change) for change in hop.changes)
    if hop.verdict in STOPS:
        return (*changes, " ".join([str(hop.verdict), *_by(hop)]))
    if _is_verdict_map(hop.rule or ""):
        return (*changes, *_mapped(hop))
    if hop.event is TraceKind.RULE and hop.basis is Basis.UNKNOWN:
        return (*changes, "verdict unknown")
    return changes


def _is_verdict_map(rule: str) -> bool:
    return VERDICT_MAP.search(rule) is not None and not rule.startswith("-A ")


def _mapped(hop: ChainHop) -> tuple[str, ...]:
    """Return what a verdict map decided: its rule's text does not say it."""
    if hop.verdict is None or hop.verdict is Verdict.CONTINUE:
        return ()
    leads = hop.verdict in (Verdict.JUMP, Verdict.GOTO)
    words = [str(hop.verdict), *([clean_text(hop.target or "")] if leads else []), *_by(hop)]
    return (" ".join(words),)


def _by(hop: ChainHop) -> list[str]:
    """Return `by 8080`, where the element of the verdict map is known."""
    return [f"by {clean_text(hop.element.key)}"] if hop.element is not None else []


def change_words(change: Change) -> str:
    """Return `dport 8445 -> 8443`; marks above 9 in hexadecimal."""
    old, new = (_value(change.field, value) for value in (change.old, change.new))
    return f"{change.field} {old} -> {new}"


def _value(field: str, value: str | int | None) -> str:
    if field == "mark" and isinstance(value, int) and value > 9:
        return hex(value)
    return clean_text(str(value)) if value is not None else "none"


def nat_effects(hop: NatHop) -> tuple[str, ...]:
    """Return the addresses before and after; what no report shows is told to be inferred."""
    pairs = (("src", hop.source), ("dst", hop.destination))
    basis = "" if hop.basis is Basis.REPORTED else f" ({hop.basis})"
    return tuple(f"{field} {pair[0]} -> {pair[1]}{basis}" for field, pair in pairs if pair)


def wire_words(hop: WireHop) -> str:
    """Return `in on eth0` or `out by eth0`."""
    way = "in on" if hop.event == "received" else "out by"
    return f"{way} {clean_text(hop.interface or 'an unknown interface')}"


def route_words(hop: RouteHop) -> str:
    """Return `local (table local)` or `forward, out by eth1 via 192.0.2.1 (table main)`."""
    words = [str(hop.decision)]
    if hop.out_interface and hop.decision != "local":
        words.append(f"out by {clean_text(hop.out_interface)}")
    text = ", ".join(words)
    if hop.via:
        text += f" via {hop.via}"
    return text + (f" (table {hop.table})" if hop.table else "")


def socket_words(hop: SocketHop) -> str:
    """Return who took the packet, or that nobody listens."""
    if hop.state is SocketState.NONE:
        return f"none on port {hop.port}" if hop.port is not None else "none"
    where = endpoint(hop.address or "", hop.port)
    owner = f", {clean_text(hop.process or 'a process')} (pid {hop.pid})" if hop.pid else ""
    return f"{hop.state} {where}{owner}"


def drop_words(hop: DropHop) -> str:
    """Return the kernel's reason and the function that gave it."""
    where = f" in {hop.location}" if hop.location else ""
    return clean_text(f"{hop.reason}{where} ({hop.basis})")


def reset_words(hop: ResetHop) -> str:
    """Return who reset the connection, and why."""
    by = {"kernel": "by the kernel", "rule": "by the rule", "remote": "from outside"}
    return by.get(hop.by, hop.by) + (f": {clean_text(hop.reason)}" if hop.reason else "")
