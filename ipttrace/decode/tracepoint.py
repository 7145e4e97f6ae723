"""Tracepoint events as the ring buffer holds them (tracefs: `format` files, `trace_pipe_raw`).

Forms: Documentation/trace/ring-buffer-map.rst, the files `events/header_page` and `header_event`;
struct ring_buffer_event in include/linux/ring_buffer.h.  Offsets of fields and names of numbers
differ between kernels: both are read from the kernel's own format files.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from struct import Struct

from ipttrace.event import KernelEvent

FIELD = re.compile(r"\tfield:(.*?)(\w+)(\[\d*\])?;\s+offset:(\d+);\s+size:(\d+);\s+signed:(\d);")
SYMBOLS = re.compile(r"__print_symbolic\(REC->(\w+), (\{.*?\})\)")
SYMBOL = re.compile(r'\{\s*(\w+),\s*"([^"]*)"\s*\}')

NUMBERS = {1: "bB", 2: "hH", 4: "iI", 8: "qQ"}
"""By size in bytes: struct's letters for signed and unsigned numbers."""

SERVES_SOFTIRQ = 0x10
"""TRACE_FLAG_SOFTIRQ (include/linux/trace_events.h): not set where softirqs are only held off."""

PADDING, TIME_EXTEND, TIME_STAMP = 29, 30, 31
"""enum ring_buffer_type; a smaller type_len is the length of the data in words."""

PAGE_HEADER = Struct("=QQ")
COMMIT_MASK = 0xFFFFF
MISSED = 1 << 31
"""RB_MISSED_EVENTS in the commit field (kernel/trace/ring_buffer.c)."""

_HEADER = Struct("=I")
_TWO = Struct("=II")
_KIND = Struct("=H")
"""common_type, the first field of every event; a record is at least 4 bytes long."""


@dataclass(frozen=True, slots=True)
class EventFormat:
    """How one kind of event is written by this kernel."""

    name: str
    id: int
    layout: Struct
    """The fields one after the other, with the gaps between them."""
    names: tuple[str, ...]
    dynamic: frozenset[str] = frozenset()
    """Fields of type __data_loc: their number is the place and the length of a string."""
    symbols: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """Names of numbers, by field."""

    def read(self, data: bytes) -> dict[str, int | str | bytes] | None:
        """Return the fields of one event, None if `data` is too short for them."""
        if len(data) < self.layout.size:
            return None
        values: dict[str, int | str | bytes] = dict(
            zip(self.names, self.layout.unpack_from(data), strict=True)
        )
        for name in self.dynamic:
            values[name] = _string(data, values[name])
        for name, known in self.symbols.items():
            number = values[name]
            if isinstance(number, int):
                values[name] = known.get(number, str(number))
        return values


def _string(data: bytes, location: int | str | bytes) -> str:
    if not isinstance(location, int):
        return ""
    start, length = location & 0xFFFF, location >> 16
    return data[start : start + length].split(b"\0")[0].decode(errors="replace")


def parse_format(text: str) -> EventFormat | None:
    """Return what a `format` file says, None if it is none."""
    name = re.search(r"^name: (\S+)$", text, re.MULTILINE)
    number = re.search(r"^ID: (\d+)$", text, re.MULTILINE)
    if name is None or number is None:
        return None
    letters, names, dynamic, at = "=", [], set(), 0
    for kind, word, array, offset, size, signed in FIELD.findall(text):
        if int(offset) < at:
            continue
        letter = _letters(array, int(size), signed == "1")
        letters += f"{int(offset) - at}x{letter}"
        at = int(offset) + int(size)
        names.append(word)
        if "__data_loc" in kind:
            dynamic.add(word)
    symbols = _symbols(text)
    return EventFormat(
        name[1],
        int(number[1]),
        Struct(letters),
        tuple(names),
        frozenset(dynamic),
        {word: known for word, known in symbols.items() if word in names and known},
    )


def _letters(array: str, size: int, signed: bool) -> str:
    if array.strip("[]") or size not in NUMBERS:
        return f"{size}s"
    return NUMBERS[size][not signed]


def _symbols(text: str) -> dict[str, dict[int, str]]:
    """Return the names of numbers; those that the kernel prints by other names are left out."""
    found: dict[str, dict[int, str]] = {}
    for word, table in SYMBOLS.findall(text):
        pairs = {int(n, 0): name for n, name in SYMBOL.findall(table) if n[0].isdigit()}
        found[word] = pairs
    return found


@dataclass(frozen=True, slots=True)
class Page:
    """What one read of `trace_pipe_raw` returned."""

    events: tuple[KernelEvent, ...]
    missed: bool
    """Whether events before these were overwritten."""
    undecoded: int = 0


def decode_page(
    data: bytes, formats: Mapping[int, EventFormat], cpu: int, epoch: float = 0.0
) -> Page:
    """Return the events of one sub-buffer of processor `cpu`; kinds without a format are left out.

    `epoch` is when the trace clock was 0, in seconds since 1970.  Bytes that are not of the
    promised form end the page and are counted.
    """
    if len(data) < PAGE_HEADER.size:
        return Page((), missed=False, undecoded=1)
    begin, commit = PAGE_HEADER.unpack_from(data)
    end = PAGE_HEADER.size + (commit & COMMIT_MASK)
    undecoded = int(end > len(data))
    events: list[KernelEvent] = []
    for time, payload in _records(data[:end], begin):
        if payload is None:
            undecoded += 1
            continue
        known = formats.get(_KIND.unpack_from(payload)[0])
        if known is None:
            continue
        fields = known.read(payload)
        if fields is None:
            undecoded += 1
            continue
        events.append(_event(known, fields, cpu, epoch + time * 1e-9))
    return Page(tuple(events), bool(commit & MISSED), undecoded)


class InOrder:
    """Puts the events of all processors into one order, from reading to reading.

    While the last processors' are read the first ones write on: what is later than the begin of a
    reading comes with the next one.
    """

    def __init__(self) -> None:
        self._later: list[KernelEvent] = []

    def take(self, events: Sequence[KernelEvent], begin: float) -> list[KernelEvent]:
        """Return these events and those kept, in the order of time, up to `begin`."""
        known = sorted([*self._later, *events], key=_time)
        end = bisect_right(known, begin, key=_time)
        self._later = known[end:]
        return known[:end]


def _time(event: KernelEvent) -> float:
    return event.time


def _event(
    known: EventFormat, fields: dict[str, int | str | bytes], cpu: int, time: float
) -> KernelEvent:
    flags, pid = fields.get("common_flags", 0), fields.get("common_pid", 0)
    served = isinstance(flags, int) and bool(flags & SERVES_SOFTIRQ)
    return KernelEvent(time, cpu, pid if isinstance(pid, int) else 0, served, known.name, fields)


def _records(data: bytes, time: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield time in nanoseconds and data of each record; None where the bytes make no sense."""
    at, end = PAGE_HEADER.size, len(data)
    while at + 4 <= end:
        (head,) = _HEADER.unpack_from(data, at)
        kind, delta = head & 0x1F, head >> 5
        if 0 < kind < PADDING:
            time += delta
            size = 4 + kind * 4
            yield time, data[at + 4 : at + size] if at + size <= end else None
            at += size
            continue
        if at + 8 > end or (kind == PADDING and not delta):
            return
        extra = _TWO.unpack_from(data, at)[1]
        if kind == TIME_EXTEND:
            time += delta + (extra << 27)
            at += 8
        elif kind == TIME_STAMP:
            time = (time & ~((1 << 59) - 1)) | (extra << 27) | delta
            at += 8
        else:
            time += delta
            size = 4 + extra
            if extra < 4 or at + size > end:
                yield time, None
                return
            if kind == 0:
                yield time, data[at + 8 : at + size]
            at += size
