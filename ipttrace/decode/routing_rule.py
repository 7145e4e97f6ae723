"""Answers of NETLINK_ROUTE about routing rules (`ip rule`), as values.

Message form and meaning: include/uapi/linux/fib_rules.h and fib_rule_match in
net/core/fib_rules.c; integers are in host order, addresses in network order.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from struct import Struct

from ipttrace.decode.attributes import Attributes, read_attributes
from ipttrace.decode.rtnetlink import ROUTE_KINDS, TABLES, address, header, number
from ipttrace.packet import PacketSummary

FRA_DST, FRA_SRC, FRA_IIFNAME, FRA_PRIORITY = 1, 2, 3, 6
FRA_FWMARK, FRA_TUN_ID, FRA_TABLE, FRA_FWMASK, FRA_OIFNAME = 10, 12, 15, 16, 17
FRA_L3MDEV, FRA_UID_RANGE, FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE = 19, 20, 22, 23, 24
FRA_DSCP, FRA_FLOWLABEL, FRA_FLOWLABEL_MASK = 25, 26, 27
FRA_SPORT_MASK, FRA_DPORT_MASK, FRA_DSCP_MASK = 28, 29, 30
UNJUDGED = {
    FRA_TUN_ID: "tun_id",
    FRA_L3MDEV: "l3mdev",
    FRA_FLOWLABEL: "flowlabel",
    FRA_FLOWLABEL_MASK: "flowlabel",
}
"""What a rule may ask for that is not known of a packet, in the words of ip-rule(8)."""
UNTOLD = frozenset({"dsfield", "uidrange"})
"""What is sometimes not known of a packet."""
DSCP, LEGACY_TOS = 0xFC, 0x1C
"""The bits of the field that a rule sees: those of its own, and those of IPv4's old TOS
(fib4_rule_match_dscp and fib_dscp_masked_match; IPv6 compares all of the first)."""
TO_TABLE, REFUSE = 1, (6, 7, 8)
"""FR_ACT_*."""
INVERT = 2
PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmp6": 58}

_RULE = Struct("=BBBBBBBBI")
_RANGE = Struct("=HH")
_UIDS = Struct("=II")
AF_INET = 2


@dataclass(frozen=True, slots=True)
class Asked:
    """What the routing rules may ask of one packet."""

    packet: PacketSummary
    mark: int = 0
    in_interface: str | None = None
    """None: it is made here."""
    dsfield: int | None = 0
    """None where it is not known, as the next."""
    uid: int | None = None
    """Of whom it is: of a socket's owner, or the network's root if it came in."""


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
    sport_mask: int = 0
    """Bits of the first port; 0: all ports from the first to the last."""
    dport_mask: int = 0
    out_interface: str | None = None
    """What a socket is bound to; packets that come in, and those of our clients, have none."""
    uids: tuple[int, int] | None = None
    dsfield: tuple[int, int] | None = None
    """Bits and mask."""
    inverted: bool = False
    unjudged: tuple[str, ...] = ()
    """What it asks for beside that, in the words of ip-rule(8)."""

    def judge(self, asked: Asked) -> tuple[bool, tuple[str, ...]]:
        """Tell whether the rule is surely for a packet; if that is open, for want of what."""
        wants: dict[str, bool | None] = {
            "fwmark": (asked.mark & self.mask) == self.mark,
            "from": _within(self.src, asked.packet.src),
            "to": _within(self.dst, asked.packet.dst),
            "iif": self.in_interface in (None, asked.in_interface or "lo"),
            "oif": True if self.out_interface is None else _is_bound(asked),
            "ipproto": self.protocol in (None, PROTOCOLS.get(asked.packet.protocol)),
            "sport": _between(self.sports, self.sport_mask, asked.packet.sport),
            "dport": _between(self.dports, self.dport_mask, asked.packet.dport),
            "uidrange": True if self.uids is None else _known(self.uids, asked.uid),
            "dsfield": True if self.dsfield is None else _equal(self.dsfield, asked.dsfield),
        }
        if False in wants.values():
            return self.inverted, ()
        open_ones = *(name for name, fits in wants.items() if fits is None), *self.unjudged
        return not open_ones and not self.inverted, open_ones


def _is_bound(asked: Asked) -> bool | None:
    """Tell whether a lookup is for one interface only, as it is for a link's own addresses."""
    link_only = asked.in_interface is None and ip_address(asked.packet.dst).is_link_local
    return None if link_only else False


def _known(uids: tuple[int, int], uid: int | None) -> bool | None:
    return None if uid is None else uids[0] <= uid <= uids[1]


def _equal(wanted: tuple[int, int], dsfield: int | None) -> bool | None:
    bits, mask = wanted
    return None if dsfield is None else dsfield & mask == bits


def _within(prefix: str | None, where: str) -> bool:
    return prefix is None or ip_address(where) in ip_network(prefix, strict=False)


def _between(ports: tuple[int, int] | None, mask: int, port: int | None) -> bool:
    """Compare as fib_rule_port_match does (net/core/fib_rules.c)."""
    if ports is None or port is None:
        return ports is None
    return not (ports[0] ^ port) & mask if mask else ports[0] <= port <= ports[1]


def decode_rule(body: bytes) -> RuleMessage:
    """Return the routing rule in a message without its netlink header; raises Malformed."""
    family, dst_bits, src_bits, tos, table, _, _, action, flags = header(_RULE, body)
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
        in_interface=_name(found, FRA_IIFNAME),
        protocol=found[FRA_IP_PROTO][0] if FRA_IP_PROTO in found else None,
        sports=_range(found, FRA_SPORT_RANGE),
        dports=_range(found, FRA_DPORT_RANGE),
        inverted=bool(flags & INVERT),
        sport_mask=_mask(found, FRA_SPORT_MASK),
        dport_mask=_mask(found, FRA_DPORT_MASK),
        out_interface=_name(found, FRA_OIFNAME),
        uids=_range(found, FRA_UID_RANGE, _UIDS),
        dsfield=_dsfield(found, tos, family),
        unjudged=tuple(dict.fromkeys(word for kind, word in UNJUDGED.items() if kind in found)),
    )


def _prefix(found: Attributes, kind: int, bits: int) -> str | None:
    value = address(found.get(kind))
    return None if value is None else f"{value}/{bits}"


def _mask(found: Attributes, kind: int) -> int:
    return int.from_bytes(found.get(kind, b""), sys.byteorder)


def _name(found: Attributes, kind: int) -> str | None:
    return found[kind].rstrip(b"\0").decode(errors="replace") if kind in found else None


def _dsfield(found: Attributes, tos: int, family: int) -> tuple[int, int] | None:
    if FRA_DSCP in found:
        mask = found[FRA_DSCP_MASK][0] << 2 if FRA_DSCP_MASK in found else DSCP
        return found[FRA_DSCP][0] << 2 & mask, mask
    return (tos, LEGACY_TOS if family == AF_INET else DSCP) if tos else None


def _range(found: Attributes, kind: int, form: Struct = _RANGE) -> tuple[int, int] | None:
    value = found.get(kind)
    if value is None or len(value) != form.size:
        return None
    low, high = form.unpack(value)
    return low, high
