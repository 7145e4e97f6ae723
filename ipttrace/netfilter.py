"""Netfilter's vocabulary: families, hooks, tables, verdicts, and the order in which they act.

Numbers are those of include/uapi/linux/netfilter.h, netfilter_ipv4.h and netfilter_bridge.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Backend(StrEnum):
    """Which of the kernel's two rule engines a chain belongs to."""

    LEGACY = "legacy"
    """ip_tables and ip6_tables."""
    NFT = "nft"
    """nf_tables: iptables-nft and native nft tables."""


class TableFamily(StrEnum):
    """The family of a table, as `nft` writes it."""

    IP = "ip"
    IP6 = "ip6"
    INET = "inet"
    ARP = "arp"
    BRIDGE = "bridge"
    NETDEV = "netdev"


class PacketFamily(StrEnum):
    """The network layer of a packet."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"

    @property
    def table_family(self) -> TableFamily:
        """The family of the iptables tables that see such packets."""
        return TableFamily.IP if self is PacketFamily.IPV4 else TableFamily.IP6

    @property
    def bits(self) -> int:
        """The length of an address, in bits."""
        return 32 if self is PacketFamily.IPV4 else 128


NFPROTO = {
    1: TableFamily.INET,
    2: TableFamily.IP,
    3: TableFamily.ARP,
    5: TableFamily.NETDEV,
    7: TableFamily.BRIDGE,
    10: TableFamily.IP6,
}
"""NFPROTO_* (uapi/linux/netfilter.h) to table family."""

NFPROTO_NUMBER = {family: number for number, family in NFPROTO.items()}


class Hook(StrEnum):
    """A place in the network stack where chains are called."""

    INGRESS = "INGRESS"
    PREROUTING = "PREROUTING"
    INPUT = "INPUT"
    FORWARD = "FORWARD"
    OUTPUT = "OUTPUT"
    POSTROUTING = "POSTROUTING"
    EGRESS = "EGRESS"


INET_HOOKS = (Hook.PREROUTING, Hook.INPUT, Hook.FORWARD, Hook.OUTPUT, Hook.POSTROUTING)
"""Indexed by NF_INET_PRE_ROUTING .. NF_INET_POST_ROUTING, the `hook` byte of an NFLOG header."""

HOOK_NUMBER = {hook: number for number, hook in enumerate((*INET_HOOKS, Hook.INGRESS))}
"""NF_INET_*, for tables of family inet, too (NF_INET_INGRESS)."""

LATER_HOOKS: dict[Hook, frozenset[Hook]] = {
    Hook.INGRESS: frozenset(
        {Hook.PREROUTING, Hook.INPUT, Hook.FORWARD, Hook.POSTROUTING, Hook.EGRESS}
    ),
    Hook.PREROUTING: frozenset({Hook.INPUT, Hook.FORWARD, Hook.POSTROUTING, Hook.EGRESS}),
    Hook.INPUT: frozenset(),
    Hook.FORWARD: frozenset({Hook.POSTROUTING, Hook.EGRESS}),
    Hook.OUTPUT: frozenset({Hook.POSTROUTING, Hook.EGRESS}),
    Hook.POSTROUTING: frozenset({Hook.EGRESS}),
    Hook.EGRESS: frozenset(),
}
"""Hooks that a packet can meet after a hook on one way; a hook without chains is silent."""

SENDING_HOOKS = frozenset({Hook.OUTPUT, Hook.POSTROUTING, Hook.EGRESS})
RECEIVING_HOOKS = frozenset({Hook.INGRESS, Hook.PREROUTING, Hook.INPUT})
"""Over lo a packet's way leads from the sending hooks on to the receiving ones."""

LOOPBACK_INDEX = 1
"""lo is the first interface of every namespace (LOOPBACK_IFINDEX, include/net/flow.h)."""


def leads_to(earlier: Hook, later: Hook, in_index: int | None) -> bool:
    """Tell whether a packet at one hook can be at a later one, seen there with `in_index`."""
    if earlier in SENDING_HOOKS and later in RECEIVING_HOOKS:
        return in_index == LOOPBACK_INDEX
    return later in LATER_HOOKS[earlier]


Stage = tuple[Hook, bool]
"""A hook, and whether it is the bridge's of that name (uapi/linux/netfilter_bridge.h)."""

_BRIDGE_HOOKS = frozenset(INET_HOOKS)
_SENT_BY_BRIDGE = frozenset({Hook.OUTPUT, Hook.POSTROUTING})

LATER_BRIDGE_HOOKS: dict[Stage, frozenset[Hook]] = {
    (Hook.INGRESS, False): _BRIDGE_HOOKS,
    (Hook.PREROUTING, False): _BRIDGE_HOOKS,
    (Hook.INPUT, False): frozenset(),
    (Hook.FORWARD, False): _SENT_BY_BRIDGE | {Hook.FORWARD},
    (Hook.OUTPUT, False): _SENT_BY_BRIDGE,
    (Hook.POSTROUTING, False): _SENT_BY_BRIDGE,
    (Hook.EGRESS, False): _SENT_BY_BRIDGE,
    (Hook.PREROUTING, True): _BRIDGE_HOOKS - {Hook.PREROUTING},
    (Hook.INPUT, True): _SENT_BY_BRIDGE,
    (Hook.FORWARD, True): frozenset({Hook.POSTROUTING}),
    (Hook.OUTPUT, True): frozenset({Hook.POSTROUTING}),
    (Hook.POSTROUTING, True): frozenset(),
}
"""Bridge hooks that a packet can meet after a hook of either kind.

A frame for this host comes up from the bridge's INPUT to PREROUTING, and a packet that leaves by a
bridge meets the bridge's OUTPUT and POSTROUTING after its own.  br_netfilter calls the IP chains
inside the bridge's hooks of the same name (net/bridge/br_netfilter_hooks.c).
"""

HOOKS_AFTER_BRIDGE: dict[Hook, frozenset[Hook]] = {
    Hook.PREROUTING: LATER_HOOKS[Hook.INGRESS],
    Hook.INPUT: LATER_HOOKS[Hook.INGRESS] | {Hook.INGRESS},
    Hook.FORWARD: frozenset({Hook.FORWARD, Hook.POSTROUTING, Hook.EGRESS}),
    Hook.OUTPUT: frozenset({Hook.EGRESS}),
    Hook.POSTROUTING: frozenset({Hook.POSTROUTING, Hook.EGRESS}),
}
"""Other hooks that a packet can meet after a bridge hook."""


def follows(earlier: Stage, later: Stage, in_index: int | None) -> bool:
    """Tell whether a packet at one stage can be at a later one, seen there with `in_index`."""
    if later[1]:
        return later[0] in LATER_BRIDGE_HOOKS[earlier]
    if earlier[1]:
        return later[0] in HOOKS_AFTER_BRIDGE[earlier[0]]
    return leads_to(earlier[0], later[0], in_index)


class Verdict(StrEnum):
    """What a rule or a policy decided."""

    ACCEPT = "ACCEPT"
    DROP = "DROP"
    REJECT = "REJECT"
    JUMP = "JUMP"
    GOTO = "GOTO"
    RETURN = "RETURN"
    CONTINUE = "CONTINUE"
    QUEUE = "QUEUE"
    STOLEN = "STOLEN"


FATAL_VERDICTS = frozenset({Verdict.DROP, Verdict.REJECT})
"""Verdicts after which the packet is no more."""


class Basis(StrEnum):
    """How a statement about a packet is known."""

    REPORTED = "reported"
    """The kernel said so of this very packet."""
    INFERRED = "inferred"
    """It follows from the rule's text and from the hops before and after."""
    UNKNOWN = "unknown"


CONNTRACK_PRIORITY = -200
DNAT_PRIORITY = -100
SNAT_PRIORITY = 100

TABLE_PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
"""NF_IP_PRI_* of uapi/linux/netfilter_ipv4.h; `nat` depends on the hook."""

TABLE_HOOKS = {
    "raw": (Hook.PREROUTING, Hook.OUTPUT),
    "mangle": INET_HOOKS,
    "nat": (Hook.PREROUTING, Hook.INPUT, Hook.OUTPUT, Hook.POSTROUTING),
    "filter": (Hook.INPUT, Hook.FORWARD, Hook.OUTPUT),
    "security": (Hook.INPUT, Hook.FORWARD, Hook.OUTPUT),
}
"""The built-in chains of each iptables table."""


def nat_priority(hook: Hook) -> int | None:
    """Return where addresses are rewritten at `hook`, or None where they never are."""
    if hook in (Hook.PREROUTING, Hook.OUTPUT):
        return DNAT_PRIORITY
    if hook in (Hook.INPUT, Hook.POSTROUTING):
        return SNAT_PRIORITY
    return None


def builtin_priority(table: str, hook: Hook) -> int | None:
    """Return the priority of an iptables table at `hook`, or None if it has no chain there."""
    if hook not in TABLE_HOOKS.get(table, ()):
        return None
    return nat_priority(hook) if table == "nat" else TABLE_PRIORITIES[table]


def traversal(hook: Hook) -> tuple[str, ...]:
    """Return the iptables tables in the order in which a packet meets them at `hook`."""
    present = [(builtin_priority(table, hook), table) for table in TABLE_HOOKS]
    return tuple(table for priority, table in sorted((p, t) for p, t in present if p is not None))


@dataclass(frozen=True, slots=True, order=True)
class ChainRef:
    """The full name of a chain."""

    backend: Backend
    table_family: TableFamily
    table: str
    chain: str

    def __str__(self) -> str:
        return f"{self.table}/{self.chain}"


@dataclass(frozen=True, slots=True)
class RuleRef:
    """The full name of a rule: its number counts from 1 in its chain, without our own rules."""

    chain: ChainRef
    number: int | None
    handle: int | None = None

    def __str__(self) -> str:
        if self.number is not None:
            return f"{self.chain} {self.number}"
        return f"{self.chain} handle {self.handle}" if self.handle is not None else str(self.chain)
