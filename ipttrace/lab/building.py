"""What the runner needs of whoever builds labs; `ipttrace.system.lab_builder` implements it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ipttrace.lab.lab_probe import Change
from ipttrace.lab.topology import Topology


class RunningLab(Protocol):
    """A lab that is up."""

    @property
    def namespaces(self) -> Mapping[str, str]:
        """The real name of each namespace of the lab, by its name in the lab."""
        ...

    def change(self, change: Change, *path: str | int) -> None:
        """Make something different in one namespace; `path` is the change's place in the file."""
        ...

    def refused(self, namespace: str, words: Sequence[str]) -> str | None:
        """Run a program's command in a namespace; return its complaint, None if it is accepted."""
        ...

    def keep(self) -> None:
        """Let the lab stay up when this process ends."""
        ...

    def down(self) -> Sequence[str]:
        """Take everything back; return warnings.  May be called more than once."""
        ...


class TopologyBuilder(Protocol):
    """Builds the namespaces of a lab."""

    def up(self, topology: Topology, backend: str) -> RunningLab:
        """Build it for a run on `backend` (a `LabBackend`); on an error nothing stays behind."""
        ...
