"""What of a real host a twin does not have, each with its place and the reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ipttrace.decode.text import clean_text

LONGEST = 300
"""Characters of a line that are shown."""


@dataclass(frozen=True, slots=True)
class Missing:
    """One thing that could not be reproduced."""

    text: str
    """As the source has it; it may hold anything."""
    reason: str
    source: str = ""
    """The file, or the program that wrote it."""
    line: int | None = None
    """From 1."""

    @property
    def place(self) -> str:
        """`rules.v4 line 12`, `ip route`, or nothing."""
        return f"{self.source} line {self.line}" if self.line is not None else self.source

    def __str__(self) -> str:
        text = self.text if len(self.text) <= LONGEST else f"{self.text[:LONGEST]}..."
        words = (self.place, text, self.reason)
        return clean_text(": ".join(word for word in words if word))


def in_order(missing: Iterable[Missing]) -> tuple[Missing, ...]:
    """Return them by source, each source's by line; sources as they come."""
    given = list(missing)
    sources = {each.source: None for each in given}
    rank = {source: number for number, source in enumerate(sources)}
    return tuple(sorted(given, key=lambda each: (rank[each.source], each.line or 0)))
