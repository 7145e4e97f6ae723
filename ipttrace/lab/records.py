"""Labs and their runs as lines of JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ipttrace.lab.missing import Missing
from ipttrace.lab.runner import LabRun
from ipttrace.lab.scenario import Scenario
from ipttrace.lab.topology import Topology
from ipttrace.render import lab_record_types as types
from ipttrace.render.record_types import SCHEMA
from ipttrace.render.records import encoded
from ipttrace.render.twin_record_types import MissingFields, TwinRecord


def lab_record(scenario: Scenario, *, up: bool) -> bytes:
    """Return the line of one lab."""
    claims = (
        types.ClaimFields(each.claim, each.truth.value, each.why, each.probes)
        for each in scenario.claims
    )
    return encoded(
        types.LabRecord(
            schema=SCHEMA,
            record="lab",
            name=scenario.name,
            title=scenario.title,
            group=scenario.group,
            about=scenario.about,
            backends=tuple(str(backend) for backend in scenario.backends),
            namespaces=tuple(scenario.namespaces),
            claims=tuple(claims),
            probes=tuple(probe.name for probe in scenario.probes),
            up=up,
        )
    )


def up_record(name: str, backend: str, topology: Topology, real_names: Mapping[str, str]) -> bytes:
    """Return the line of a lab that was brought up."""
    namespaces = (
        types.NamespaceFields(each, real, tuple(_interfaces(topology, each)))
        for each, real in real_names.items()
    )
    return encoded(
        types.LabUpRecord(
            schema=SCHEMA,
            record="lab-up",
            name=name,
            backend=backend,
            namespaces=tuple(namespaces),
        )
    )


def run_record(run: LabRun) -> bytes:
    """Return the line of one run."""
    refusals = ((each.refusal.run, each.differences) for each in run.refusals)
    probes = ((each.probe.name, each.differences) for each in run.probes)
    return encoded(
        types.LabRunRecord(
            schema=SCHEMA,
            record="lab-run",
            lab=run.scenario.name,
            backend=run.backend.value,
            as_expected=run.as_expected,
            error=run.error,
            refusals=tuple(_probe(name, said) for name, said in refusals),
            probes=tuple(_probe(name, said) for name, said in probes),
            warnings=run.notices,
            seconds=round(run.seconds, 3),
        )
    )


def twin_record(file: str, notes: Sequence[str], missing: Iterable[Missing]) -> bytes:
    """Return the line that says how a twin differs from its host."""
    lacks = (MissingFields(each.source, each.line, each.text, each.reason) for each in missing)
    return encoded(
        TwinRecord(
            schema=SCHEMA,
            record="twin",
            file=file,
            notes=tuple(notes),
            missing=tuple(lacks),
        )
    )


def _probe(name: str, differences: Sequence[str]) -> types.LabProbeFields:
    return types.LabProbeFields(name, not differences, tuple(differences))


def _interfaces(topology: Topology, namespace: str) -> list[types.InterfaceFields]:
    ends = [(end.interface, end.addresses) for end in topology.ends_in(namespace)]
    bridges = topology.namespaces[namespace].bridges
    ends += [(name, bridge.addresses) for name, bridge in bridges.items()]
    return [types.InterfaceFields(name, addresses) for name, addresses in ends]
