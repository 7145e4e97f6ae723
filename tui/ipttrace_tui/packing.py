"""Paths as few bytes: a hundred thousand packets are to be kept, and are looked at one by one.

A path is a tree of some fifty objects.  Packed it is one object of a few hundred bytes that the
garbage collector need not walk through: what many paths share (rules, chains, words) stands in a
table, once.
"""

from __future__ import annotations

import io
import pickle  # only what this process has packed itself is ever unpacked
from collections.abc import Callable
from dataclasses import fields
from enum import Enum
from operator import attrgetter
from typing import Any

from ipttrace.event import TraceKind
from ipttrace.netfilter import (
    Backend,
    Basis,
    ChainRef,
    Hook,
    PacketFamily,
    RuleRef,
    TableFamily,
    Verdict,
)
from ipttrace.packet import IcmpHeader, PacketSummary
from ipttrace.path import (
    ChainHop,
    Change,
    Decision,
    Diagnosis,
    DropHop,
    Evidence,
    NatHop,
    Outcome,
    PacketPath,
    ResetHop,
    Role,
    RouteHop,
    SocketHop,
    SocketState,
    Strength,
    Unmatched,
    WireHop,
)
from ipttrace.ruleset import Counter, MapElement

RECORDS: tuple[type[Any], ...] = (
    PacketPath,
    PacketSummary,
    IcmpHeader,
    ChainHop,
    NatHop,
    WireHop,
    RouteHop,
    SocketHop,
    DropHop,
    ResetHop,
    Change,
    Counter,
    MapElement,
    RuleRef,
    Diagnosis,
    Evidence,
    Unmatched,
)
WORDS: tuple[type[Enum], ...] = (
    Backend,
    Basis,
    Decision,
    Hook,
    Outcome,
    PacketFamily,
    Role,
    SocketState,
    Strength,
    TableFamily,
    TraceKind,
    Verdict,
)
MOST_SHARED = 50_000
"""Entries of the table; whatever is new after that is packed with its packet."""
SHORT = 12
"""Characters of a text that is not worth an entry."""


def _values_of(kind: type[Any]) -> Callable[[Any], tuple[Any, ...]]:
    names = [field.name for field in fields(kind)]
    getter = attrgetter(*names)
    return getter if len(names) > 1 else lambda value: (getter(value),)


_VALUES = {kind: _values_of(kind) for kind in RECORDS}


class Packer:
    """Packs paths, and unpacks those it has packed; each may be done in a thread of its own."""

    def __init__(self, most_shared: int = MOST_SHARED) -> None:
        self._table: list[Any] = [*RECORDS, *(word for kind in WORDS for word in kind)]
        self._places: dict[Any, int] = {(type(each), each): n for n, each in enumerate(self._table)}
        self._most = len(self._table) + most_shared
        self._sharing = {type, str, ChainRef, *WORDS}

    def pack(self, path: PacketPath) -> bytes:
        """Return a path as bytes."""
        file = io.BytesIO()
        _Pickler(file, self).dump(path)
        return file.getvalue()

    def unpack(self, data: bytes) -> PacketPath:
        """Return the path that `pack` was given."""
        path = _Unpickler(io.BytesIO(data), self._table).load()
        assert isinstance(path, PacketPath)
        return path

    def place(self, value: Any) -> int | None:
        """Return where a value stands in the table, None if it is not to stand there."""
        kind = type(value)
        if kind not in self._sharing or (kind is str and len(value) < SHORT):
            return None
        found = self._places.get((kind, value))
        if found is None and len(self._table) < self._most and kind in (str, ChainRef):
            found = self._places[kind, value] = len(self._table)
            self._table.append(value)
        return found


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, packer: Packer) -> None:
        super().__init__(file, protocol=5)
        self._place = packer.place

    def persistent_id(self, obj: Any) -> int | None:
        return self._place(obj)

    def reducer_override(self, obj: Any) -> Any:
        values = _VALUES.get(type(obj))
        return (type(obj), values(obj)) if values is not None else NotImplemented


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, table: list[Any]) -> None:
        super().__init__(file)
        self._table = table

    def persistent_load(self, pid: Any) -> Any:
        return self._table[pid]
