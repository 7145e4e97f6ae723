"""The box-drawing characters of a picture as lines, so that no font is needed to join them.

What a character draws is said by its name in the Unicode standard (block Box Drawing, U+2500):
BOX DRAWINGS HEAVY VERTICAL AND LEFT.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

FIRST, LAST = "\u2500", "\u257f"


class Weight(StrEnum):
    """How a line is drawn."""

    LIGHT = "light"
    HEAVY = "heavy"
    DOUBLE = "double"
    DASHED = "dashed"


SIDES = {
    "LEFT": ("left",),
    "RIGHT": ("right",),
    "UP": ("up",),
    "DOWN": ("down",),
    "HORIZONTAL": ("left", "right"),
    "VERTICAL": ("up", "down"),
}


@dataclass(frozen=True, slots=True)
class Stroke:
    """What one character draws: from the middle of its cell to these sides."""

    weight: Weight
    sides: frozenset[str]
    """Of `left`, `right`, `up`, `down`."""


@cache
def stroke(char: str) -> Stroke | None:
    """Return what a box-drawing character draws; None for others, and for mixed weights."""
    if not FIRST <= char <= LAST:
        return None
    words = unicodedata.name(char).split()[2:]
    weights = {word for word in words if word in ("LIGHT", "HEAVY", "DOUBLE")}
    if len(weights) != 1 or "ARC" in words or "DIAGONAL" in words:
        return None
    weight = Weight.DASHED if "DASH" in words else Weight(weights.pop().lower())
    return Stroke(weight, frozenset(side for word in words for side in SIDES.get(word, ())))
