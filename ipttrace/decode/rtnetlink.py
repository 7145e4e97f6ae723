"""Answers of NETLINK_ROUTE about routes, neighbours and links, as values.

Message forms: include/uapi/linux/rtnetlink.h, neighbour.h, if_link.h; integers are in
host order, addresses and ports in network order.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from struct import Struct

from ipttrace.decode.attributes import Attributes, Malformed, read_attributes

ROUTE_KINDS = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    4: "anycast",
    5: "multicast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
    9: "throw",
}
"""RTN_*; the actions of routing rules that end a lookup (FR_ACT_*) have the same numbers."""

MAIN, LOCAL = 254, 255
TABLES = {253: "default", MAIN: "main", LOCAL: "local"}
"""RT_TABLE_*."""
LOCAL_KINDS = frozenset({2, 3, 4})

NEIGHBOUR_STATES = {
    0x01: "incomplete",
    0x02: "reachable",
    0x04: "stale",
    0x08: "delay",
    0x10: "probe",
    0x20: "failed",
    0x40: "noarp",
    0x80: "permanent",
}
"""NUD_*."""

RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC, RTA_METRICS, RTA_TABLE, RTA_VIA = 1, 4, 5, 7, 8, 15, 18
RTAX_MTU = 2
NDA_DST = 1
IFLA_MTU = 4
AF_INET = 2
ANY = {True: "0.0.0.0/0", False: "::/0"}
"""The network of all addresses, IPv4 or not."""

_RTMSG = Struct("=BBBBBBBBI")
_NDMSG = Struct("=BxxxiHBB")
_IFINFOMSG = Struct("=BxHiII")
_NUMBER = Struct("=I")


@dataclass(frozen=True, slots=True)
class RouteMessage:
    """One RTM_NEWROUTE: the answer to a lookup, or an entry of a table."""

    kind: str
    prefix: str
    """What it is for: `192.0.2.0/24`; the one address that was asked for, in a lookup's answer."""
    table: str | None
    interface: int | None = None
    gateway: str | None = None
    source: str | None = None
    mtu: int | None = None
    """The limit that the route or what was learned of the path sets, beside the interface's."""

    def covers(self, address: str) -> bool:
        """Tell whether an address is one that the entry is for."""
        return ip_address(address) in ip_network(self.prefix)

    @property
    def bits(self) -> int:
        """How particular it is."""
        return ip_network(self.prefix).prefixlen


@dataclass(frozen=True, slots=True)
class NeighbourMessage:
    """One RTM_NEWNEIGH."""

    state: str
    address: str | None


def decode_route(body: bytes) -> RouteMessage:
    """Return the route in a message without its netlink header; raises Malformed."""
    family, bits, _, _, table, _, _, kind, _ = header(_RTMSG, body)
    found = read_attributes(body, _RTMSG.size)
    any_of = ip_network(ANY[family == AF_INET])
    destination = address(found.get(RTA_DST)) or str(any_of.network_address)
    metrics = read_attributes(found.get(RTA_METRICS, b""))
    return RouteMessage(
        kind=ROUTE_KINDS.get(kind, str(kind)),
        prefix=f"{destination}/{bits}",
        table=_table(number(found, RTA_TABLE) or table, kind),
        interface=number(found, RTA_OIF),
        gateway=address(found.get(RTA_GATEWAY)) or address(found.get(RTA_VIA, b"")[2:]),
        source=address(found.get(RTA_PREFSRC)),
        mtu=number(metrics, RTAX_MTU),
    )


def _table(number: int, kind: int) -> str | None:
    """Return a table's name; None if the kernel did not say.

    Without policy rules IPv4 looks both tables up as one, and calls it main (fib_trie_unmerge in
    net/ipv4/fib_trie.c); entries of these types stand in the local one.
    """
    if number == MAIN and kind in LOCAL_KINDS:
        number = LOCAL
    return TABLES.get(number, str(number)) if number else None


def decode_neighbour(body: bytes) -> NeighbourMessage:
    """Return the neighbour in a message without its netlink header; raises Malformed."""
    state = header(_NDMSG, body)[2]
    found = read_attributes(body, _NDMSG.size)
    word = NEIGHBOUR_STATES.get(state, "none" if state == 0 else f"{state:#x}")
    return NeighbourMessage(word, address(found.get(NDA_DST)))


def decode_mtu(body: bytes) -> int | None:
    """Return the MTU in an RTM_NEWLINK without its netlink header; raises Malformed."""
    header(_IFINFOMSG, body)
    return number(read_attributes(body, _IFINFOMSG.size), IFLA_MTU)


def header(form: Struct, body: bytes) -> tuple[int, ...]:
    """Return a message's fixed part; raises Malformed."""
    if len(body) < form.size:
        raise Malformed(f"a message of {len(body)} bytes is cut off in its header")
    return form.unpack_from(body)


def number(found: Attributes, kind: int) -> int | None:
    """Return an attribute of 32 bits; raises Malformed."""
    value = found.get(kind)
    if value is None:
        return None
    if len(value) != _NUMBER.size:
        raise Malformed(f"attribute {kind} is {len(value)} bytes long instead of 4")
    return int(_NUMBER.unpack(value)[0])


def address(value: bytes | None) -> str | None:
    """Return an address of either family; raises Malformed."""
    if not value:
        return None
    if len(value) not in (4, 16):
        raise Malformed(f"an address of {len(value)} bytes")
    return str(ip_address(value))
