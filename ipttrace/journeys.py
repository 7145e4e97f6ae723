"""Joins the ways of one packet through several namespaces, or twice through one, to a journey.

Theory of operation
===================

A packet keeps its fingerprint from namespace to namespace; NAT changes no part of it.  Namespaces
are read one after the other, so times order the ways in one namespace, but not the legs of a
journey: the packet itself does.  Each router takes one from its TTL, so a way that begins with a
higher TTL came first.  Of those that begin with the same one, the way on which the packet was made
is the first, and one on which it keeps its TTL (a bridge) is before one on which it does not.

Paths with one fingerprint in one namespace are copies of their own (a retransmission, a clone),
unless the later one can be the same packet that left and came back, soon enough.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from ipttrace.fingerprint import Fingerprint, fingerprint
from ipttrace.path import LEFT, PacketPath

REMEMBERED = 4096
"""Packets; the oldest are forgotten, so that a long watch stays small."""

LONGEST = 10.0
"""Seconds between two legs; longer ago it was another packet with the same fingerprint."""


_Seen = frozenset[tuple[str | None, int, bool]]
"""Of the last leg in each namespace: the TTL at its beginning, and whether it began there."""


@dataclass(slots=True)
class _Journey:
    number: int
    time: float = 0.0
    """When its last leg began."""
    legs: int = 0


class _Alike:
    """The journeys of packets with one fingerprint, by where they were seen.

    Of those that were seen at the same places a leg may be of any, and is of the first: a flood of
    equal packets has thousands.
    """

    def __init__(self) -> None:
        self._at: dict[_Seen, deque[_Journey]] = {}

    def take(self, path: PacketPath) -> tuple[_Journey, _Seen] | None:
        """Take out the first journey that `path` can be a leg of; None if there is none."""
        fitting = [seen for seen in self._at if _goes_on(seen, path)]
        if not fitting:
            return None
        seen = min(fitting, key=lambda each: self._at[each][0].number)
        journey = self._at[seen].popleft()
        if not self._at[seen]:
            del self._at[seen]
        return journey, seen

    def put(self, journey: _Journey, seen: _Seen, path: PacketPath) -> None:
        """Put a journey in whose last leg is `path`; `seen` is of those before it."""
        journey.time = path.time
        elsewhere = (each for each in seen if each[0] != path.netns)
        now = frozenset((*elsewhere, (path.netns, path.packet.ttl, is_made_here(path))))
        self._at.setdefault(now, deque()).append(journey)

    def forget(self, before: float) -> None:
        """Forget the journeys whose last leg began before."""
        for seen, journeys in list(self._at.items()):
            while journeys and journeys[0].time <= before:
                journeys.popleft()
            if not journeys:
                del self._at[seen]


def _goes_on(seen: _Seen, path: PacketPath) -> bool:
    """Tell whether `path` can be a leg: elsewhere, or here again after it left."""
    for netns, ttl, made_here in seen:
        if netns == path.netns:
            again = path.packet.ttl < ttl or (made_here and path.packet.ttl == ttl)
            return again and not is_made_here(path)
    return True


class JourneyBook:
    """Numbers journeys and their legs."""

    def __init__(self, *, as_read: bool = False) -> None:
        """Start with none; `as_read`: times are those at which reports were read, not made."""
        self._as_read = as_read
        self._known: OrderedDict[Fingerprint, _Alike] = OrderedDict()
        self._count = 0

    def join(self, paths: Iterable[PacketPath]) -> tuple[PacketPath, ...]:
        """Return `paths` with journey and leg: journeys in the order of time, legs as they went.

        Legs of one packet that come in different calls are numbered in the order of the calls.
        """
        legs: dict[int, tuple[_Journey, list[PacketPath]]] = {}
        for path in sorted(paths, key=lambda path: (path.time, path.id)):
            journey = self._journey_of(path)
            legs.setdefault(journey.number, (journey, []))[1].append(path)
        joined = tuple(
            leg
            for journey, found in legs.values()
            for leg in _numbered(journey, _in_time(found) if self._as_read else found)
        )
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return joined

    def _journey_of(self, path: PacketPath) -> _Journey:
        key = fingerprint(path.packet)
        known = self._known.setdefault(key, _Alike())
        self._known.move_to_end(key)
        known.forget(path.time - LONGEST)
        found = known.take(path)
        if found is None:
            self._count += 1
            found = _Journey(self._count), frozenset()
        known.put(*found, path)
        return found[0]


def is_made_here(path: PacketPath) -> bool:
    """Tell whether the packet began in the path's namespace."""
    return path.in_interface is None


def _numbered(journey: _Journey, paths: Sequence[PacketPath]) -> Iterable[PacketPath]:
    for path in sorted(paths, key=_place):
        journey.legs += 1
        yield replace(path, journey=journey.number, leg=journey.legs)


def _in_time(paths: Sequence[PacketPath]) -> list[PacketPath]:
    """Return legs none of which begins after one that came later."""
    legs = sorted(paths, key=_place)
    times = list(accumulate((leg.time for leg in reversed(legs)), min))
    return [replace(leg, time=time) for leg, time in zip(legs, reversed(times), strict=True)]


def _place(path: PacketPath) -> tuple[int, int, float, int]:
    return -path.packet.ttl, _rank(path), path.time, path.id


def _rank(path: PacketPath) -> int:
    if is_made_here(path):
        return 0
    last = path.last_packet or path.packet
    return 1 if path.outcome in LEFT and last.ttl == path.packet.ttl else 2
