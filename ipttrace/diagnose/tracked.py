"""What connection tracking thinks of a packet, as far as its path and the scene tell."""

from __future__ import annotations

import re

from ipttrace.evidence import Connection, Scene
from ipttrace.packet import PacketSummary
from ipttrace.path import ChainHop, PacketPath

ONE_STATE = re.compile(r"(?<!! )--(?:ctstate|state) ([A-Z]+)(?![,\w])|\bct state ([a-z]+)(?![,\w])")
NOTRACK = re.compile(r"-j NOTRACK|-j CT .*--notrack|\bnotrack\b")
SETS_CONNMARK = re.compile(r"-j CONNMARK (?!--restore)|\bct mark set\b")

ECHO_REQUESTS = frozenset({8, 128})


def ct_state(path: PacketPath, scene: Scene) -> str | None:
    """Return the state that `--ctstate` sees: NEW ESTABLISHED INVALID UNTRACKED; None: not known.

    A rule that asks for one state and matched tells it; else it follows from the entries.
    """
    for hop in path.chain_hops:
        text = hop.rule or ""
        if NOTRACK.search(text):
            return "UNTRACKED"
        if found := ONE_STATE.search(text):
            return (found[1] or found[2]).upper()
    if scene.connections is None:
        return None
    entry = entry_before(path, scene)
    return _first(path.packet) if entry is None else _later(path.packet, entry)


def entry_before(path: PacketPath, scene: Scene) -> Connection | None:
    """Return the entry that the packet belonged to before it came; None if there was none."""
    flow = path.packet.flow
    return next((each for each in scene.before if flow in (each.original, each.reply)), None)


def first_of_tcp(packet: PacketSummary, *, loose: bool) -> str | None:
    """Return why a packet cannot begin a connection; None if it can.

    tcp_new and the row NONE of tcp_conntracks in net/netfilter/nf_conntrack_proto_tcp.c.
    """
    flags = frozenset(packet.tcp_flags)
    if "RST" in flags:
        return "a reset"
    if "SYN" in flags:
        return "a SYN-ACK" if "ACK" in flags else None
    if "FIN" in flags:
        return "a FIN"
    if "ACK" not in flags:
        return "a segment without SYN or ACK"
    return None if loose else "a segment without SYN, and nf_conntrack_tcp_loose is 0"


def _first(packet: PacketSummary) -> str | None:
    if packet.protocol == "tcp":
        return "NEW" if packet.tcp_flags == ("SYN",) else None
    if packet.protocol == "udp":
        return "NEW"
    return "NEW" if packet.icmp is not None and packet.icmp.type in ECHO_REQUESTS else None


def _later(packet: PacketSummary, entry: Connection) -> str | None:
    """Return the state of a packet of a known connection; TCP's may be INVALID for its window."""
    if packet.protocol == "tcp":
        return None
    answered = entry.replied or packet.flow != entry.original
    return "ESTABLISHED" if answered else "NEW"


def connmark_at(path: PacketPath, hop: ChainHop, scene: Scene) -> int | None:
    """Return the connection's mark when the packet met `hop`; None where it is not known."""
    if scene.connections is None:
        return None
    for each in path.chain_hops:
        if each is hop:
            break
        if SETS_CONNMARK.search(each.rule or ""):
            return None
    entry = entry_before(path, scene)
    return entry.mark if entry else 0
