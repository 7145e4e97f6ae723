"""The packet list without a screen: which packets are in it, and which one is selected.

Invariants: `rows` are the places of the packets that pass the filter, in their order, as far as
they were looked at (`looked_at`); `advance` looks at the next ones.  While the table is frozen no
packet beyond `_frozen_at` is looked at.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence

from ipttrace.path import PacketPath
from ipttrace_tui.packet_filter import Known, PacketFilter
from ipttrace_tui.packet_log import Entry, LogView, entry_of, rules_of

STRIDE = 20_000
"""Packets that are looked at before the screen gets its turn: some 10 ms."""

JOINTS = {(False, False): " ", (False, True): "┌", (True, True): "├", (True, False): "└"}
"""By whether the row above and the one below are of the same journey."""


class PacketTable:
    """Follows the snapshots of a run."""

    def __init__(self) -> None:
        self._paths: Sequence[PacketPath] = ()
        self._entries: Sequence[Entry] = ()
        self._count = 0
        self._forgotten = 0
        self._filter = PacketFilter()
        self._matching: array[int] | None = None
        """None without a filter: every packet is in the list."""
        self._looked_at = 0
        self._frozen_at: int | None = None
        self.selected: int | None = None
        """The selected packet's place among all packets."""
        self._kept: PacketPath | None = None
        """The selected packet, after the log has let it go."""
        self.protocols: set[str] = set()
        self.outcomes: set[str] = set()
        self.namespaces: set[str] = set()

    # ---------------------------------------------------------------- what is shown

    def __len__(self) -> int:
        """Return the number of rows."""
        if self._matching is not None:
            return len(self._matching)
        return self._shown

    @property
    def _shown(self) -> int:
        return self._count if self._frozen_at is None else min(self._frozen_at, self._count)

    @property
    def total(self) -> int:
        """All packets that are there, shown or not."""
        return self._count

    @property
    def forgotten(self) -> int:
        """Packets that were let go to bound the memory."""
        return self._forgotten

    @property
    def waiting(self) -> int:
        """Packets that came while the table was frozen."""
        return self._count - self._shown

    @property
    def frozen(self) -> bool:
        """Whether newer packets are kept out of the list."""
        return self._frozen_at is not None

    @property
    def filter(self) -> PacketFilter:
        """What packets must meet."""
        return self._filter

    @property
    def known(self) -> Known:
        """The words that packets have brought with them."""
        return Known(self.protocols, self.namespaces)

    @property
    def done(self) -> bool:
        """Whether every packet was looked at."""
        return self._matching is None or self._looked_at >= self._shown

    def place(self, row: int) -> int:
        """Return the place of a row's packet among all packets."""
        return row if self._matching is None else self._matching[row]

    def entry(self, row: int) -> Entry:
        """Return what the list says of a row."""
        return self._entries[self.place(row)]

    def joined(self, row: int) -> str:
        """Return the stroke that joins a row to its neighbours: legs of one journey."""
        journey, last = self.entry(row).journey, len(self) - 1
        above = row > 0 and self.entry(row - 1).journey == journey
        below = row < last and self.entry(row + 1).journey == journey
        return JOINTS[above, below]

    @property
    def cursor(self) -> int | None:
        """The row of the selected packet, None if it is not in the list."""
        if self.selected is None:
            return None
        if self._matching is None:
            return self.selected if self.selected < self._shown else None
        row = bisect_left(self._matching, self.selected)
        there = row < len(self._matching) and self._matching[row] == self.selected
        return row if there else None

    @property
    def path(self) -> PacketPath | None:
        """The selected packet, also where the log has let it go."""
        return self._kept if self.selected is None else self._paths[self.selected]

    def path_of(self, number: int) -> PacketPath | None:
        """Return the packet with an id."""
        place = self._find(number)
        return None if place is None else self._paths[place]

    def _find(self, number: int) -> int | None:
        """Ids rise almost everywhere: the place is where it would be if none were left out."""
        guess = number - 1 - self._forgotten
        if 0 <= guess < self._count and self._entries[guess].id == number:
            return guess
        return next((n for n in range(self._count) if self._entries[n].id == number), None)

    # ---------------------------------------------------------------- what changes it

    def use(self, paths: Sequence[PacketPath]) -> bool:
        """Take the paths of a new snapshot; tell whether they only continue those before."""
        before, last = self.path, self._last_frozen
        grown = self._use_log(paths) if isinstance(paths, LogView) else self._use_paths(paths)
        self._paths = paths
        if grown:
            return True
        self._looked_at = 0
        if self._matching is not None:
            self._matching = array("I")
        if self._frozen_at is not None:
            place = self._find(last) if last is not None else None
            self._frozen_at = place + 1 if place is not None else 0
        self.selected = self._find(before.id) if before is not None else None
        let_go = before is not None and self.selected is None and self._forgotten > 0
        self._kept = before if let_go else None
        return False

    @property
    def _last_frozen(self) -> int | None:
        """The id of the last packet that a frozen table shows."""
        return self._entries[self._shown - 1].id if self.frozen and self._shown else None

    def _use_log(self, view: LogView) -> bool:
        grown = isinstance(self._paths, LogView) and view.entries is self._paths.entries
        self._note(view.entries, self._count if grown else 0, len(view))
        self._entries, self._count, self._forgotten = view.entries, len(view), view.forgotten
        return grown

    def _use_paths(self, paths: Sequence[PacketPath]) -> bool:
        old = self._paths if not isinstance(self._paths, LogView) else ()
        same = 0
        for before, after in zip(old, paths, strict=False):
            if before is not after:
                break
            same += 1
        kept = list(self._entries[:same])
        self._entries = [*kept, *(entry_of(path, rules_of(path)) for path in paths[same:])]
        self._count, self._forgotten = len(paths), 0
        self._note(self._entries, same, self._count)
        return same == len(old) and same > 0

    def _note(self, entries: Sequence[Entry], start: int, stop: int) -> None:
        for index in range(start, stop):
            self.protocols.add(entries[index].protocol)
            self.outcomes.add(entries[index].outcome)
            if (netns := entries[index].netns) is not None:
                self.namespaces.add(netns)

    def use_filter(self, wanted: PacketFilter) -> None:
        """Show only packets that pass; `advance` looks for them."""
        self._filter = wanted
        self._matching = array("I") if wanted else None
        self._looked_at = 0

    def freeze(self, *, on: bool) -> None:
        """Keep newer packets out of the list, or let them in."""
        self._frozen_at = self._count if on else None

    def advance(self, most: int = STRIDE) -> None:
        """Look at the next packets, at most so many."""
        if self._matching is None:
            return
        stop = min(self._shown, self._looked_at + most)
        passes, entries = self._filter.passes, self._entries
        self._matching.extend(n for n in range(self._looked_at, stop) if passes(entries[n]))
        self._looked_at = stop

    def select_row(self, row: int) -> None:
        """Select a row's packet."""
        self.selected, self._kept = self.place(row), None

    def select_id(self, number: int) -> bool:
        """Select a packet by its id; tell whether it is there."""
        place = self._find(number)
        self.selected = place if place is not None else self.selected
        return place is not None
