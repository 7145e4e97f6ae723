"""A small blocking request socket for NETLINK_ROUTE: links, routes, ids of namespaces.

Where one question is all there is to ask: pyroute2 takes 125 ms to import.  Message forms:
include/uapi/linux/rtnetlink.h, if_link.h, net_namespace.h; integers are in host order.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

from ipttrace.system.netlink_attributes import attribute, parse
from ipttrace.system.netlink_requests import NLM_F_DUMP, RequestSocket

RTM_GETLINK, RTM_GETROUTE, RTM_GETNSID = 18, 26, 90
RTN_LOCAL = 2
RTA_DST = 1
IFLA_IFNAME, IFLA_MASTER, IFLA_LINKINFO, IFLA_EXT_MASK, IFLA_LINK_NETNSID = 3, 10, 18, 29, 37
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
RTEXT_FILTER_SKIP_STATS = 8
NETNSA_NSID, NETNSA_FD = 1, 3

_IFINFOMSG = struct.Struct("=BxHiII")
_RTMSG = struct.Struct("=BBBBBBBBI")
_INT = struct.Struct("=i")


@dataclass(frozen=True, slots=True)
class Link:
    """An interface, as RTM_NEWLINK describes it."""

    index: int
    name: str
    kind: str | None
    """`veth`, `bridge` ...; None for hardware and loopback."""
    master: int | None
    """The bridge, bond or VRF that it is a port of."""
    peer_namespace: int | None
    """This namespace's id for the one that the other end is in; None if it is in this one."""
    data: dict[int, bytes]
    """What is particular to the kind (IFLA_INFO_DATA)."""


class RouteSocket(RequestSocket):
    """Asks in the namespace where it was made."""

    def __init__(self) -> None:
        super().__init__(socket.NETLINK_ROUTE)

    def is_local(self, address: str) -> bool:
        """Tell whether packets to `address` are delivered in this namespace."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        packed = socket.inet_pton(family, address)
        header = _RTMSG.pack(family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0)
        try:
            answer = self._ask(RTM_GETROUTE, header + attribute(RTA_DST, packed))
        except OSError:
            return False
        return any(_RTMSG.unpack_from(body)[7] == RTN_LOCAL for body in answer)

    def link(self, name: str) -> Link | None:
        """Return the interface of that name."""
        wanted = attribute(IFLA_IFNAME, os.fsencode(name) + b"\0")
        try:
            answer = self._ask(RTM_GETLINK, _IFINFOMSG.pack(0, 0, 0, 0, 0) + wanted)
        except OSError:
            return None
        return _link(answer[0]) if answer else None

    def links(self) -> list[Link]:
        """Return all interfaces."""
        mask = attribute(IFLA_EXT_MASK, _INT.pack(RTEXT_FILTER_SKIP_STATS))
        request = _IFINFOMSG.pack(0, 0, 0, 0, 0) + mask
        return [_link(body) for body in self._ask(RTM_GETLINK, request, NLM_F_DUMP)]

    def ports(self, *, of: int) -> list[Link]:
        """Return the interfaces that are ports of the one with index `of`."""
        return [link for link in self.links() if link.master == of]

    def namespace_id(self, descriptor: int) -> int | None:
        """Return this namespace's id for the one of an open file; None where it has none."""
        request = bytes(4) + attribute(NETNSA_FD, _INT.pack(descriptor))
        try:
            answer = [parse(body[4:]) for body in self._ask(RTM_GETNSID, request)]
        except OSError:
            return None
        (number,) = _INT.unpack(answer[0][NETNSA_NSID]) if answer else (-1,)
        return number if number >= 0 else None


def bridge_ports() -> dict[int, int]:
    """Return, in the calling thread's namespace, the index of the bridge of each of its ports."""
    with RouteSocket() as asked:
        links = asked.links()
    bridges = {link.index for link in links if link.kind == "bridge"}
    return {link.index: link.master for link in links if link.master in bridges}


def _link(body: bytes) -> Link:
    attributes = parse(body[_IFINFOMSG.size :])
    info = parse(attributes.get(IFLA_LINKINFO, b""))
    return Link(
        index=_IFINFOMSG.unpack_from(body)[2],
        name=_text(attributes.get(IFLA_IFNAME, b"")),
        kind=_text(info[IFLA_INFO_KIND]) if IFLA_INFO_KIND in info else None,
        master=_number(attributes.get(IFLA_MASTER)),
        peer_namespace=_number(attributes.get(IFLA_LINK_NETNSID)),
        data=parse(info.get(IFLA_INFO_DATA, b"")),
    )


def _number(value: bytes | None) -> int | None:
    return None if value is None else int(_INT.unpack(value)[0])


def _text(value: bytes) -> str:
    return os.fsdecode(value.rstrip(b"\0"))
