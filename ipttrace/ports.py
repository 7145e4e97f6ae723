"""The small protocols behind which everything stands that touches the kernel (`system/`)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ipttrace.event import Event, KernelEvent
from ipttrace.evidence import Scene
from ipttrace.netfilter import Backend, PacketFamily
from ipttrace.packet import Flow, PacketSummary
from ipttrace.question import Question
from ipttrace.request import Armed, Disarmed, TraceRequest
from ipttrace.ruleset import Ruleset


class Clock(Protocol):
    """Time, and waiting for it."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        ...

    def wait(self, descriptors: Sequence[int], seconds: float) -> None:
        """Return when one of the descriptors can be read, or after `seconds`."""
        ...


@dataclass(frozen=True, slots=True)
class Datagram:
    """What one recv() of a netlink socket returned."""

    time: float
    data: bytes


class EventSource(Protocol):
    """Where one namespace's trace reports and conntrack events come from."""

    @property
    def warnings(self) -> Sequence[str]:
        """What a user must know about the way in which they come."""
        ...

    @property
    def position(self) -> int | None:
        """How many messages were read since `announce`; None where they are not counted."""
        ...

    def announce(self) -> None:
        """Let the kernel put one message into the queue, and take it out; count from here on.

        Where messages cannot be counted nothing is done.
        """
        ...

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        ...

    def drain(self) -> tuple[Sequence[Datagram], int]:
        """Return all that waits, and how often the kernel said ENOBUFS; never blocks."""
        ...

    def decode(self, datagrams: Sequence[Datagram], ruleset: Ruleset) -> Sequence[Event]:
        """Return the events of one `drain` in the order in which the kernel made them.

        `ruleset` tells it where the kernel does not.
        """
        ...

    def close(self) -> None:
        """Give the socket back to the kernel."""
        ...


class KernelEvents(Protocol):
    """The tracepoints of the whole host."""

    @property
    def missing(self) -> Sequence[str]:
        """Names of the events that this kernel does not have."""
        ...

    def address_of(self, source: EventSource) -> int | None:
        """Return the address by which the events know a source's socket; the source counts on."""
        ...

    def start(self, interfaces: Sequence[str]) -> None:
        """Let the events come; those of interfaces only for the ones named."""
        ...

    def drain(self) -> tuple[Sequence[KernelEvent], int]:
        """Return what was written since, in the order of time, and how often some was lost."""
        ...

    def function(self, address: int) -> str | None:
        """Return the name of the kernel function at an address."""
        ...

    def close(self) -> None:
        """Stop, and leave nothing behind; may be called more than once."""
        ...


class SceneReader(Protocol):
    """Looks around in one namespace; asks, and changes nothing."""

    def before(self, flows: Sequence[Flow]) -> None:
        """Note what the counters and the connection table say before the packets are sent."""
        ...

    def look(self, question: Question) -> Scene:
        """Return all that can be seen around a packet; its `trail` is left to the caller.

        What cannot be looked at is named in `missing`; nothing is raised.
        """
        ...

    def is_resolving(self, interface: str, address: str) -> bool:
        """Tell whether the kernel still asks for the link address of a neighbour."""
        ...


class TraceRules(Protocol):
    """The temporary rules of one session in one namespace."""

    def arm(self, request: TraceRequest) -> Armed:
        """Change the namespace; on an error nothing stays behind."""
        ...

    def rearm(self, request: TraceRequest, *, whole: bool) -> Armed:
        """Set triggers anew that somebody took away; if `whole`, take all back and arm once more.

        What was counted counts on.  On an error it may be tried again.
        """
        ...

    def quiet(self) -> None:
        """Take the triggers back, but keep what contains."""
        ...

    def disarm(self) -> Disarmed:
        """Take everything back; may be called more than once."""
        ...


class RuleState(Protocol):
    """Tells one state of rules and links from the next; costs far less than to read them."""

    def now(self) -> Hashable:
        """Return a value that differs from the last one if any rule was changed meanwhile.

        Counters are no change; an interface that comes, goes or is joined to a bridge is one.
        """
        ...

    def close(self) -> None:
        """Let go of what it asks by."""
        ...


class RulesetReader(Protocol):
    """Reads the rules of one namespace."""

    def read(self, family: PacketFamily | None = None) -> Ruleset:
        """Return the rules that see packets of `family`, or all."""
        ...

    def watch(self) -> RuleState:
        """Return what knows whether they are changed."""
        ...

    def backends(self, family: PacketFamily | None) -> frozenset[Backend]:
        """Return the backends with tables for `family`, or any: where a raw trigger is to stand."""
        ...

    def interfaces(self) -> Mapping[int, str]:
        """Return index to name."""
        ...

    def bridges(self) -> Mapping[int, int]:
        """Return the index of the bridge of each interface that is a bridge's port."""
        ...

    def conntrack_entries(self) -> int:
        """Return how many connections the namespace tracks now; 0 where it tracks none."""
        ...


class ProbeClient(Protocol):
    """Sends the test packets: by injection, or as a real client."""

    def prepare(self) -> Sequence[Flow]:
        """Claim addresses and ports; return the flow of each packet, in the order of sending.

        A source that only the kernel can choose, and would not, is the unspecified address.
        """
        ...

    @property
    def identities(self) -> Sequence[PacketSummary]:
        """What is known of each packet before it is sent, after `prepare`; the rest is None."""
        ...

    def fileno(self) -> int | None:
        """Return the descriptor to wait on for the last packet's result; None if it is known."""
        ...

    def send(self) -> None:
        """Send the next packet; returns before the result is in."""
        ...

    @property
    def device(self) -> str | None:
        """The device through which packets are injected; None for a real client's."""
        ...

    @property
    def thread(self) -> int | None:
        """The thread that made the last call of `send`; None before it."""
        ...

    def poll(self) -> str | None:
        """Return the last packet's result in one word, None while there is none yet.

        CONNECTED REPLIED SENT TIMEOUT, or an errno's name; an injecting client says SENT at once.
        """
        ...

    def finish(self) -> Sequence[str]:
        """Undo what the packets left (half-open sockets); return warnings.

        May be called more than once, and without `prepare`.
        """
        ...
