"""The JSON record of a twin, as types; field names are the file format's."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class MissingFields(Struct, frozen=True):
    """One thing of the host that its twin lacks."""

    source: str
    """The file, or the program that wrote it."""
    line: int | None
    """From 1."""
    text: str
    reason: str


class TwinRecord(Struct, frozen=True):
    """What a twin was made from, before its probes or its namespaces."""

    schema: Literal["ipttrace/1"]
    record: Literal["twin"]
    file: str
    notes: tuple[str, ...]
    """What stands in for something else, and what was concluded from the rules."""
    missing: tuple[MissingFields, ...]


TWIN_RECORDS: tuple[type[Struct], ...] = (TwinRecord,)
