"""The packets of the runs before this one: they stay in the list, so that runs can be compared."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from ipttrace.path import PacketPath
from ipttrace.result import TraceTotals
from ipttrace_tui.feed import Snapshot

MOST = 2_000
"""Packets of earlier runs; the oldest ones go."""


@dataclass(frozen=True, slots=True)
class PastRuns:
    """What earlier runs found; ids and journeys count on from run to run."""

    paths: tuple[PacketPath, ...] = ()
    totals: TraceTotals = field(default_factory=TraceTotals)

    def join(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot of the run that is under way with what was before.

        A watch's log of packets stands alone: it is too long to be written down anew.
        """
        if not isinstance(snapshot.paths, tuple) or self == PastRuns():
            return snapshot
        ids = max((path.id for path in self.paths), default=0)
        journeys = max((path.journey for path in self.paths), default=0)
        later = (_shifted(path, ids, journeys) for path in snapshot.paths)
        totals = (
            getattr(self.totals, each.name) + getattr(snapshot.totals, each.name)
            for each in fields(TraceTotals)
        )
        return replace(snapshot, paths=(*self.paths, *later), totals=TraceTotals(*totals))


def past_of(shown: Snapshot) -> PastRuns:
    """Return all that is shown as the past of the next run."""
    return PastRuns(tuple(shown.paths[-MOST:]), shown.totals)


def _shifted(path: PacketPath, ids: int, journeys: int) -> PacketPath:
    request = path.request + ids if path.request is not None else None
    return replace(path, id=path.id + ids, journey=path.journey + journeys, request=request)
