"""The packets that are marked to be compared."""

from __future__ import annotations

from collections.abc import Mapping

LETTERS = "AB"
"""What marked packets are called."""


class Marks:
    """At most two packets, by their ids."""

    def __init__(self) -> None:
        self._numbers: list[int] = []

    def turn(self, number: int) -> None:
        """Mark a packet, or take its mark away; the third one drives the first out."""
        if number in self._numbers:
            self._numbers.remove(number)
        else:
            self._numbers = [*self._numbers, number][-len(LETTERS) :]

    @property
    def letters(self) -> Mapping[int, str]:
        """What each marked packet is called."""
        return dict(zip(self._numbers, LETTERS, strict=False))

    def compared(self, selected: int | None) -> tuple[int, ...]:
        """Return the packets to compare: the marked ones, or one of them and the selected one."""
        numbers = tuple(self._numbers)
        if len(numbers) == 1 and selected is not None and selected not in numbers:
            return (*numbers, selected)
        return numbers
