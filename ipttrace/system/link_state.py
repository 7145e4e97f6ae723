"""Whether interfaces of a namespace came, went, were renamed, or became ports of something.

The kernel tells of each change (rtnetlink, RTNLGRP_LINK), and of many that are none to us.
"""

from __future__ import annotations

import errno
import socket
import struct

from ipttrace.system.namespaces import Namespace
from ipttrace.system.netlink_attributes import parse
from ipttrace.system.route_netlink import IFLA_IFNAME, IFLA_MASTER

RTMGRP_LINK = 1
RTM_NEWLINK, RTM_DELLINK = 16, 17
RECEIVE = 1 << 16

_HEADER = struct.Struct("=IHHII")
_IFINFOMSG = struct.Struct("=BxHiII")


class LinkState:
    """The interfaces of one namespace, as far as the kernel has told of them since."""

    def __init__(self, namespace: Namespace) -> None:
        """Listen from now on."""
        self._socket = namespace.run(_open_socket)
        self._changes = 0
        self._known: dict[int, tuple[bytes, bytes]] = {}
        """Name and master by index; what stays as it is may be told again."""

    def now(self) -> int:
        """Return a number that is another than the last one if anything was changed meanwhile."""
        while True:
            try:
                self._take(self._socket.recv(RECEIVE, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return self._changes
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._changes += 1

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()

    def _take(self, data: bytes) -> None:
        while len(data) >= _HEADER.size:
            length, kind, *_ = _HEADER.unpack_from(data)
            if length < _HEADER.size:
                return
            if kind in (RTM_NEWLINK, RTM_DELLINK):
                self._note(kind, data[_HEADER.size : length])
            data = data[-(-length // 4) * 4 :]

    def _note(self, kind: int, body: bytes) -> None:
        family, _, index, *_ = _IFINFOMSG.unpack_from(body)
        if family == socket.AF_BRIDGE:  # of a port; the port's own message says the same
            return
        if kind == RTM_DELLINK:
            self._known.pop(index, None)
            self._changes += 1
            return
        attributes = parse(body[_IFINFOMSG.size :])
        told = attributes.get(IFLA_IFNAME, b""), attributes.get(IFLA_MASTER, b"")
        if self._known.get(index) != told:
            self._known[index] = told
            self._changes += 1


def _open_socket() -> socket.socket:
    opened = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )
    try:
        opened.bind((0, RTMGRP_LINK))
    except OSError:
        opened.close()
        raise
    return opened
