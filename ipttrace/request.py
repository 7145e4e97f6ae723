"""What is to be traced in a namespace, what then stands there, and what was found at the end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ipttrace.netfilter import Backend, ChainRef, Hook, PacketFamily, TableFamily
from ipttrace.packet import Flow


class Trigger(StrEnum):
    """What sets the trace bit."""

    RAW = "raw"
    """A tagged TRACE rule in the raw table."""
    OWNER = "owner"
    """An nft table that belongs to our socket and goes with it."""


Instruction = tuple[int, int, int, int]
"""One instruction of classic BPF: code, jt, jf, k (struct sock_filter, uapi/linux/filter.h)."""


@dataclass(frozen=True, slots=True)
class PacketFilter:
    """A pcap filter, compiled for packets that begin with their IP header."""

    text: str
    """As the user wrote it."""
    program: tuple[Instruction, ...]
    both_ways: tuple[Instruction, ...] = ()
    """For packets of the other direction, too; empty if that is too long for the kernel."""
    cautions: tuple[str, ...] = ()
    """What it means that the user may not have meant."""


SMALLEST_BURST = 5
"""What iptables' own limit match has where none is given."""


def burst(per_second: int) -> int:
    """Return how many packets a limit of so many per second lets pass at once."""
    return max(SMALLEST_BURST, per_second)


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """Which packets of one namespace to trace, and how: those of a flow, or those of a filter."""

    session: str
    """Lower-case letters and digits; the tag of every rule and table."""
    hook: Hook = Hook.PREROUTING
    """PREROUTING for packets that come in, OUTPUT for packets made here; of a flow."""
    flow: Flow | None = None
    """Only packets of this flow; ports None match any."""
    trigger: Trigger = Trigger.RAW
    any_source: bool = False
    """Leave out the source address (it is not known yet, or is rewritten on the way)."""
    any_destination: bool = False
    """Leave out the destination's address and port as well, which NAT may have rewritten."""
    in_interface: str | None = None
    contain: bool = False
    """Drop the flow and its answers at the way out of the namespace."""
    replies: bool = True
    lifetime: float = 60.0
    """Seconds after which a forgotten rule of ours stops matching."""
    backends: frozenset[Backend] = frozenset()
    """Where a raw trigger is to stand."""
    conntrack_active: bool = False
    """Whether the namespace tracks connections already: only then may rules of ours use `ct`."""
    filter: PacketFilter | None = None
    """Only packets, of either family, that the filter matches; then there is no flow.

    With `replies` also the other packets of their connections, where connections are tracked, or
    those that match with source and destination swapped, where they are not.
    """
    hooks: tuple[Hook, ...] = (Hook.PREROUTING, Hook.OUTPUT)
    """Where a filter looks at packets."""
    limit: int | None = None
    """Packets a second that each trigger of a filter traces at most; None for all."""
    untracked: frozenset[PacketFamily] = frozenset()
    """Families whose connections are not tracked though `conntrack_active`; of a filter."""
    early_devices: tuple[str, ...] = ()
    """Interfaces with chains at INGRESS, which packets meet before all others."""
    counted_devices: tuple[str, ...] = ()
    """By which packets come to IP that were counted at INGRESS: those, or their bridges."""
    early_hooks: tuple[Hook, ...] = ()
    """PREROUTING or OUTPUT, where chains come before the usual triggers."""
    counts_due: bool = True
    """Whether our tables count what a filter takes, traced or not."""


@dataclass(frozen=True, slots=True)
class Armed:
    """What was changed in the namespace."""

    trigger: Trigger
    backends: frozenset[Backend]
    """Where a trigger stands."""
    created: frozenset[ChainRef] = frozenset()
    """Base chains that exist only because we made them: their reports are no hops."""
    own_table: tuple[TableFamily, str] | None = None
    """Our nft table, whose chains (named after their hook) report where a packet came through."""
    warnings: tuple[str, ...] = ()
    early: bool = False
    """Whether packets are traced from the first chain on that they meet."""


@dataclass(frozen=True, slots=True)
class Disarmed:
    """What was found when taking it back."""

    clean: bool
    hits: int = 0
    """Packets that the trigger chains counted."""
    warnings: tuple[str, ...] = ()
    due: int | None = None
    """Packets that the filter and its answers take, traced or not; None where nobody counted."""
    counted: bool = True
    """Whether `hits` is all: not if somebody took rules of ours away, and their counts."""
