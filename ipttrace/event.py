"""What the kernel said, one value a message: decoded, but not yet tied to a packet or a rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ipttrace.netfilter import Backend, ChainRef, Hook, TableFamily, Verdict
from ipttrace.packet import Flow, PacketSummary


class TraceKind(StrEnum):
    """Which point of a chain's walk a trace report speaks of."""

    RULE = "rule"
    RETURN = "return"
    POLICY = "policy"


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One trace report of ip_tables (through nf_log) or of nf_tables (NFT_MSG_TRACE).

    The report is as the kernel wrote it: `number` may still count our own rule, and a legacy
    `policy` or `return` may in truth be an unconditional rule (`ruleset.Ruleset.locate` decides).
    """

    time: float
    """Seconds since the epoch; when the message was read."""
    backend: Backend
    table_family: TableFamily
    table: str
    chain: str
    kind: TraceKind
    number: int | None = None
    """Legacy only: the number in the prefix."""
    handle: int | None = None
    """nft only: the rule's handle; None in a report that is no rule."""
    verdict: Verdict | None = None
    """nft only: legacy reports none.  For kind `policy` this is the policy."""
    target_chain: str | None = None
    """nft only: where a JUMP or GOTO leads."""
    hook: Hook | None = None
    """Legacy only: nft reports no hook, its base chain has one."""
    trace_id: int | None = None
    """nft only; reused by the kernel for later packets (a hash of the skb's address)."""
    packet: PacketSummary | None = None
    """Always there in legacy; in nft only in the first report of each base chain."""
    mark: int | None = None
    """Legacy: before the rule acts; nft: after it.  None only where nft cannot say (STOLEN)."""
    in_index: int | None = None
    out_index: int | None = None
    header_only: bool = False
    """nft only: a report without a rule that is no policy; it carries headers or closes a walk."""
    sequence: int | None = None
    """Legacy only: NFULA_SEQ of the listener's group."""
    physical_in: int | None = None
    """Legacy only: the bridge's port; nft reports it at the bridge's own hooks, as `in_index`."""
    physical_out: int | None = None

    @property
    def chain_ref(self) -> ChainRef:
        """The chain that reported."""
        return ChainRef(self.backend, self.table_family, self.table, self.chain)


class FlowChange(StrEnum):
    """What happened to a conntrack entry."""

    NEW = "new"
    UPDATE = "update"
    DESTROY = "destroy"


@dataclass(frozen=True, slots=True)
class FlowEvent:
    """One conntrack event: `reply.reversed()` differs from `original` where NAT rewrote."""

    time: float
    change: FlowChange
    original: Flow
    reply: Flow
    mark: int = 0
    status: int = 0
    """IPS_* bits of uapi/linux/netfilter/nf_conntrack_common.h."""


@dataclass(frozen=True, slots=True)
class ForeignLog:
    """An NFLOG message of group 0 that is no trace report: a user's `-j NFLOG`, or conntrack's."""

    time: float
    prefix: str
    packet: PacketSummary | None
    sequence: int | None = None
    """NFULA_SEQ of the listener's group."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The kernel threw messages away; `count` is None where it did not say how many."""

    time: float
    count: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Undecoded:
    """Bytes that are not of the form that the kernel's headers promise."""

    time: float
    reason: str
    data: bytes


@dataclass(frozen=True, slots=True)
class KernelEvent:
    """One event of a tracepoint (tracefs): of the whole host, not yet tied to a packet."""

    time: float
    """Seconds since the epoch; when the kernel wrote it."""
    cpu: int
    pid: int
    """The thread that was running, whether or not it had to do with it."""
    softirq: bool
    """Written while the processor served a softirq: then `pid` says nothing."""
    name: str
    fields: Mapping[str, int | str | bytes]
    """As the event's format file names them; addresses are raw bytes."""

    def number(self, field: str) -> int:
        """Return a field that holds a number; 0 where this kernel's event has none such."""
        value = self.fields.get(field, 0)
        return value if isinstance(value, int) else 0

    def text(self, field: str) -> str:
        """Return a field that holds a name; empty where this kernel's event has none such."""
        value = self.fields.get(field, "")
        return value if isinstance(value, str) else ""


Event = TraceEvent | FlowEvent | ForeignLog | Lost | Undecoded
