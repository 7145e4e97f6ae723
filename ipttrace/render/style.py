"""Colours for a terminal: few, and never the only carrier of a meaning (SGR codes of ECMA-48)."""

from __future__ import annotations

from enum import Enum

RESET = "\x1b[0m"


class Style(Enum):
    """What a piece of text is to its reader."""

    PLAIN = ""
    HEAD = "\x1b[1m"
    GOOD = "\x1b[1;32m"
    BAD = "\x1b[1;31m"
    OPEN = "\x1b[1;33m"
    CHANGE = "\x1b[36m"
    FAINT = "\x1b[2m"


def paint(text: str, style: Style, color: bool) -> str:
    """Return `text` in its colour, or as it is without `color`."""
    if not color or style is Style.PLAIN or not text:
        return text
    return f"{style.value}{text}{RESET}"
