"""The messages in one datagram of a NETLINK_NETFILTER socket, each handed to its own decoder.

Garbage is data: whatever cannot be decoded becomes an `Undecoded`, nothing is raised.
"""

from __future__ import annotations

from struct import Struct

from ipttrace.decode.attributes import Malformed
from ipttrace.decode.conntrack import IPCTNL_MSG_CT_DELETE, IPCTNL_MSG_CT_NEW, decode_conntrack
from ipttrace.decode.nflog import decode_nflog
from ipttrace.decode.nft_trace import decode_nft_trace
from ipttrace.event import Event, Lost, Undecoded

NLMSG_OVERRUN = 4
NLMSG_MIN_TYPE = 0x10
"""Below it are the control messages of include/uapi/linux/netlink.h."""

NFULNL_MSG_PACKET = 4 << 8
NFULNL_MSG_CONFIG = NFULNL_MSG_PACKET | 1
NFT_MSG_TRACE = 10 << 8 | 17
CT_NEW = 1 << 8 | IPCTNL_MSG_CT_NEW
CT_DELETE = 1 << 8 | IPCTNL_MSG_CT_DELETE

BODY = 20
"""Bytes of nlmsghdr and nfgenmsg before the attributes."""

_HEADER = Struct("=IHH8x")


def decode_datagram(data: bytes, time: float) -> list[Event]:
    """Return the events in what one recv() returned; `time` is when that was."""
    events: list[Event] = []
    at, end = 0, len(data)
    while at < end:
        if at + _HEADER.size > end:
            events.append(Undecoded(time, "a message is cut off in its header", data[at:]))
            break
        length, kind, flags = _HEADER.unpack_from(data, at)
        stop = at + length
        if length < _HEADER.size or stop > end:
            events.append(Undecoded(time, "a message reaches past its datagram", data[at:]))
            break
        message = data if stop - at == end else data[at:stop]
        event = _decode_message(message, kind, flags, time)
        if event is not None:
            events.append(event)
        at = (stop + 3) & ~3
    return events


def _decode_message(message: bytes, kind: int, flags: int, time: float) -> Event | None:
    if kind < NLMSG_MIN_TYPE:
        return Lost(time, None, "netlink overrun") if kind == NLMSG_OVERRUN else None
    if kind == NFULNL_MSG_CONFIG:
        return None
    if len(message) < BODY:
        return Undecoded(time, "a message is cut off in its header", message)
    try:
        return _decode_body(message, kind, flags, time)
    except Malformed as error:
        return Undecoded(time, str(error), message)


def _decode_body(message: bytes, kind: int, flags: int, time: float) -> Event:
    family, body = message[16], message[BODY:]
    if kind == NFULNL_MSG_PACKET:
        return decode_nflog(body, family, time)
    if kind == NFT_MSG_TRACE:
        return decode_nft_trace(body, family, time)
    if kind in (CT_NEW, CT_DELETE):
        return decode_conntrack(body, kind & 0xFF, flags, time)
    raise Malformed(f"a message of unknown type {kind:#06x}")
