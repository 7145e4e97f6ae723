"""Conntrack entries over netlink: how many there are, and removing the one a probe left.

Message forms: include/uapi/linux/netfilter/nfnetlink_conntrack.h.  Asking does not switch
connection tracking on.
"""

from __future__ import annotations

import socket

from ipttrace.system.flow_selectors import ECHO, packed_address, protocol_number
from ipttrace.system.netlink_attributes import attribute, nested, number8, number16, parse
from ipttrace.system.nfnetlink import NFNL_SUBSYS_CTNETLINK, Message, NfnetlinkSocket, explaining

TYPE_CHECKING = False  # typing's own costs 5 ms to import
if TYPE_CHECKING:
    from ipttrace.packet import Flow

IPCTNL_MSG_CT_GET = 1
IPCTNL_MSG_CT_DELETE = 2
IPCTNL_MSG_CT_GET_STATS = 5
CTA_TUPLE_ORIG = 1
CTA_TUPLE_IP = 1
CTA_TUPLE_PROTO = 2
CTA_IP_ADDRESSES = {"ipv4": (1, 2), "ipv6": (3, 4)}
"""CTA_IP_V4_SRC, CTA_IP_V4_DST, CTA_IP_V6_SRC, CTA_IP_V6_DST."""
CTA_PROTO_NUM = 1
CTA_PROTO_SRC_PORT = 2
CTA_PROTO_DST_PORT = 3
CTA_PROTO_ICMP = {"icmp": (4, 5, 6), "icmp6": (7, 8, 9)}
"""CTA_PROTO_ICMP_ID, _TYPE, _CODE and the same of ICMPv6."""
CTA_STATS_GLOBAL_ENTRIES = 1


def entry_count() -> int:
    """Return the number of conntrack entries in the calling thread's namespace."""
    question = Message(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET_STATS, socket.AF_UNSPEC, b"")
    with explaining("count conntrack entries"):
        opened = NfnetlinkSocket()
        try:
            answer = opened.get(question)
        finally:
            opened.close()
    return int.from_bytes(parse(answer)[CTA_STATS_GLOBAL_ENTRIES], "big")


def delete_entry(original: Flow) -> bool:
    """Remove the entry that `original`'s first packet made; whether there was one.

    `original` is the flow before any NAT, in the default zone.  A flow without the ports or the
    echo id that make an entry's key names no entry: nothing is removed.
    """
    message = tuple_message(IPCTNL_MSG_CT_DELETE, original)
    if message is None:
        return False
    with explaining("delete the conntrack entry of the probe"):
        return _delete(message)


def tuple_message(number: int, flow: Flow) -> Message | None:
    """Return the message about the entry of a flow in the default zone, in either direction.

    None for a flow without the ports or the echo id that make an entry's key.
    """
    protocol = _protocol(flow)
    if protocol is None:
        return None
    tuple_ = nested(CTA_TUPLE_ORIG, nested(CTA_TUPLE_IP, *_addresses(flow)), protocol)
    family = socket.AF_INET if flow.family == "ipv4" else socket.AF_INET6
    return Message(NFNL_SUBSYS_CTNETLINK, number, family, tuple_)


def _delete(message: Message) -> bool:
    opened = NfnetlinkSocket()
    try:
        opened.request(message)
    except FileNotFoundError:
        return False
    finally:
        opened.close()
    return True


def _addresses(flow: Flow) -> tuple[bytes, bytes]:
    source, destination = CTA_IP_ADDRESSES[flow.family]
    return (
        attribute(source, packed_address(flow.src)),
        attribute(destination, packed_address(flow.dst)),
    )


def _protocol(flow: Flow) -> bytes | None:
    number = number8(CTA_PROTO_NUM, protocol_number(flow.protocol))
    if flow.protocol in ECHO:
        if flow.icmp_id is None:
            return None
        kinds = CTA_PROTO_ICMP[flow.protocol]
        echo = number16(kinds[0], flow.icmp_id) + number8(kinds[1], ECHO[flow.protocol][0])
        return nested(CTA_TUPLE_PROTO, number, echo, number8(kinds[2], 0))
    if flow.sport is None or flow.dport is None:
        return None
    ports = number16(CTA_PROTO_SRC_PORT, flow.sport) + number16(CTA_PROTO_DST_PORT, flow.dport)
    return nested(CTA_TUPLE_PROTO, number, ports)
