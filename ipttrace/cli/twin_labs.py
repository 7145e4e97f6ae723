"""Builds labs in which namespaces have the state of other hosts, and twins of whole hosts."""

from __future__ import annotations

from pathlib import Path

from ipttrace.cli.compose import Note
from ipttrace.lab.building import RunningLab, TopologyBuilder
from ipttrace.lab.topology import Topology
from ipttrace.system.lab_builder import LabBuilder
from ipttrace.system.twins import AS_IS, Twin, read_twin, resolve_twins


class TwinLabs:
    """Implements `lab.building.TopologyBuilder`: gives namespaces with `twin:` their state."""

    def __init__(self, builder: TopologyBuilder, note: Note) -> None:
        self._builder = builder
        self._note = note

    def up(self, topology: Topology, backend: str) -> RunningLab:
        """Build the lab; what of a twin could not be reproduced is told."""
        if any(host.twin is not None for host in topology.namespaces.values()):
            twin = resolve_twins(topology, backend)
            tell_missing(twin, self._note)
            topology = twin.topology
        return self._builder.up(topology, backend)


class Twins:
    """Implements `lab.checking.TwinBuilder`."""

    def __init__(self, note: Note) -> None:
        self._note = note

    def up(self, file: Path, backend: str) -> RunningLab:
        """Build the twin of a host; what could not be reproduced is told, line by line."""
        twin = read_twin(str(file), backend or AS_IS)
        tell_missing(twin, self._note)
        return LabBuilder().up(twin.topology, twin.backend)


def tell_missing(twin: Twin, note: Note) -> None:
    """Say what stands in for something else, and what of the host the twin lacks."""
    for text in twin.notes:
        note(text)
    for missing in twin.missing:
        note(f"not reproduced: {missing}")
