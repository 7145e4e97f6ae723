"""What the screen asks of this host: a lab that is held up, probes in it, its rules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ipttrace.cli.workbench import HostWorkbench
from ipttrace.errors import CancelledError, UsageError
from ipttrace.inventory import PlaceKind
from ipttrace.lab.parts import LabBackend
from ipttrace.path import Outcome, Role
from ipttrace.probe import ProbeSpec
from ipttrace.system.namespaces import NAMED
from ipttrace_tui.feed import Feed, RunState, Snapshot
from ipttrace_tui.workbench import LabUp

pytestmark = pytest.mark.root

LAB = """
name: held
title: A lab for the screen
namespaces:
  client: {}
  server:
    iptables: ["-A INPUT -p tcp --dport 81 -j DROP"]
    services: [{port: 80}]
links:
  - - {namespace: client, addresses: [198.51.100.2/24]}
    - {namespace: server, addresses: [198.51.100.1/24]}
probes:
  - {name: open, send: "tcp 198.51.100.1:80", from: client, netns: [server], wait: 1,
     expect: {outcome: delivered}}
"""
CHANGE = """
  - {name: closed, send: "tcp 198.51.100.1:80", from: client, netns: [server], wait: 1,
     change: [{namespace: server, iptables: ["-A INPUT -p tcp --dport 80 -j DROP"]}],
     expect: {outcome: dropped}}
"""


@pytest.fixture
def bench() -> Iterator[HostWorkbench]:
    """A workbench that leaves nothing."""
    made = HostWorkbench()
    yield made
    made.close()


@pytest.fixture
def lab(tmp_path: Path) -> str:
    file = tmp_path / "held.yaml"
    file.write_text(LAB)
    return str(file)


def run(feed: Feed) -> Snapshot:
    """Run a feed to its end; return what it published last."""
    seen: list[Snapshot] = []
    feed.run(seen.append, lambda: False)
    assert seen[-1].state is RunState.FINISHED
    assert all(each.state is RunState.RUNNING for each in seen[:-1])
    return seen[-1]


def namespaces(bench: HostWorkbench) -> dict[str, str]:
    """Return the real name of each namespace of the lab that is up."""
    places = [each for each in bench.places() if each.kind is PlaceKind.LAB]
    return {each.alias: str(each.name) for each in places}


def test_lab_stays_up_with_the_names_of_its_file(bench: HostWorkbench, lab: str) -> None:
    shown = run(bench.lab(lab, LabBackend.LEGACY))
    assert [(path.netns, path.outcome) for path in shown.paths if path.role is Role.PROBE] == [
        ("server", Outcome.DELIVERED)
    ]
    assert bench.lab_up() == LabUp("held", LabBackend.LEGACY)
    real = namespaces(bench)
    assert set(real) == {"client", "server"}
    _, rules = bench.read_rules("server")
    assert any("--dport 81" in rule.text for rule in rules.rules())
    assert bench.findings("server")
    run(bench.lab(lab, LabBackend.LEGACY))
    assert namespaces(bench) == real, "it is the same lab"
    assert bench.take_down() == []
    assert bench.lab_up() is None
    assert not any((NAMED / name).exists() for name in real.values())
    with pytest.raises(UsageError, match="no namespace 'server'"):
        bench.read_rules("server")


def test_probe_goes_into_the_lab_by_the_names_of_its_file(bench: HostWorkbench, lab: str) -> None:
    run(bench.lab(lab, LabBackend.NFT))
    spec = ProbeSpec(
        "tcp", "198.51.100.1", 81, from_netns="client", netns=("client", "server"), wait=1
    )
    shown = run(bench.probe(spec))
    fates = {path.netns: path.outcome for path in shown.paths if path.role is Role.PROBE}
    assert fates == {"client": Outcome.SENT, "server": Outcome.DROPPED}
    assert not any("ipt-lab" in warning for warning in shown.warnings)
    assert len({path.journey for path in shown.paths if path.role is Role.PROBE}) == 1


def test_another_backend_takes_the_lab_down_first(bench: HostWorkbench, lab: str) -> None:
    run(bench.lab(lab, LabBackend.LEGACY))
    real = namespaces(bench)
    run(bench.lab(lab, LabBackend.NFT))
    assert set(namespaces(bench).values()).isdisjoint(real.values())
    assert not any((NAMED / name).exists() for name in real.values())


def test_lab_that_its_probes_change_is_built_anew(
    bench: HostWorkbench, lab: str, tmp_path: Path
) -> None:
    Path(lab).write_text(LAB + CHANGE.removeprefix("\n"))
    first = run(bench.lab(lab, LabBackend.LEGACY))
    second = run(bench.lab(lab, LabBackend.LEGACY))
    for shown in (first, second):
        fates = [path.outcome for path in shown.paths if path.role is Role.PROBE]
        assert fates[0] is Outcome.DELIVERED
        assert Outcome.DROPPED in fates[1:]


def test_run_that_is_cancelled_leaves_the_lab_to_the_bench(bench: HostWorkbench, lab: str) -> None:
    with pytest.raises(CancelledError):
        bench.lab(lab, LabBackend.LEGACY).run(lambda _: None, lambda: True)
    real = namespaces(bench)
    bench.close()
    bench.close()
    assert not any((NAMED / name).exists() for name in real.values())
    with pytest.raises(CancelledError):
        run(bench.lab(lab, LabBackend.LEGACY))


def test_what_is_not_as_the_lab_expects_is_said(bench: HostWorkbench, lab: str) -> None:
    Path(lab).write_text(LAB.replace("{outcome: delivered}", "{outcome: dropped}"))
    shown = run(bench.lab(lab, LabBackend.LEGACY))
    assert "open: outcome: expected dropped, got delivered" in shown.warnings


def test_lab_that_cannot_be_read_says_so(bench: HostWorkbench) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        run(bench.lab("nowhere.yaml", LabBackend.LEGACY))
    assert bench.lab_up() is None


def test_library_is_listed_with_its_scenarios(bench: HostWorkbench) -> None:
    entries = {entry.name: entry for entry in bench.labs()}
    assert entries["article-complete"].scenario is not None
    assert all(entry.scenario is not None or entry.error for entry in entries.values())
