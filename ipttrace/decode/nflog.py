"""NFLOG messages: ip_tables' trace reports, and others (uapi/linux/netfilter/nfnetlink_log.h).

ip_tables reports through nf_log with the prefix `TRACE: table:chain:kind:number `
(trace_packet in net/ipv4/netfilter/ip_tables.c).  A user's own `-j NFLOG` can write the same
prefix: whether a chain can have said it is for `ruleset.Ruleset.locate` to judge.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ipttrace.decode.attributes import Attributes, Malformed, number, read_attributes, text
from ipttrace.event import ForeignLog, TraceEvent, TraceKind
from ipttrace.netfilter import INET_HOOKS, NFPROTO, Backend, Hook, PacketFamily, TableFamily
from ipttrace.packet import PacketSummary, parse_packet

NFULA_PACKET_HDR = 1
NFULA_MARK = 2
NFULA_IFINDEX_INDEV = 4
NFULA_IFINDEX_OUTDEV = 5
NFULA_IFINDEX_PHYSINDEV = 6
NFULA_IFINDEX_PHYSOUTDEV = 7
NFULA_PAYLOAD = 9
NFULA_PREFIX = 10
NFULA_SEQ = 12

ETHERTYPES = {0x0800: PacketFamily.IPV4, 0x86DD: PacketFamily.IPV6}
FAMILIES = {TableFamily.IP: PacketFamily.IPV4, TableFamily.IP6: PacketFamily.IPV6}

TRACE_PREFIX = re.compile(r"TRACE: ([^:]+):(.+):(rule|return|policy):([0-9]+) \Z", re.DOTALL)
"""A chain's name may hold colons and spaces; a table's is one of five words."""

TracePoint = tuple[str, str, TraceKind, int]


def decode_nflog(data: bytes, family: int, time: float) -> TraceEvent | ForeignLog:
    """Return what the NFULNL_MSG_PACKET whose attributes are `data` says.

    `family` is the nfgenmsg's.  Raises Malformed.
    """
    attributes = read_attributes(data)
    table_family = NFPROTO.get(family)
    packet = _packet(attributes, table_family)
    prefix = attributes.get(NFULA_PREFIX, b"")
    point = trace_point(prefix)
    sequence = number(attributes, NFULA_SEQ, 4)
    if point is None or table_family not in FAMILIES:
        return ForeignLog(time, text(prefix), packet, sequence)
    table, chain, kind, rule_number = point
    return TraceEvent(
        time,
        Backend.LEGACY,
        table_family,
        table,
        chain,
        kind,
        rule_number,
        hook=_hook(attributes),
        packet=packet,
        # nfnetlink_log.c leaves the attribute out when the mark is 0.
        mark=number(attributes, NFULA_MARK, 4) or 0,
        in_index=number(attributes, NFULA_IFINDEX_INDEV, 4),
        out_index=number(attributes, NFULA_IFINDEX_OUTDEV, 4),
        sequence=sequence,
        physical_in=number(attributes, NFULA_IFINDEX_PHYSINDEV, 4),
        physical_out=number(attributes, NFULA_IFINDEX_PHYSOUTDEV, 4),
    )


@lru_cache(maxsize=4096)
def trace_point(prefix: bytes) -> TracePoint | None:
    """Return table, chain, kind and number of a trace prefix, None if it is none."""
    match = TRACE_PREFIX.match(text(prefix))
    if match is None or len(match[4]) > 10:
        return None
    return match[1], match[2], TraceKind(match[3]), int(match[4])


def _hook(attributes: Attributes) -> Hook | None:
    header = attributes.get(NFULA_PACKET_HDR)
    if header is None:
        return None
    if len(header) < 4:
        raise Malformed("the packet header attribute is too short")
    return INET_HOOKS[header[2]] if header[2] < len(INET_HOOKS) else None


def _packet(attributes: Attributes, table_family: TableFamily | None) -> PacketSummary | None:
    family = FAMILIES.get(table_family) if table_family else None
    if family is None:
        ethertype = int.from_bytes(attributes.get(NFULA_PACKET_HDR, b"")[:2])
        family = ETHERTYPES.get(ethertype)
    payload = attributes.get(NFULA_PAYLOAD)
    return parse_packet(payload, family) if family and payload else None
