"""The JSON records of `ipttrace check`, as types; names and nulls are the contract."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from ipttrace.netfilter import Backend, TableFamily

CaseState = Literal["passed", "failed", "error", "skipped"]
RunBackend = Literal["legacy", "nft", "both"]


class DifferenceFields(Struct, frozen=True):
    """One thing that is not as expected; path is the id of the packet's path, where it has one."""

    field: str
    expected: str
    actual: str
    path: int | None


class CheckRecord(Struct, frozen=True):
    """One case of `ipttrace check`; the records of its paths stand before it."""

    schema: Literal["ipttrace/1"]
    record: Literal["check"]
    file: str
    target: str
    """A lab's name, a twin's file, or `live`."""
    backend: RunBackend | None
    """Of the run; null where that is not known."""
    name: str
    state: CaseState
    differences: tuple[DifferenceFields, ...]
    message: str | None
    """Why it was skipped, or could not be run."""
    client: str | tuple[str, ...] | None
    lost_events: int
    warnings: tuple[str, ...]
    seconds: float


class UnmetFields(Struct, frozen=True):
    """A rule that no packet of a probe matched."""

    backend: Backend
    table_family: TableFamily
    table: str
    chain: str
    number: int
    handle: int | None
    rule: str


class CoverageRecord(Struct, frozen=True):
    """How many rules of one namespace the packets of probes matched, and which they did not."""

    schema: Literal["ipttrace/1"]
    record: Literal["coverage"]
    target: str
    backend: RunBackend | None
    netns: str | None
    rules: int
    met: int
    unmet: tuple[UnmetFields, ...]


CHECK_RECORDS: tuple[type[Struct], ...] = (CheckRecord, CoverageRecord)
