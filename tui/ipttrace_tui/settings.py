"""The configuration file: what the user prefers, read with care and never required."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ipttrace.decode.text import clean_text
from ipttrace.request import Trigger
from ipttrace_tui.own_files import Unusable, config_home, read_own

LAYOUTS = ("auto", "narrow", "normal", "wide")
BREAKPOINTS = {
    "auto": [(0, "-narrow"), (110, "-normal"), (160, "-wide")],
    "narrow": [(0, "-narrow")],
    "normal": [(0, "-normal")],
    "wide": [(0, "-wide")],
}
"""Columns from which the panes are laid out so."""
TRIGGERS = ("auto", *(str(trigger) for trigger in Trigger))


@dataclass(frozen=True, slots=True)
class Settings:
    """What config.toml can say; each field is a key of it."""

    theme: str | None = None
    layout: str = "auto"
    """`auto` lays the panes out by the terminal's width."""
    trigger: str = "auto"
    """What a probe is traced with, unless told otherwise."""
    limit: int | None = 20
    """Packets a second that a watch traces at most; None (`none` in the file) for all."""


def config_path() -> Path:
    """Return where the configuration file is."""
    return config_home() / "config.toml"


def load_settings(path: Path | None = None) -> tuple[Settings, tuple[str, ...]]:
    """Return the settings and what is to be said about them; raises nothing."""
    file = path or config_path()
    try:
        text = read_own(file)
    except Unusable as error:
        return Settings(), (clean_text(str(error)),)
    return (Settings(), ()) if text is None else parse_settings(text, clean_text(str(file)))


def parse_settings(text: str, file: str) -> tuple[Settings, tuple[str, ...]]:
    """Return the settings of a file's text; a key that cannot be used is named and left out."""
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        return Settings(), (f"{file} is ignored: not TOML: {clean_text(str(error))}",)
    settings, notices = Settings(), list[str]()
    known = {field.name for field in fields(Settings)}
    for key, value in values.items():
        if key not in known:
            keys = ", ".join(sorted(known))
            notices.append(f"{file}: unknown key {clean_text(key)}; known are {keys}")
            continue
        try:
            settings = replace(settings, **{key: READERS[key](value)})
        except ValueError as error:
            notices.append(f"{file}: {key} is ignored: {clean_text(str(error))}")
    return settings, tuple(notices)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("it must be a text in quotes")  # noqa: TRY004
    return value


def _one_of(words: tuple[str, ...]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(f"it must be one of {', '.join(words)}")
        return str(value)

    return read


def _limit(value: Any) -> int | None:
    """Return packets a second of `20`, `"20/s"`, or None of `"none"`."""
    if value == "none":
        return None
    digits = str(value).removesuffix("/s") if not isinstance(value, bool) else ""
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 8 and int(digits) > 0):
        raise ValueError('it must be packets a second, as in "20/s", or "none"')
    return int(digits)


READERS: Mapping[str, Callable[[Any], Any]] = {
    "theme": _text,
    "layout": _one_of(LAYOUTS),
    "trigger": _one_of(TRIGGERS),
    "limit": _limit,
}
