"""Conntrack events (include/uapi/linux/netfilter/nfnetlink_conntrack.h)."""

from __future__ import annotations

from ipttrace.decode.attributes import Attributes, Malformed, number, read_attributes
from ipttrace.event import FlowChange, FlowEvent
from ipttrace.headers import address_text, protocol_word
from ipttrace.netfilter import PacketFamily
from ipttrace.packet import Flow

IPCTNL_MSG_CT_NEW = 0
IPCTNL_MSG_CT_DELETE = 2

NLM_F_CREATE_EXCL = 0x600
"""NLM_F_CREATE | NLM_F_EXCL: only on the first event of an entry (ctnetlink_conntrack_event)."""

CTA_TUPLE_ORIG = 1
CTA_TUPLE_REPLY = 2
CTA_STATUS = 3
CTA_PROTOINFO = 4
CTA_MARK = 8

CTA_TUPLE_IP = 1
CTA_TUPLE_PROTO = 2

CTA_IP_V4_SRC, CTA_IP_V4_DST, CTA_IP_V6_SRC, CTA_IP_V6_DST = 1, 2, 3, 4

CTA_PROTO_NUM = 1
CTA_PROTO_SRC_PORT = 2
CTA_PROTO_DST_PORT = 3
CTA_PROTO_ICMP_ID = 4
CTA_PROTO_ICMPV6_ID = 7

CTA_PROTOINFO_TCP = 1
CTA_PROTOINFO_TCP_STATE = 1

TCP_STATES = (
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
)
"""enum tcp_conntrack of include/uapi/linux/netfilter/nf_conntrack_tcp.h."""


def decode_conntrack(data: bytes, kind: int, flags: int, time: float) -> FlowEvent:
    """Return what the event whose attributes are `data` says.

    `kind` is IPCTNL_MSG_CT_NEW or IPCTNL_MSG_CT_DELETE, `flags` are the nlmsghdr's.  Raises
    Malformed.
    """
    attributes = read_attributes(data)
    return FlowEvent(
        time,
        _change(kind, flags),
        _flow(attributes, CTA_TUPLE_ORIG),
        _flow(attributes, CTA_TUPLE_REPLY),
        number(attributes, CTA_MARK, 4) or 0,
        number(attributes, CTA_STATUS, 4) or 0,
    )


def decode_tcp_state(data: bytes) -> str | None:
    """Return the TCP state of the entry whose attributes are `data`; None if it has none.

    Raises Malformed.
    """
    info = read_attributes(read_attributes(data).get(CTA_PROTOINFO, b""))
    state = number(read_attributes(info.get(CTA_PROTOINFO_TCP, b"")), CTA_PROTOINFO_TCP_STATE, 1)
    return TCP_STATES[state] if state is not None and state < len(TCP_STATES) else None


def _change(kind: int, flags: int) -> FlowChange:
    if kind == IPCTNL_MSG_CT_DELETE:
        return FlowChange.DESTROY
    if flags & NLM_F_CREATE_EXCL == NLM_F_CREATE_EXCL:
        return FlowChange.NEW
    return FlowChange.UPDATE


def _flow(attributes: Attributes, kind: int) -> Flow:
    if kind not in attributes:
        raise Malformed("a conntrack event without its tuples")
    parts = read_attributes(attributes[kind])
    family, src, dst = _addresses(read_attributes(parts.get(CTA_TUPLE_IP, b"")))
    protocol = read_attributes(parts.get(CTA_TUPLE_PROTO, b""))
    code = number(protocol, CTA_PROTO_NUM, 1)
    if code is None:
        raise Malformed("a conntrack tuple without protocol")
    icmp_id = number(protocol, CTA_PROTO_ICMP_ID, 2)
    return Flow(
        family,
        protocol_word(code),
        address_text(src),
        address_text(dst),
        number(protocol, CTA_PROTO_SRC_PORT, 2),
        number(protocol, CTA_PROTO_DST_PORT, 2),
        number(protocol, CTA_PROTO_ICMPV6_ID, 2) if icmp_id is None else icmp_id,
    )


def _addresses(addresses: Attributes) -> tuple[PacketFamily, bytes, bytes]:
    src, dst = addresses.get(CTA_IP_V4_SRC, b""), addresses.get(CTA_IP_V4_DST, b"")
    if len(src) == len(dst) == 4:
        return PacketFamily.IPV4, src, dst
    src, dst = addresses.get(CTA_IP_V6_SRC, b""), addresses.get(CTA_IP_V6_DST, b"")
    if len(src) == len(dst) == 16:
        return PacketFamily.IPV6, src, dst
    raise Malformed("a conntrack tuple without addresses")
