"""One packet's case: all that a cause may be concluded from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ipttrace.diagnose.walk import packet_before
from ipttrace.event import ForeignLog
from ipttrace.evidence import NOTHING, Scene, Trail
from ipttrace.packet import PacketSummary
from ipttrace.path import ChainHop, DropHop, PacketPath
from ipttrace.ruleset import Ruleset


@dataclass(frozen=True, slots=True)
class Case:
    """A packet's path, its answers, what its client got, the rules, and the scene."""

    path: PacketPath
    replies: Sequence[PacketPath] = ()
    """The answers to it that were seen in this namespace."""
    client: str | None = None
    """What the client's call returned, if known."""
    ruleset: Ruleset = Ruleset()  # noqa: RUF009 - frozen
    scene: Scene = NOTHING
    paths: Sequence[PacketPath] = ()
    """All paths of the run, of all namespaces."""
    client_here: bool = True
    """Whether the client, if there is one, runs in this namespace."""
    logged: Sequence[ForeignLog] = ()
    """What else came where trace reports come from: conntrack's own messages among it."""

    @property
    def last(self) -> ChainHop | None:
        """The last chain that reported."""
        hops = self.path.chain_hops
        return hops[-1] if hops else None

    @property
    def packet(self) -> PacketSummary:
        """The packet as it was at its end."""
        return self.scene.last or packet_before(self.path, None)

    @property
    def trail(self) -> Trail:
        """The kernel's events; empty where they could not be read."""
        return self.scene.trail or Trail()

    @property
    def followed(self) -> bool:
        """Whether the kernel's events were tied to the packet: each one came in or was sent."""
        trail = self.trail
        return bool(trail.received or trail.queued or trail.drops or trail.resets)

    @property
    def drop(self) -> DropHop | None:
        """The death that the kernel told."""
        return self.trail.drop

    def risen(self, counter: str) -> int:
        """Return by how much a counter of the namespace rose; 0 also where that is unknown."""
        return (self.scene.counters or {}).get(counter, 0)
