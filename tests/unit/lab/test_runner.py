"""The runner: always down, in the lab's own names, and every difference in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from ipttrace.errors import KernelError, UsageError
from ipttrace.lab.runner import ProbeRun, Tracer, run_lab
from ipttrace.lab.scenario import Scenario, parse_scenario
from ipttrace.lab.topology import Topology
from ipttrace.netfilter import Backend
from ipttrace.path import Diagnosis, Outcome, PacketPath, Role, TraceResult
from ipttrace.probe import ProbeSpec
from tests.builders import result, tcp

SCENARIO = """
name: one
title: One probe
backends: [legacy]
namespaces: {client: {}, server: {}}
probes:
  - name: local
    send: tcp 198.51.100.1:8445
    from: client
    netns: [client, server]
    expect: {outcome: dropped, cause: mark-drop, client: TIMEOUT}
"""


@dataclass
class FakeLab:
    namespaces: Mapping[str, str]
    downs: int = 0

    def down(self) -> Sequence[str]:
        self.downs += 1
        return ["one name was left"]


@dataclass
class FakeBuilder:
    lab: FakeLab = field(
        default_factory=lambda: FakeLab({"client": "ipt-1-client", "server": "ipt-1-server"})
    )
    built: list[tuple[Topology, Backend]] = field(default_factory=list)

    def up(self, topology: Topology, backend: Backend) -> FakeLab:
        self.built.append((topology, backend))
        return self.lab


def scenario() -> Scenario:
    return parse_scenario(SCENARIO, "one.yaml")


def path(
    netns: str = "ipt-1-server",
    outcome: Outcome = Outcome.DROPPED,
    cause: str | None = "mark-drop",
    role: Role = Role.PROBE,
) -> PacketPath:
    diagnosis = Diagnosis(cause, "") if cause else None
    return PacketPath(1, netns, role, 0.0, tcp(), outcome=outcome, diagnosis=diagnosis)


def answering(*paths: PacketPath, client: tuple[str, ...] = ("TIMEOUT",)) -> Tracer:
    return lambda spec: result(*paths, client=client)


def test_as_expected() -> None:
    builder, told = FakeBuilder(), list[ProbeRun]()
    run = run_lab(scenario(), Backend.LEGACY, builder, answering(path()), told.append)
    assert run.as_expected
    assert told == list(run.probes)
    assert builder.built == [(scenario().topology, Backend.LEGACY)]
    assert builder.lab.downs == 1
    assert run.warnings == ("one name was left",)


def test_names_are_real_outside_and_the_labs_own_inside() -> None:
    asked: list[ProbeSpec] = []

    def trace(spec: ProbeSpec) -> TraceResult:
        asked.append(spec)
        return result(path(), path(netns="elsewhere", role=Role.OBSERVED))

    run = run_lab(scenario(), Backend.LEGACY, FakeBuilder(), trace)
    assert asked[0].netns == ("ipt-1-client", "ipt-1-server")
    assert asked[0].from_netns == "ipt-1-client"
    assert [p.netns for p in run.probes[0].result.paths] == ["server", "elsewhere"]


NOT_SEEN = "no packet of the probe was seen in server"


@pytest.mark.parametrize(
    ("paths", "client", "words"),
    [
        ([path(outcome=Outcome.LOST)], "TIMEOUT", "outcome: expected dropped, got lost"),
        ([path(cause=None)], "TIMEOUT", "cause: expected mark-drop, got none"),
        ([path(), path(cause="policy")], "TIMEOUT", "cause: expected mark-drop, got policy"),
        ([path()], "CONNECTED", "client: expected TIMEOUT, got CONNECTED"),
        ([path()], None, "client: expected TIMEOUT, got nothing"),
        ([path(netns="ipt-1-client")], "TIMEOUT", NOT_SEEN),
        ([path(role=Role.REPLY)], "TIMEOUT", NOT_SEEN),
    ],
)
def test_differences(paths: list[PacketPath], client: str | None, words: str) -> None:
    trace = answering(*paths, client=(client,) if client else ())
    run = run_lab(scenario(), Backend.LEGACY, FakeBuilder(), trace)
    assert not run.as_expected
    assert run.probes[0].differences == (words,)


@pytest.mark.parametrize("error", [KernelError("no"), KeyboardInterrupt()])
def test_down_whatever_happens(error: BaseException) -> None:
    builder = FakeBuilder()

    def trace(spec: ProbeSpec) -> TraceResult:
        raise error

    with pytest.raises(type(error)):
        run_lab(scenario(), Backend.LEGACY, builder, trace)
    assert builder.lab.downs == 1


def test_unsupported_backend_builds_nothing() -> None:
    builder = FakeBuilder()
    with pytest.raises(UsageError, match=r"cannot run lab one on nft: .*Choose legacy\."):
        run_lab(scenario(), Backend.NFT, builder, answering())
    assert builder.built == []
