"""NFT_MSG_TRACE messages (include/uapi/linux/netfilter/nf_tables.h): nf_tables' trace reports.

Written by nft_trace_notify in net/netfilter/nf_tables_trace.c.  Attributes that newer kernels add
(conntrack id, direction, status and state since 6.16) are passed over.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

from ipttrace.decode.attributes import Attributes, Malformed, number, read_attributes, text
from ipttrace.event import TraceEvent, TraceKind
from ipttrace.netfilter import NFPROTO, Backend, PacketFamily, TableFamily, Verdict
from ipttrace.packet import PacketSummary, parse_headers

NFTA_TRACE_TABLE = 1
NFTA_TRACE_CHAIN = 2
NFTA_TRACE_RULE_HANDLE = 3
NFTA_TRACE_TYPE = 4
NFTA_TRACE_VERDICT = 5
NFTA_TRACE_ID = 6
NFTA_TRACE_LL_HEADER = 7
NFTA_TRACE_NETWORK_HEADER = 8
NFTA_TRACE_TRANSPORT_HEADER = 9
NFTA_TRACE_IIF = 10
NFTA_TRACE_OIF = 12
NFTA_TRACE_MARK = 14
NFTA_TRACE_NFPROTO = 15
NFTA_TRACE_POLICY = 16

NFTA_VERDICT_CODE = 1
NFTA_VERDICT_CHAIN = 2

KINDS = {1: TraceKind.POLICY, 2: TraceKind.RETURN, 3: TraceKind.RULE}
"""enum nft_trace_types."""

NFT_VERDICTS = {
    -1: Verdict.CONTINUE,
    -2: Verdict.CONTINUE,
    -3: Verdict.JUMP,
    -4: Verdict.GOTO,
    -5: Verdict.RETURN,
}
"""enum nft_verdicts; NFT_BREAK (-2) ends the rule and goes on with the next one."""

NF_VERDICTS = {0: Verdict.DROP, 1: Verdict.ACCEPT, 2: Verdict.STOLEN, 3: Verdict.QUEUE}
"""By the low byte, NF_VERDICT_MASK: the others hold an errno or a queue's number."""

FAMILY_BY_NFPROTO = {2: PacketFamily.IPV4, 10: PacketFamily.IPV6}
FAMILY_BY_ETHERTYPE = {0x0800: PacketFamily.IPV4, 0x86DD: PacketFamily.IPV6}
FAMILY_BY_VERSION = {4: PacketFamily.IPV4, 6: PacketFamily.IPV6}
VLAN_ETHERTYPES = frozenset({0x8100, 0x88A8})

SHORTEST_WITH_HEADERS = 150
"""Bytes; reports without headers are shorter unless names are very long."""

Ruling = tuple[Verdict | None, str | None]
Before = tuple[
    Backend,
    TableFamily,
    str,
    str,
    TraceKind,
    None,
    int | None,
    Verdict | None,
    str | None,
    None,
]
After = tuple[PacketSummary | None, int | None, int | None, int | None, bool]

_ID_ATTRIBUTE = Struct("=HH").pack(8, NFTA_TRACE_ID)
"""Stands third on every kernel known, after NFPROTO and TYPE (nft_trace_notify)."""


def decode_nft_trace(data: bytes, family: int, time: float) -> TraceEvent:
    """Return what the NFT_MSG_TRACE whose attributes are `data` says.

    `family` is the nfgenmsg's: the table's.  Raises Malformed.
    """
    if len(data) < SHORTEST_WITH_HEADERS and data[16:20] == _ID_ATTRIBUTE:
        before, after = _static(family, data[:16], data[24:])
        return TraceEvent(time, *before, int.from_bytes(data[20:24]), *after)
    attributes = read_attributes(data)
    before, after = _fields(attributes, family)
    return TraceEvent(time, *before, number(attributes, NFTA_TRACE_ID, 4), *after)


@lru_cache(maxsize=4096)
def _static(family: int, head: bytes, tail: bytes) -> tuple[Before, After]:
    """Return the fields of a short report: all that one place sends are equal but for the id."""
    return _fields(read_attributes(head + tail), family)


def _fields(attributes: Attributes, family: int) -> tuple[Before, After]:
    """Return the fields of a TraceEvent before and after its trace id."""
    kind = KINDS.get(number(attributes, NFTA_TRACE_TYPE, 4) or 0)
    table_family = NFPROTO.get(family)
    table, chain = attributes.get(NFTA_TRACE_TABLE), attributes.get(NFTA_TRACE_CHAIN)
    if kind is None or table_family is None or table is None or chain is None:
        raise Malformed("a trace report without type, family, table or chain")
    policy = kind is TraceKind.POLICY
    handle = None if policy else number(attributes, NFTA_TRACE_RULE_HANDLE, 8)
    if kind is TraceKind.RETURN and handle is not None:
        # A rule that returns: Linux 6.1 names its type by the verdict (nft_trace_verdict).
        kind = TraceKind.RULE
    verdict, target_chain = _ruling(attributes, policy=policy)
    mark = number(attributes, NFTA_TRACE_MARK, 4)
    before = (
        Backend.NFT,
        table_family,
        text(table),
        text(chain),
        kind,
        None,
        handle,
        verdict,
        target_chain,
        None,
    )
    after = (
        _packet(attributes, table_family),
        # Left out when it is 0; a stolen packet's cannot be read any more.
        0 if mark is None and verdict is not Verdict.STOLEN else mark,
        number(attributes, NFTA_TRACE_IIF, 4),
        number(attributes, NFTA_TRACE_OIF, 4),
        handle is None and not policy,
    )
    return before, after


def _ruling(attributes: Attributes, *, policy: bool) -> Ruling:
    if policy:
        code = number(attributes, NFTA_TRACE_POLICY, 4)
        return (None if code is None else NF_VERDICTS.get(code & 0xFF)), None
    verdict = attributes.get(NFTA_TRACE_VERDICT)
    return (None, None) if verdict is None else _verdict(verdict)


@lru_cache(maxsize=1024)
def _verdict(data: bytes) -> Ruling:
    nested = read_attributes(data)
    code = number(nested, NFTA_VERDICT_CODE, 4)
    if code is None:
        return None, None
    signed = code - (1 << 32) if code >> 31 else code
    verdict = NFT_VERDICTS.get(signed) or NF_VERDICTS.get(code & 0xFF)
    target = nested.get(NFTA_VERDICT_CHAIN)
    return verdict, None if target is None else text(target)


def _packet(attributes: Attributes, table_family: TableFamily) -> PacketSummary | None:
    network = attributes.get(NFTA_TRACE_NETWORK_HEADER, b"")
    transport = attributes.get(NFTA_TRACE_TRANSPORT_HEADER, b"")
    if not network and not transport:
        return None
    family = _packet_family(attributes, table_family, network or transport)
    return parse_headers(network, transport, family) if family else None


def _packet_family(
    attributes: Attributes, table_family: TableFamily, network: bytes
) -> PacketFamily | None:
    """Return the network layer's family: bridge and netdev hooks see packets of all kinds."""
    family = FAMILY_BY_NFPROTO.get(number(attributes, NFTA_TRACE_NFPROTO, 4) or 0)
    if family is not None or table_family is TableFamily.ARP:
        return family
    frame = attributes.get(NFTA_TRACE_LL_HEADER, b"")
    if len(frame) < 14:
        return FAMILY_BY_VERSION.get(network[0] >> 4)
    ethertype = int.from_bytes(frame[12:14])
    if ethertype in VLAN_ETHERTYPES:
        ethertype = int.from_bytes(frame[16:18])
    return FAMILY_BY_ETHERTYPE.get(ethertype)
