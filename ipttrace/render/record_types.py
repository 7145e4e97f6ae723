"""The JSON Lines that programs read, schema `ipttrace/1`: names and nulls are the contract.

Fields are only ever added.  `ipttrace-1.schema.json` is generated from these types.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from ipttrace.checkup.finding import State
from ipttrace.event import TraceKind
from ipttrace.netfilter import Backend, Basis, Hook, PacketFamily, TableFamily, Verdict
from ipttrace.path import Decision, Outcome, Role, SocketState, Strength
from ipttrace.render.check_record_types import CHECK_RECORDS
from ipttrace.render.lab_record_types import LAB_RECORDS
from ipttrace.render.twin_record_types import TWIN_RECORDS

SCHEMA: Literal["ipttrace/1"] = "ipttrace/1"

Pair = tuple[str, str]
"""`address:port` before and after; `[address]:port` in IPv6."""


DropBasis = Literal["reported", "matched"]
ResetBy = Literal["kernel", "rule", "remote"]
WireEvent = Literal["received", "sent", "contained"]


class IcmpFields(Struct, frozen=True):
    """An ICMP or ICMPv6 header; id and seq are null in all but echo messages."""

    type: int
    code: int
    id: int | None
    seq: int | None


class PacketFields(Struct, frozen=True):
    """The packet as it was when first seen in this namespace."""

    family: PacketFamily
    protocol: str
    src: str
    sport: int | None
    dst: str
    dport: int | None
    ip_id: int | None
    length: int
    ttl: int
    tcp_flags: tuple[str, ...]
    icmp: IcmpFields | None
    in_interface: str | None = field(name="in")
    out_interface: str | None = field(name="out")
    mark: int
    physical_in: str | None
    """The bridge's port by which it came in; null where none was reported."""
    physical_out: str | None


class CounterFields(Struct, frozen=True):
    """Packets and bytes."""

    packets: int
    bytes: int


class ChainHopRecord(Struct, frozen=True, tag_field="kind", tag="chain"):
    """A rule that matched, or the end of a chain."""

    time: float
    backend: Backend
    table_family: TableFamily
    hook: Hook | None
    priority: int | None
    table: str
    chain: str
    event: TraceKind
    rule_number: int | None
    rule_handle: int | None
    rule: str | None
    target: str | None
    verdict: Verdict | None
    basis: Basis
    counter: CounterFields | None
    changes: dict[str, tuple[str | int | None, str | int | None]]
    map_key: str | None
    """The key of the rule's verdict map that the packet met, where it has one and that is known."""


class RouteHopRecord(Struct, frozen=True, tag_field="kind", tag="route"):
    """The routing decision."""

    decision: Decision
    in_interface: str | None = field(name="in")
    out_interface: str | None = field(name="out")
    via: str | None
    table: str | None
    source: str | None
    basis: Basis


class NatHopRecord(Struct, frozen=True, tag_field="kind", tag="nat"):
    """Addresses that conntrack rewrote outside the user's own rules' reports."""

    source: Pair | None
    destination: Pair | None
    basis: Basis


class SocketHopRecord(Struct, frozen=True, tag_field="kind", tag="socket"):
    """The socket that took the packet, or that there is none."""

    state: SocketState
    address: str | None
    port: int | None
    pid: int | None
    process: str | None
    netns: str | None


class DropHopRecord(Struct, frozen=True, tag_field="kind", tag="drop"):
    """Where the kernel freed the packet, and the reason it gave."""

    reason: str
    location: str | None
    basis: DropBasis


class ResetHopRecord(Struct, frozen=True, tag_field="kind", tag="reset"):
    """A TCP reset in answer to the packet."""

    reason: str | None
    by: ResetBy


class WireHopRecord(Struct, frozen=True, tag_field="kind", tag="wire"):
    """The packet met the edge of the namespace; `contained`: the tool dropped it there."""

    event: WireEvent
    interface: str | None


HopRecord = (
    ChainHopRecord
    | RouteHopRecord
    | NatHopRecord
    | SocketHopRecord
    | DropHopRecord
    | ResetHopRecord
    | WireHopRecord
)


class RuleFields(Struct, frozen=True):
    """The full name of a rule; number null means the chain's policy."""

    backend: Backend
    table_family: TableFamily
    table: str
    chain: str
    number: int | None
    handle: int | None


class EvidenceFields(Struct, frozen=True):
    """One measured fact, and how it is tied to the packet."""

    text: str
    strength: Strength


class UnmatchedFields(Struct, frozen=True):
    """A rule that did not match, and why."""

    backend: Backend
    table_family: TableFamily
    table: str
    chain: str
    number: int | None
    criterion: str
    actual: str


class DiagnosisFields(Struct, frozen=True):
    """One cause, its proof, and what could be done."""

    cause: str
    summary: str
    rules: tuple[RuleFields, ...]
    evidence: tuple[EvidenceFields, ...]
    unmatched: tuple[UnmatchedFields, ...]
    remedy: tuple[str, ...]


class PathRecord(Struct, frozen=True):
    """The way of one packet through one namespace."""

    schema: Literal["ipttrace/1"]
    record: Literal["path"]
    id: int
    journey: int
    leg: int
    netns: str | None
    role: Role
    request: int | None
    time: float
    packet: PacketFields
    hops: tuple[HopRecord, ...]
    outcome: Outcome
    ambiguous: bool
    rules_changed: bool
    diagnosis: DiagnosisFields | None


class TracedFields(Struct, frozen=True):
    """How much of what was traced is accounted for."""

    hits: int
    packets: int
    complete: int
    lost_events: int
    undecoded: int


class SummaryRecord(Struct, frozen=True):
    """The last line of a run; client is null when injected, a list for more than one packet."""

    schema: Literal["ipttrace/1"]
    record: Literal["summary"]
    client: str | tuple[str, ...] | None
    trigger: str
    backends: tuple[str, ...]
    traced: TracedFields
    warnings: tuple[str, ...]
    clean: bool
    seconds: float


class ChainRecord(Struct, frozen=True):
    """One chain, as `ipttrace rules` read it; hook, priority and policy are null in user chains."""

    schema: Literal["ipttrace/1"]
    record: Literal["chain"]
    netns: str | None
    backend: Backend
    table_family: TableFamily
    table: str
    chain: str
    hook: Hook | None
    priority: int | None
    policy: Verdict | None
    counter: CounterFields | None
    rise: CounterFields | None
    """Since the reading before, with --watch; null in the first."""
    rules: int
    devices: tuple[str, ...]
    """The interfaces of a chain at INGRESS or EGRESS."""


class RuleRecord(Struct, frozen=True):
    """One rule, as `ipttrace rules` read it."""

    schema: Literal["ipttrace/1"]
    record: Literal["rule"]
    netns: str | None
    backend: Backend
    table_family: TableFamily
    table: str
    chain: str
    number: int
    handle: int | None
    rule: str
    target: str | None
    counter: CounterFields | None
    rise: CounterFields | None
    """Since the reading before, with --watch; null in the first."""


class FindingRecord(Struct, frozen=True):
    """One finding of `ipttrace doctor`; advice is null if and only if the state is ok."""

    schema: Literal["ipttrace/1"]
    record: Literal["finding"]
    netns: str | None
    topic: str
    state: State
    text: str
    advice: str | None


RECORDS: tuple[type[Struct], ...] = (
    PathRecord,
    SummaryRecord,
    ChainRecord,
    RuleRecord,
    FindingRecord,
    *LAB_RECORDS,
    *CHECK_RECORDS,
    *TWIN_RECORDS,
)
