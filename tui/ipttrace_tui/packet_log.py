"""The packets of a watch: a log that grows in the feed's thread and is read by the screen.

The log keeps the newest `CAPACITY` packets.  A `LogView` is the log at one moment: what it shows
never changes, whatever comes later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import overload

from msgspec import Struct

from ipttrace.path import Outcome, PacketPath, Role
from ipttrace_tui.packing import Packer

CAPACITY = 100_000
SLACK = 10_000
"""Packets above the capacity that are let go at once."""
RECENT = 512
"""Paths that are kept unpacked because they were looked at."""


Unpack = Callable[[bytes], PacketPath]


class Entry(Struct, frozen=True, gc=False):
    """A packet as far as the list and its filter need it; it refers to nothing that refers back."""

    id: int
    role: Role
    outcome: Outcome
    cause: str
    protocol: str
    src: str
    sport: int | None
    dst: str
    dport: int | None
    netns: str | None
    journey: int
    time: float
    rules: tuple[str, ...]
    """The text of the rules that it met, without doubles."""
    packed: bytes = b""


def entry_of(path: PacketPath, rules: tuple[str, ...], packed: bytes = b"") -> Entry:
    """Return the entry of a path."""
    packet = path.packet
    return Entry(
        path.id,
        path.role,
        path.outcome,
        path.diagnosis.cause if path.diagnosis else "",
        packet.protocol,
        packet.src,
        packet.sport,
        packet.dst,
        packet.dport,
        path.netns,
        path.journey,
        path.time,
        rules,
        packed,
    )


def rules_of(path: PacketPath) -> tuple[str, ...]:
    """Return the text of the rules that a packet met, without doubles."""
    return tuple(dict.fromkeys(hop.rule for hop in path.chain_hops if hop.rule))


class PacketLog:
    """Grows in one thread; `view` gives what any other thread may read."""

    def __init__(self, capacity: int = CAPACITY, slack: int = SLACK) -> None:
        self._capacity, self._slack = capacity, slack
        self._packer = Packer()
        self._entries: list[Entry] = []
        self._forgotten = 0
        self._rules: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._unpack = lru_cache(maxsize=RECENT)(self._packer.unpack)

    def append(self, path: PacketPath) -> None:
        """Take a packet whose way has ended."""
        if len(self._entries) >= self._capacity + self._slack:
            # Views keep the list that they were made of.
            self._forgotten += self._slack
            self._entries = self._entries[self._slack :]
            self._rules.clear()
        rules = rules_of(path)
        entry = entry_of(path, self._rules.setdefault(rules, rules), self._packer.pack(path))
        self._entries.append(entry)

    def view(self) -> LogView:
        """Return the log as it is now."""
        return LogView(self._entries, len(self._entries), self._forgotten, self._unpack)


class LogView(Sequence[PacketPath]):
    """The paths of a log at one moment, unpacked one by one as they are asked for."""

    def __init__(
        self,
        entries: list[Entry],
        count: int,
        forgotten: int,
        unpack: Unpack,
    ) -> None:
        self.entries = entries
        """May be longer than the view."""
        self.forgotten = forgotten
        """Packets that came before the first one and were let go."""
        self._count = count
        self._unpack = unpack

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> PacketPath: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PacketPath]: ...
    def __getitem__(self, index: int | slice) -> PacketPath | Sequence[PacketPath]:
        if isinstance(index, slice):
            return tuple(self[each] for each in range(*index.indices(self._count)))
        place = index + self._count if index < 0 else index
        if not 0 <= place < self._count:
            raise IndexError(index)
        return self._unpack(self.entries[place].packed)

    def __iter__(self) -> Iterator[PacketPath]:
        return (self[index] for index in range(self._count))
