"""Joins the ways of one packet through several namespaces, or twice through one, to a journey."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace

from ipttrace.path import PacketPath
from ipttrace.report import Fingerprint, fingerprint

REMEMBERED = 4096
"""Packets; the oldest are forgotten, so that a long watch stays small."""


@dataclass(slots=True)
class _Journey:
    number: int
    legs: int = 0
    ttl: dict[str | None, int] = field(default_factory=dict)
    """The packet's TTL when it came to each namespace last."""

    def goes_on(self, path: PacketPath) -> bool:
        """Tell whether `path` can be the next leg: elsewhere, or here again after a router."""
        before = self.ttl.get(path.netns)
        return before is None or path.packet.ttl < before


class JourneyBook:
    """Numbers journeys and their legs; paths come in the order of their times."""

    def __init__(self) -> None:
        self._known: OrderedDict[Fingerprint, list[_Journey]] = OrderedDict()
        self._count = 0

    def join(self, path: PacketPath) -> PacketPath:
        """Return `path` with its journey and leg."""
        key = fingerprint(path.packet)
        journeys = self._known.setdefault(key, [])
        self._known.move_to_end(key)
        found = next((each for each in journeys if each.goes_on(path)), None)
        if found is None:
            self._count += 1
            found = _Journey(self._count)
            journeys.append(found)
        found.legs += 1
        found.ttl[path.netns] = path.packet.ttl
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return replace(path, journey=found.number, leg=found.legs)
