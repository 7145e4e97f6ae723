"""A walk, told: what is known of one packet's way, as others read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ipttrace.netfilter import RuleRef
from ipttrace.path import Outcome, PacketPath, Role
from ipttrace.report import Step
from ipttrace.ruleset import Counter
from ipttrace.walk import Walk


@dataclass(frozen=True, slots=True)
class Interfaces:
    """A namespace's interfaces, as they were last read."""

    names: Mapping[int, str]
    bridge_of: Mapping[int, int]
    """The bridge of each of its ports."""
    gone: Mapping[int, str] = field(default_factory=dict)
    """The names that were known the time before."""

    def followed_by(self, names: Mapping[int, str], bridge_of: Mapping[int, int]) -> Interfaces:
        """Return them as they are now, read again."""
        return Interfaces(dict(names), dict(bridge_of), self.names)

    def name(self, index: int | None) -> str | None:
        """Return an interface's name; one that came and went unseen has only its number."""
        if not index:
            return None
        return self.names.get(index) or self.gone.get(index, f"if{index}")

    def name_or_bridges(self, index: int | None, port: int | None) -> str | None:
        """Return an interface's name; where it is not told, that of the port's bridge."""
        return self.name(index or self.bridge_of.get(port or 0))


def path_of(
    walk: Walk,
    outcome: Outcome,
    netns: str | None,
    interfaces: Interfaces,
    changes: Mapping[RuleRef, Counter],
) -> PacketPath:
    """Return a packet's path with the counters' `changes` on its hops."""
    leaves = outcome in (Outcome.FORWARDED, Outcome.SENT)
    return PacketPath(
        id=walk.id,
        netns=netns,
        role=Role.OBSERVED,
        time=walk.time,
        packet=walk.first,
        in_interface=interfaces.name_or_bridges(walk.first_in, walk.physical_in),
        out_interface=interfaces.name_or_bridges(walk.out_index, walk.physical_out)
        if leaves
        else None,
        physical_in=interfaces.name(walk.physical_in),
        physical_out=interfaces.name(walk.physical_out) if leaves else None,
        mark=walk.first_mark,
        hops=tuple(
            step.hop(changes.get(step.station.ref)) if isinstance(step, Step) else step
            for step in walk.hops
        ),
        outcome=outcome,
        ambiguous=walk.ambiguous,
        rules_changed=walk.rules_changed,
        last_packet=walk.packet,
        reports=tuple(walk.reports),
    )
