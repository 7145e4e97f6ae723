"""Answers of NETLINK_ROUTE about routing rules (`ip rule`), as values.

Message form and meaning: include/uapi/linux/fib_rules.h and fib_rule_match in
net/core/fib_rules.c; integers are in host order, addresses in network order.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from struct import Struct

from ipttrace.decode.attributes import Attributes, read_attributes
from ipttrace.decode.rtnetlink import ROUTE_KINDS, TABLES, address, header, number
from ipttrace.packet import PacketSummary

FRA_DST, FRA_SRC, FRA_IIFNAME, FRA_PRIORITY = 1, 2, 3, 6
FRA_FWMARK, FRA_TUN_ID, FRA_TABLE, FRA_FWMASK, FRA_OIFNAME = 10, 12, 15, 16, 17
FRA_L3MDEV, FRA_UID_RANGE, FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE = 19, 20, 22, 23, 24
UNJUDGED = frozenset({FRA_TUN_ID, FRA_OIFNAME, FRA_L3MDEV, FRA_UID_RANGE})
"""What a rule may ask for that a packet's headers do not tell."""
TO_TABLE, REFUSE = 1, (6, 7, 8)
"""FR_ACT_*."""
INVERT = 2
PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmp6": 58}

_RULE = Struct("=BBBBBBBBI")
_RANGE = Struct("=HH")


@dataclass(frozen=True, slots=True)
class RuleMessage:
    """One RTM_NEWRULE: of policy routing."""

    action: str | None
    """`blackhole unreachable prohibit` end a lookup; None: any other."""
    priority: int
    table: str | None = None
    """Where it leads to, if it does."""
    mark: int = 0
    mask: int = 0
    src: str | None = None
    dst: str | None = None
    in_interface: str | None = None
    """`lo` is what is made here."""
    protocol: int | None = None
    sports: tuple[int, int] | None = None
    dports: tuple[int, int] | None = None
    inverted: bool = False
    judged: bool = True
    """Whether that is all that it asks for."""

    def fits(self, packet: PacketSummary, mark: int, in_interface: str | None) -> bool:
        """Tell whether a packet is surely one that the rule is for."""
        wants = (
            (mark & self.mask) == self.mark,
            _within(self.src, packet.src),
            _within(self.dst, packet.dst),
            self.in_interface in (None, in_interface or "lo"),
            self.protocol in (None, PROTOCOLS.get(packet.protocol)),
            _between(self.sports, packet.sport),
            _between(self.dports, packet.dport),
        )
        return self.judged and all(wants) is not self.inverted


def _within(prefix: str | None, where: str) -> bool:
    return prefix is None or ip_address(where) in ip_network(prefix, strict=False)


def _between(ports: tuple[int, int] | None, port: int | None) -> bool:
    return ports is None or (port is not None and ports[0] <= port <= ports[1])


def decode_rule(body: bytes) -> RuleMessage:
    """Return the routing rule in a message without its netlink header; raises Malformed."""
    _, dst_bits, src_bits, tos, table, _, _, action, flags = header(_RULE, body)
    found = read_attributes(body, _RULE.size)
    mark = number(found, FRA_FWMARK) or 0
    table = number(found, FRA_TABLE) or table
    return RuleMessage(
        action=ROUTE_KINDS.get(action) if action in REFUSE else None,
        priority=number(found, FRA_PRIORITY) or 0,
        table=TABLES.get(table, str(table)) if action == TO_TABLE else None,
        mark=mark,
        mask=number(found, FRA_FWMASK) or 0,
        src=_prefix(found, FRA_SRC, src_bits),
        dst=_prefix(found, FRA_DST, dst_bits),
        in_interface=found[FRA_IIFNAME].rstrip(b"\0").decode() if FRA_IIFNAME in found else None,
        protocol=found[FRA_IP_PROTO][0] if FRA_IP_PROTO in found else None,
        sports=_range(found, FRA_SPORT_RANGE),
        dports=_range(found, FRA_DPORT_RANGE),
        inverted=bool(flags & INVERT),
        judged=not tos and not UNJUDGED & set(found),
    )


def _prefix(found: Attributes, kind: int, bits: int) -> str | None:
    value = address(found.get(kind))
    return None if value is None else f"{value}/{bits}"


def _range(found: Attributes, kind: int) -> tuple[int, int] | None:
    value = found.get(kind)
    if value is None or len(value) != _RANGE.size:
        return None
    low, high = _RANGE.unpack(value)
    return low, high
