"""The runner: always down, in the lab's own names, and every difference in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from ipttrace.errors import KernelError, UsageError
from ipttrace.lab.lab_probe import Change
from ipttrace.lab.runner import ProbeRun, Tracer, run_lab
from ipttrace.lab.scenario import Scenario, parse_scenario
from ipttrace.lab.topology import Topology
from ipttrace.netfilter import Backend
from ipttrace.path import Diagnosis, Outcome, PacketPath, Role
from ipttrace.probe import ProbeSpec
from ipttrace.result import TraceResult
from ipttrace.ruleset import Ruleset
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
    complaint: str | None = "not here"
    done: list[object] = field(default_factory=list)

    def change(self, change: Change, *path: str | int) -> None:
        self.done.append((change.namespace, path))

    def refused(self, namespace: str, words: Sequence[str]) -> str | None:
        self.done.append((namespace, words))
        return self.complaint

    def keep(self) -> None:
        self.done.append("kept")

    def down(self) -> Sequence[str]:
        self.downs += 1
        return ["one name was left"]


RULES = Ruleset({})


@dataclass
class FakeBuilder:
    lab: FakeLab = field(
        default_factory=lambda: FakeLab({"client": "ipt-1-client", "server": "ipt-1-server"})
    )
    built: list[tuple[Topology, str]] = field(default_factory=list)

    def up(self, topology: Topology, backend: str) -> FakeLab:
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
        found = result(path(), path(netns="elsewhere", role=Role.OBSERVED))
        return replace(found, rulesets={"ipt-1-server": RULES, "elsewhere": RULES})

    run = run_lab(scenario(), Backend.LEGACY, FakeBuilder(), trace)
    assert asked[0].netns == ("ipt-1-client", "ipt-1-server")
    assert asked[0].from_netns == "ipt-1-client"
    assert [p.netns for p in run.probes[0].result.paths] == ["server", "elsewhere"]
    assert list(run.probes[0].result.rulesets) == ["server", "elsewhere"]


def test_what_only_events_prove_is_left_out_where_there_are_none() -> None:
    text = REFUSING.replace("    backends: [both]\n", "    needs-events: true\n")
    builder = FakeBuilder()
    lab = parse_scenario(text, "x")
    run = run_lab(lab, "legacy", builder, answering(path()), events=False)
    assert [each.probe.name for each in run.probes] == ["before"]
    assert run.left_out == ("after",)
    assert "after was left out: only root" in run.notices[0]
    assert run.notices[1:] == run.warnings
    assert ("server", ("probes", 1, "change", 0)) in builder.lab.done
    whole = run_lab(lab, "legacy", FakeBuilder(), answering(path()))
    assert [each.probe.name for each in whole.probes] == ["before", "after"]


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


REFUSING = """
name: refusing
title: One command, two probes
backends: [legacy, both]
namespaces: {server: {}}
refused:
  - {namespace: server, run: iptables -A INPUT -j NOWHERE, says: Not Here}
  - {namespace: server, run: nft list ruleset, backends: [both]}
probes:
  - name: before
    send: tcp 198.51.100.1:8445
    netns: [server]
    expect: {outcome: delivered, legacy: {outcome: dropped}}
  - name: after
    send: tcp 198.51.100.1:8445
    netns: [server]
    backends: [both]
    change: [{namespace: server, iptables: [-F]}]
    expect: {outcome: dropped}
"""


def test_what_must_be_refused_is_tried_before_the_probes() -> None:
    builder = FakeBuilder()
    run = run_lab(parse_scenario(REFUSING, "x"), "legacy", builder, answering(path()))
    assert builder.lab.done == [("server", ("iptables", "-A", "INPUT", "-j", "NOWHERE"))]
    assert [refusal.complaint for refusal in run.refusals] == ["not here"]
    assert [probe.probe.name for probe in run.probes] == ["before"]
    assert run.as_expected


@pytest.mark.parametrize(
    ("complaint", "words"),
    [
        (None, "but it was accepted"),
        ("unknown option", "that says 'Not Here', got 'unknown option'"),
    ],
)
def test_a_command_that_is_not_refused_so_fails_the_lab(complaint: str | None, words: str) -> None:
    builder = FakeBuilder()
    builder.lab.complaint = complaint
    run = run_lab(parse_scenario(REFUSING, "x"), "legacy", builder, answering(path()))
    assert not run.as_expected
    assert words in run.refusals[0].differences[0]


def test_changes_come_before_their_probe() -> None:
    builder = FakeBuilder()
    run = run_lab(parse_scenario(REFUSING, "x"), "both", builder, answering(path()))
    assert builder.lab.done[2:] == [("server", ("probes", 1, "change", 0))]
    assert [probe.as_expected for probe in run.probes] == [False, True]


def test_a_lab_that_is_kept_does_not_come_down() -> None:
    builder = FakeBuilder()
    run_lab(scenario(), "legacy", builder, answering(path()), keep=True)
    assert builder.lab.done == ["kept"]
    assert builder.lab.downs == 0
