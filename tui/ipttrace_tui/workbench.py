"""What the screen asks of the machine beside its feed; nothing here knows the screen.

All calls may take long and are made in worker threads; an IptTraceError is shown where it belongs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ipttrace.checkup.finding import Finding
    from ipttrace.inventory import Place
    from ipttrace.lab.parts import LabBackend
    from ipttrace.lab.scenario import Scenario
    from ipttrace.probe import ProbeSpec
    from ipttrace.ruleset import Ruleset
    from ipttrace_tui.feed import Feed


@dataclass(frozen=True, slots=True)
class LabEntry:
    """A lab of the library."""

    name: str
    scenario: Scenario | None
    error: str = ""
    """Why its file cannot be used."""


@dataclass(frozen=True, slots=True)
class LabUp:
    """The lab that is up."""

    name: str
    backend: LabBackend


class Workbench(Protocol):
    """The machine, as far as the screen needs it."""

    def probe(self, spec: ProbeSpec) -> Feed:
        """Return a feed that sends a probe; namespaces may be named as a lab names them."""
        ...

    def lab(self, name: str, backend: LabBackend) -> Feed:
        """Return a feed that builds a lab, unless it is up, and sends its probes.

        The lab stays up until `take_down`, `close`, or another lab is started.
        """
        ...

    def lab_up(self) -> LabUp | None:
        """Return which lab is up."""
        ...

    def take_down(self) -> Sequence[str]:
        """Take the lab down that is up; return warnings."""
        ...

    def read_rules(self, netns: str | None) -> tuple[float, Ruleset]:
        """Read the rules and counters of a namespace; return when (monotonic, seconds) and them."""
        ...

    def places(self) -> Sequence[Place]:
        """Return the namespaces that there are."""
        ...

    def labs(self) -> Sequence[LabEntry]:
        """Return the labs that can be started."""
        ...

    def findings(self, netns: str | None) -> Sequence[Finding]:
        """Return what stands in the way of a trace in a namespace."""
        ...

    def close(self) -> None:
        """Take back all that is left; may be called more than once."""
        ...
