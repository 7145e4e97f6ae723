"""The way of one packet through one namespace: its hops, its fate, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from ipttrace.event import TraceKind
from ipttrace.netfilter import Basis, ChainRef, Hook, RuleRef, Verdict
from ipttrace.packet import PacketSummary
from ipttrace.ruleset import Counter, MapElement, Ruleset


class Outcome(StrEnum):
    """A packet's fate in one namespace."""

    DELIVERED = "delivered"
    FORWARDED = "forwarded"
    SENT = "sent"
    REJECTED = "rejected"
    REFUSED = "refused"
    DROPPED = "dropped"
    LOST = "lost"
    INCOMPLETE = "incomplete"


LET_IN = "let in"
"""What a watch calls delivered: it sees the end of INPUT, and no socket."""

LEFT = frozenset({Outcome.FORWARDED, Outcome.SENT})
"""The packet went on, by an interface."""


class Role(StrEnum):
    """What a packet is to the command that traced it."""

    PROBE = "probe"
    REPLY = "reply"
    OBSERVED = "observed"


def fate_word(outcome: Outcome, role: Role) -> str:
    """Return an outcome in a word for people, who shall not read more into it than is known."""
    unlooked = outcome is Outcome.DELIVERED and role is Role.OBSERVED
    return LET_IN if unlooked else outcome.value


@dataclass(frozen=True, slots=True)
class Change:
    """A header field or the mark (`src dst sport dport mark ttl`) before and after a hop."""

    field: str
    old: str | int | None
    new: str | int | None


@dataclass(frozen=True, slots=True)
class ChainHop:
    """A rule that matched, or the end of a chain."""

    time: float
    chain: ChainRef
    hook: Hook | None
    """The hook whose walk this hop is part of, also in user chains."""
    priority: int | None
    event: TraceKind
    verdict: Verdict | None
    basis: Basis
    """How the verdict is known."""
    number: int | None = None
    handle: int | None = None
    rule: str | None = None
    target: str | None = None
    counter: Counter | None = None
    """By how much the rule's counter rose in the window, by all traffic."""
    changes: tuple[Change, ...] = ()
    element: MapElement | None = None
    """Of the rule's verdict map, the one that the packet met."""
    replaced: bool = False
    """The rule was changed or deleted meanwhile, so that it is not known."""

    @property
    def ref(self) -> RuleRef:
        """The rule's full name, or the chain's."""
        return RuleRef(self.chain, self.number, self.handle)


@dataclass(frozen=True, slots=True)
class NatHop:
    """Addresses that conntrack rewrote: the source after the last chain, or a reply's."""

    time: float
    basis: Basis
    source: tuple[str, str] | None = None
    """`address:port` before and after; `[address]:port` in IPv6."""
    destination: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class WireHop:
    """The packet met the edge of the namespace."""

    time: float
    event: str
    """`received`, `sent`, or `contained`: dropped by us at the way out."""
    interface: str | None


class Strength(StrEnum):
    """How a piece of evidence is tied to the packet."""

    REPORTED = "reported"
    """The kernel said so of this very packet."""
    MATCHED = "matched"
    """An event or counter of this namespace in the probe's window that nothing else explains."""
    INFERRED = "inferred"
    """It follows from the rules and from what was not seen."""


class Decision(StrEnum):
    """What routing decided."""

    LOCAL = "local"
    FORWARD = "forward"
    OUTPUT = "output"
    UNREACHABLE = "unreachable"
    BLACKHOLE = "blackhole"
    PROHIBIT = "prohibit"


@dataclass(frozen=True, slots=True)
class RouteHop:
    """The routing decision; `basis` is that of the decision, the rest is RTM_GETROUTE's."""

    time: float
    decision: Decision
    basis: Basis
    in_interface: str | None = None
    out_interface: str | None = None
    via: str | None = None
    table: str | None = None
    source: str | None = None


class SocketState(StrEnum):
    """What a socket does, as far as it matters for a packet."""

    LISTEN = "listen"
    """Takes packets from anybody: a TCP listener, an unconnected UDP socket."""
    ESTABLISHED = "established"
    """Has one other end."""
    NONE = "none"
    """There is none."""


@dataclass(frozen=True, slots=True)
class SocketHop:
    """The socket that took the packet, or that there is none."""

    time: float
    state: SocketState
    address: str | None = None
    port: int | None = None
    pid: int | None = None
    process: str | None = None
    netns: str | None = None


@dataclass(frozen=True, slots=True)
class DropHop:
    """Where the kernel freed the packet, and the reason it gave (tracepoint kfree_skb)."""

    time: float
    reason: str
    """By name, as include/net/dropreason-core.h has it: `NO_SOCKET`."""
    location: str | None
    """The kernel function."""
    basis: Strength = Strength.REPORTED


@dataclass(frozen=True, slots=True)
class ResetHop:
    """A TCP reset in answer to the packet."""

    time: float
    reason: str | None
    """The kernel's name for it, where it gives one; None for a rule's or another host's."""
    by: str
    """`kernel`, `rule` or `remote`."""


Hop = ChainHop | NatHop | WireHop | RouteHop | SocketHop | DropHop | ResetHop


@dataclass(frozen=True, slots=True)
class Evidence:
    """One measured fact."""

    text: str
    strength: Strength


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A rule that a user would expect to match, and the criterion that did not."""

    rule: RuleRef
    criterion: str
    actual: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One cause, with its proof and what could be done."""

    cause: str
    """A code of `diagnose.catalogue`."""
    summary: str
    rules: tuple[RuleRef, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    unmatched: tuple[Unmatched, ...] = ()
    remedy: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PacketPath:
    """One packet in one namespace."""

    id: int
    netns: str | None
    """As the user named it; None for the namespace that the tool runs in."""
    role: Role
    time: float
    packet: PacketSummary
    """As it was when first seen."""
    in_interface: str | None = None
    out_interface: str | None = None
    mark: int = 0
    """When first seen."""
    hops: tuple[Hop, ...] = ()
    outcome: Outcome = Outcome.LOST
    ambiguous: bool = False
    rules_changed: bool = False
    """Rules were changed while it was on its way: its hops may be of those before or after."""
    journey: int = 1
    leg: int = 1
    request: int | None = None
    """In a reply: the id of the path it answers."""
    physical_in: str | None = None
    """The port, where the packet came in by a bridge and the kernel told it."""
    physical_out: str | None = None
    last_packet: PacketSummary | None = None
    """As it was when last seen; None where nobody saw it."""
    diagnosis: Diagnosis | None = None
    reports: tuple[int, ...] = ()
    """The numbers of its reports in the namespace's queue, where that counts them."""
    ruleset: Ruleset | None = field(default=None, compare=False, repr=False)
    """The rules that it met, until a watch has found out why it ended as it did."""

    @property
    def fate(self) -> str:
        """The outcome in a word for people."""
        return fate_word(self.outcome, self.role)

    @property
    def chain_hops(self) -> tuple[ChainHop, ...]:
        """The hops that are chains' reports."""
        return tuple(hop for hop in self.hops if isinstance(hop, ChainHop))
