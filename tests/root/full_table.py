"""Fills the connection table of a private namespace: nf_conntrack_max entries that may not go."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from ipttrace.system.conntrack import CTA_TUPLE_IP, CTA_TUPLE_ORIG, CTA_TUPLE_PROTO
from ipttrace.system.netlink_attributes import attribute, nested, number8, number16, number32
from ipttrace.system.nfnetlink import (
    NETLINK_NETFILTER,
    NFNL_SUBSYS_CTNETLINK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
)
from tests.root.kernel import in_namespace

IPCTNL_MSG_CT_NEW = 0
CTA_TUPLE_REPLY, CTA_STATUS, CTA_TIMEOUT = 2, 3, 7
ASSURED = 2 | 4 | 8
"""IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED: early_drop leaves such entries alone."""

SOURCE, DESTINATION = "192.0.2.1", "192.0.2.2"
TOGETHER = 1000
"""Messages in one system call; more do not fit in a socket's send buffer."""
MOST = Path("/proc/sys/net/netfilter/nf_conntrack_max")
COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")


def fill(netns: str) -> None:
    """Make entries in `netns`, whose conntrack is in use, until it holds as many as it may."""
    in_namespace(netns).run(_fill)


def _fill() -> None:
    most = int(MOST.read_text())
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as opened:
        parts: list[bytes] = []
        for message in _messages(most - int(COUNT.read_text())):
            parts.append(message)
            if len(parts) == TOGETHER:
                opened.send(b"".join(parts))
                parts.clear()
        opened.send(b"".join(parts) or b"")
    assert int(COUNT.read_text()) == most


def _messages(number: int) -> Iterator[bytes]:
    """Yield the messages; all are alike but for the ports."""
    mark = (0xABCD, 0xDCBA)
    tail = number32(CTA_STATUS, ASSURED) + number32(CTA_TIMEOUT, 600)
    body = _tuple(CTA_TUPLE_ORIG, SOURCE, DESTINATION, *mark)
    body += _tuple(CTA_TUPLE_REPLY, DESTINATION, SOURCE, *reversed(mark))
    flags = NLM_F_CREATE | NLM_F_EXCL
    message = Message(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW, socket.AF_INET, body + tail, flags)
    pattern = bytearray(message.encode(1))
    places = [_places(bytes(pattern), value) for value in mark]
    for index in range(number):
        for at, value in zip(places, divmod(index, 60_000), strict=True):
            for place in at:
                struct.pack_into(">H", pattern, place, value + 1)
        yield bytes(pattern)


def _places(data: bytes, value: int) -> list[int]:
    word = struct.pack(">H", value)
    first = data.index(word)
    return [first, data.index(word, first + 2)]


def _tuple(kind: int, src: str, dst: str, sport: int, dport: int) -> bytes:
    addresses = (attribute(n, ip_address(each).packed) for n, each in ((1, src), (2, dst)))
    ports = number8(1, socket.IPPROTO_UDP) + number16(2, sport) + number16(3, dport)
    return nested(kind, nested(CTA_TUPLE_IP, *addresses), nested(CTA_TUPLE_PROTO, ports))
