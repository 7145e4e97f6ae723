"""A picture of characters as a value: lines of segments, each with the name of its look."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby


class Look(StrEnum):
    """How a segment is meant; the characters say the same, so that colour is never needed."""

    LIT = "lit"
    """The packet was here."""
    DIM = "dim"
    """It was not."""
    DEAD = "dead"
    """It ended here."""
    CHANGED = "changed"
    """It was changed here."""
    SELECTED = "selected"
    """The hop that the reader looks at."""
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Segment:
    """Characters of one look; one character is one column."""

    text: str
    look: Look


Line = tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """Lines from top to bottom, without trailing spaces."""

    lines: tuple[Line, ...]

    @property
    def width(self) -> int:
        """Columns of the longest line."""
        return max((sum(len(s.text) for s in line) for line in self.lines), default=0)

    @property
    def height(self) -> int:
        """Lines."""
        return len(self.lines)

    def plain(self) -> str:
        """Return the characters alone."""
        return "\n".join("".join(s.text for s in line) for line in self.lines)


Cell = tuple[str, Look]
BLANK: Cell = (" ", Look.PLAIN)


@dataclass(slots=True)
class Canvas:
    """A grid to draw on; what is drawn later covers what was drawn earlier."""

    cells: dict[tuple[int, int], Cell] = field(default_factory=dict)
    """(row, column) to character and look."""

    def text(self, row: int, column: int, text: str, look: Look) -> None:
        """Write `text` to the right of (row, column)."""
        for offset, char in enumerate(text):
            self.cells[row, column + offset] = (char, look)

    def down(self, column: int, rows: range, char: str, look: Look) -> None:
        """Write `char` in each of `rows`."""
        for row in rows:
            self.cells[row, column] = (char, look)

    def free(self, row: int, column: int, length: int) -> bool:
        """Return whether `length` columns and one on each side are empty."""
        return column >= 0 and not any(
            (row, each) in self.cells for each in range(column - 1, column + length + 1)
        )

    def note(self, row: int, column: int, text: str, look: Look, width: int) -> None:
        """Write `text` as near to `column` as is free within `width`, cut if it must be.

        It covers nothing, so all else is drawn before.
        """
        for length in range(min(len(text), width), 3, -1):
            cut = text if length == len(text) else text[: length - 1] + "…"
            starts = sorted(range(width - length + 1), key=lambda start: abs(start - column))
            place = next((s for s in starts if self.free(row, s, length)), None)
            if place is not None:
                self.text(row, place, cut, look)
                return

    def picture(self) -> Picture:
        """Return what was drawn."""
        height = 1 + max((row for row, _ in self.cells), default=-1)
        return Picture(tuple(self._line(row) for row in range(height)))

    def _line(self, row: int) -> Line:
        length = 1 + max((column for r, column in self.cells if r == row), default=-1)
        cells = [self.cells.get((row, column), BLANK) for column in range(length)]
        return tuple(
            Segment("".join(char for char, _ in run), look)
            for look, run in groupby(cells, key=lambda cell: cell[1])
        )
