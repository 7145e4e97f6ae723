"""What a saved file says of itself, and which packets it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ipttrace.path import PacketPath, Role
from ipttrace.render.text import in_order
from ipttrace.result import TraceResult

MOST_SHOWN = 200
"""Packets with a picture each; a page of more cannot be read, and is slow to open."""


@dataclass(frozen=True, slots=True)
class About:
    """Where a file comes from."""

    when: datetime
    """With its time zone."""
    tool: str
    """`ipttrace 0.1.0`."""
    title: str = "ipttrace"
    """What was traced, in the user's words: `ipttrace probe tcp 198.51.100.1:443`."""
    verbose: bool = False
    """All evidence in `.txt`, not only the strongest."""
    hop: int | None = None
    """The hop to mark in the picture of the only packet."""

    @property
    def date(self) -> str:
        """When, to the second, with the zone."""
        return self.when.strftime("%Y-%m-%d %H:%M:%S %z").rstrip()


@dataclass(frozen=True, slots=True)
class Shown:
    """The packets of a run, sorted by how much of them is shown."""

    whole: Sequence[PacketPath]
    """Those with picture, hops and diagnosis."""
    named: Sequence[PacketPath]
    """Those that are only named: what else was seen beside a probe and its answers."""
    left_out: int = 0
    """How many are not shown, for there are too many."""


def shown(result: TraceResult, most: int = MOST_SHOWN) -> Shown:
    """Return what to show of each packet; of a watch all are shown whole, up to `most`."""
    paths = list(in_order(result))
    whole = [path for path in paths if path.role is not Role.OBSERVED]
    named = [path for path in paths if path.role is Role.OBSERVED]
    if not whole:
        whole, named = named, []
    left_out = max(0, len(whole) - most) + max(0, len(named) - most)
    return Shown(whole[:most], named[:most], left_out)
