"""One of our tables while it stands, and what it had counted when it was taken back."""

from __future__ import annotations

from collections.abc import Callable

from ipttrace.system.owner_table import OwnerTable

Undo = Callable[[], None]


class HeldTable:
    """The place of one table; what undoes it is noted before it is made."""

    def __init__(self, undo: list[Undo]) -> None:
        self._undo = undo
        self._table: OwnerTable | None = None
        self.hits = self.due = 0
        """What the tables counted that stood here, and what was due since `count_due_anew`."""

    @property
    def table(self) -> OwnerTable | None:
        """The table, if one is there."""
        return self._table

    @property
    def stands(self) -> bool:
        """Whether a table is there."""
        return self._table is not None

    def make(self, table: OwnerTable) -> None:
        """Make `table` and hold it.  What `OwnerTable.create` raises: nothing is held then."""
        self._undo.append(self.close)
        table.create()
        self._table = table

    def count_due_anew(self) -> None:
        """Leave out what was due up to now: the triggers were not complete."""
        if self._table is not None:
            self.due = -self._table.due()

    def quiet(self) -> None:
        """Set no more trace bits; what contains stays."""
        if self._table is not None:
            self._table.quiet()

    def close(self) -> None:
        """Take the table back, and keep its counts; may be called more than once."""
        table, self._table = self._table, None
        if table is None:
            return
        try:
            self.hits += table.hits()
            self.due += table.due()
        finally:
            table.close()
