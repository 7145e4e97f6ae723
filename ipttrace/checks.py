"""What came of a check: its cases, where each differs from what was expected, and the rules met."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ipttrace.path import Hop
from ipttrace.result import TraceResult
from ipttrace.ruleset import Rule


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as expected."""

    field: str
    """As in the file: `outcome cause rule nat.source nat.destination crosses crosses-not client`;
    `packet` if none was seen."""
    expected: str
    actual: str
    path: int | None = None
    """The id of the packet's path; None where it is not about one packet."""

    def __str__(self) -> str:
        if self.field == "packet":
            return f"no packet of the probe was seen in {self.expected}"
        if self.field == "refused":
            return self.actual
        if self.field == "crosses":
            return f"crosses: expected {self.expected}, which was {self.actual}"
        return f"{self.field}: expected {self.expected}, got {self.actual}"


class Agreement(StrEnum):
    """How a step of the actual way stands to what was expected of it."""

    MET = "="
    PARTS = "!"
    FREE = ""
    """Nothing was expected of it."""


@dataclass(frozen=True, slots=True)
class Step:
    """What was expected beside what happened, at one place of a packet's way."""

    agreement: Agreement
    expected: str = ""
    hop: Hop | None = None
    """What happened there; None if `actual` says it."""
    topic: str = ""
    """What a step without a hop is about: `outcome`, `client`."""
    actual: str = ""


class State(StrEnum):
    """What came of a case."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    """It could not be run."""
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Case:
    """One probe of a check on one backend."""

    file: str
    """As the user named it."""
    target: str
    """What was probed: a lab's name, a twin's file, `live`."""
    backend: str
    """Of the run: legacy, nft or both; empty where the host decides."""
    name: str
    state: State
    seconds: float = 0.0
    differences: tuple[Difference, ...] = ()
    steps: tuple[tuple[Step, ...], ...] = ()
    """Expected and actual way of each packet that differs."""
    result: TraceResult | None = None
    message: str = ""
    """Why it was skipped, or could not be run."""
    exit_code: int = 0
    """Of the error, where it could not be run."""

    @property
    def lost(self) -> bool:
        """Whether the kernel lost reports, so that hops may be missing."""
        return self.result is not None and self.result.totals.lost_events > 0


@dataclass(frozen=True, slots=True)
class Coverage:
    """The rules of one namespace, and those that no packet of a probe matched."""

    target: str
    backend: str
    """Of the run; empty where the host decides."""
    netns: str | None
    rules: int
    unmet: tuple[Rule, ...]
    """In the order of the ruleset."""
