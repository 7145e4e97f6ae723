"""What the keys do, in words: for the help, the command palette and the key bar."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.keys import format_key
from textual.screen import Screen

NAMES = {
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
    "pageup": "pgup",
    "pagedown": "pgdn",
    "escape": "esc",
    "enter": "enter",
    "space": "space",
    "question_mark": "?",
    "slash": "/",
    "colon": ":",
}


@dataclass(frozen=True, slots=True)
class KeyWords:
    """A binding in words."""

    keys: str
    title: str


def key_words(binding: Binding) -> KeyWords:
    """Return a binding's keys and all that it says of itself."""
    keys = " ".join(key_name(key) for key in binding.key.split(","))
    return KeyWords(keys, binding.tooltip or binding.description)


def key_name(key: str) -> str:
    """Return how a key is written: `↑`, `ctrl+p`, `G`."""
    key = key.strip()
    return NAMES.get(key) or (key if "+" in key else format_key(key))


def bindings_of(kind: type[DOMNode]) -> list[Binding]:
    """Return the bindings that a class itself declares."""
    declared: list[BindingType] = kind.__dict__.get("BINDINGS", [])
    return [each for each in declared if isinstance(each, Binding)]


NO_COMMANDS = frozenset(
    {
        *("screen.copy_text", "app.help_quit"),
        *("move", "page", "first", "last", "roll", "roll_page", "command_palette"),
        *("app.focus_next", "app.focus_previous", "turn"),
    }
)
"""What Textual binds on every screen, and what moves about: no commands."""

Offer = tuple[Binding, DOMNode, KeyWords]
"""Something that can be done, where, and in words."""


def described_bindings(screen: Screen[Any]) -> Iterator[Offer]:
    """Yield what can be done on a screen now, each thing once, with where it is done."""
    said = set[str]()
    for active in screen.active_bindings.values():
        binding = active.binding
        if binding.action.partition("(")[0] in NO_COMMANDS:
            continue
        if binding.description and binding.action not in said:
            said.add(binding.action)
            yield binding, active.node, key_words(binding)
