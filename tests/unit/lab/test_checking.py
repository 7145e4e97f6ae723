"""Running checks with fakes: every probe becomes a case, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ipttrace.checks import Case, State
from ipttrace.errors import CancelledError, KernelError, NotSupportedError, UsageError
from ipttrace.lab.check_file import Check, parse_check
from ipttrace.lab.checking import LiveHost, Stage, run_check
from ipttrace.lab.lab_probe import Change
from ipttrace.lab.topology import Topology
from ipttrace.path import PacketPath
from ipttrace.probe import ProbeSpec
from ipttrace.result import TraceResult
from ipttrace.ruleset import Ruleset
from tests import builders as b

LAB = """
name: two
title: Two probes
backends: [legacy, nft]
namespaces: {server: {}}
refused: [{namespace: server, run: iptables -A X -j Y, says: nope}]
probes:
  - {name: first, send: tcp 198.51.100.1:8443, netns: [server], expect: {outcome: dropped}}
  - name: second
    send: tcp 198.51.100.1:8443
    netns: [server]
    change: [{namespace: server, sysctls: {net.ipv4.ip_forward: 1}}]
    expect: {outcome: dropped, nft: {outcome: delivered}}
"""
PROBES = """
probes:
  - {name: first, send: tcp 198.51.100.1:8443, expect: {outcome: dropped}}
  - name: web
    send: tcp 198.51.100.1:8443
    netns: [web]
    expect: {outcome: delivered, legacy: {outcome: dropped}}
    backends: [legacy]
"""


@dataclass
class FakeLab:
    namespaces: Mapping[str, str] = field(default_factory=lambda: {"server": "real", "wire": "w"})
    complaint: str | None = "nope"
    done: list[object] = field(default_factory=list)

    def change(self, change: Change, *path: str | int) -> None:
        self.done.append(path)

    def refused(self, namespace: str, words: Sequence[str]) -> str | None:
        return self.complaint

    def keep(self) -> None:
        raise AssertionError

    def down(self) -> Sequence[str]:
        self.done.append("down")
        return ["one name was left"]


@dataclass
class Kernel:
    """The kernel's side: what it built, what it was asked, what it answers."""

    answers: Iterator[PacketPath | Exception]
    lab: FakeLab = field(default_factory=FakeLab)
    built: list[str] = field(default_factory=list)
    specs: list[ProbeSpec] = field(default_factory=list)
    read: list[str | None] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    broken: Exception | None = None

    def up(self, what: Topology | Path, backend: str) -> FakeLab:
        self.built.append(backend)
        if self.broken:
            raise self.broken
        return self.lab

    def trace(self, spec: ProbeSpec) -> TraceResult:
        self.specs.append(spec)
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return b.result(replace(answer, netns=spec.netns[-1] if spec.netns else None))

    def rules(self, netns: str | None) -> Ruleset:
        self.read.append(netns)
        return b.article_rules()

    def stage(self, *, coverage: bool = False, events: bool = True) -> Stage:
        return Stage(
            labs=self,
            twins=self,
            trace=self.trace,
            read=self.rules,
            live_backend=lambda named: "legacy",
            coverage=coverage,
            events=events,
            warn=self.warned.append,
        )


def kernel(*answers: PacketPath | Exception, **fields: object) -> Kernel:
    return Kernel(iter(answers), **fields)  # type: ignore[arg-type]


def run(check: Check, kernel: Kernel, backend: str | None = None) -> list[Case]:
    told: list[Case] = []
    cases = run_check(check, backend, kernel.stage(), told.append)
    assert told == cases, "each is told as it ends"
    return cases


def states(cases: Sequence[Case]) -> list[tuple[str, str, str]]:
    return [(case.backend, case.name, case.state) for case in cases]


def lab() -> Check:
    return parse_check(LAB, "two.yaml")


def live() -> Check:
    return parse_check("live: true" + PROBES, "live.yaml")


def twin() -> Check:
    return parse_check(
        "twin: host.json" + PROBES.replace("netns: [web]\n", "src: 192.0.2.1\n"), "t"
    )


DROPPED, DELIVERED = b.mark_drop_path(), b.redirect_path()
REFUSED = "refused: iptables -A X -j Y"


def test_a_lab_on_each_backend() -> None:
    there = kernel(DROPPED, DROPPED, DROPPED, DROPPED)
    cases = run(lab(), there)
    assert states(cases) == [
        ("legacy", "first", "passed"),
        ("legacy", "second", "passed"),
        ("legacy", REFUSED, "passed"),
        ("nft", "first", "passed"),
        ("nft", "second", "failed"),
        ("nft", REFUSED, "passed"),
    ]
    failed = cases[4]
    assert [str(each) for each in failed.differences] == [
        "outcome: expected delivered, got dropped"
    ]
    assert failed.steps[0][-1].expected == "delivered"
    assert there.warned == ["one name was left"] * 2
    assert there.lab.done == [("probes", 1, "change", 0), "down"] * 2


def test_one_backend() -> None:
    there = kernel(DROPPED, DELIVERED)
    assert {case.backend for case in run(lab(), there, "nft")} == {"nft"}


def test_a_backend_that_the_lab_is_not_made_for_is_a_visible_skip() -> None:
    there = kernel()
    cases = run(lab(), there, "both")
    assert [case.state for case in cases] == [State.SKIPPED] * 2
    assert cases[0].message == "it is not made for this backend"
    assert there.built == []


@pytest.mark.parametrize("target", ["lab: article-complete", "twin: host.json"])
def test_a_check_may_name_fewer_backends(target: str) -> None:
    check = parse_check(
        f"{target}\nbackends: [nft]{PROBES}".replace(
            "{name: first,", "{name: first, netns: [server],"
        )
        .replace("[web]", "[server]")
        .replace("    backends: [legacy]\n", ""),
        "x",
    )
    cases = run(replace(check, probes=check.probes[:1]), kernel(), "legacy")
    assert [(case.state, case.message) for case in cases] == [
        (State.SKIPPED, "it is not made for this backend")
    ]


def test_a_refusal_that_was_accepted() -> None:
    there = kernel(DROPPED, DROPPED, lab=FakeLab(complaint=None))
    refusal = run(lab(), there, "legacy")[-1]
    assert refusal.state is State.FAILED
    assert str(refusal.differences[0]).startswith("expected a refusal, but it was accepted")


def test_an_error_ends_the_run_on_this_backend_only() -> None:
    there = kernel(KernelError("cannot do it"), DROPPED, DELIVERED)
    cases = run(lab(), there)
    assert states(cases) == [
        ("legacy", "first", "error"),
        ("legacy", "second", "skipped"),
        ("nft", "first", "passed"),
        ("nft", "second", "passed"),
        ("nft", REFUSED, "passed"),
    ]
    assert (cases[0].message, cases[0].exit_code) == ("cannot do it", 3)
    assert cases[1].message == "not run after first"
    assert there.lab.done[0] == "down", "the lab came down"


def test_a_lab_that_cannot_be_built() -> None:
    there = kernel(broken=UsageError("cannot build it"))
    cases = run(lab(), there, "nft")
    assert states(cases) == [("nft", "first", "error"), ("nft", "second", "skipped")]
    assert cases[0].exit_code == 2


def test_who_cancels_is_obeyed() -> None:
    there = kernel(CancelledError("stop"))
    with pytest.raises(CancelledError):
        run(lab(), there)
    assert there.lab.done == ["down"]


def test_live_keeps_names_and_changes_nothing() -> None:
    there = kernel(DROPPED, DROPPED)
    cases = run(live(), there)
    assert states(cases) == [("legacy", "first", "passed"), ("legacy", "web", "passed")]
    assert [spec.netns for spec in there.specs] == [(), ("web",)]
    assert not any(spec.let_out for spec in there.specs)
    assert there.built == []


@pytest.mark.parametrize(
    "act",
    [
        lambda host: host.change(Change(namespace="a", sysctls={"net.x": 1})),
        lambda host: host.refused("a", ["nft"]),
    ],
)
def test_a_live_host_refuses_changes(act: Callable[[LiveHost], object]) -> None:
    with pytest.raises(UsageError, match="a live host is never changed"):
        act(LiveHost())


def test_a_twin_is_probed_in_its_own_namespace_and_comes_down() -> None:
    there = kernel(DROPPED, DROPPED)
    cases = run(twin(), there, "legacy")
    assert [case.state for case in cases] == [State.PASSED] * 2
    assert [spec.netns for spec in there.specs] == [("real",)] * 2
    assert there.built == ["legacy"]
    assert there.lab.done == ["down"]


def test_a_twin_as_it_is_tells_its_backend() -> None:
    there = kernel(DROPPED, DROPPED)
    assert states(run(twin(), there)) == [
        ("legacy", "first", "passed"),
        ("legacy", "web", "passed"),
    ]
    assert there.built == [""]


def test_a_twin_on_both_backends_is_skipped() -> None:
    cases = run(twin(), kernel(), "both")
    assert [case.state for case in cases] == [State.SKIPPED] * 2
    assert cases[0].message == "a twin is built on legacy or nft"


def test_a_probe_for_another_backend_is_skipped() -> None:
    cases = run(twin(), kernel(DROPPED), "nft")
    assert states(cases) == [("nft", "first", "passed"), ("nft", "web", "skipped")]
    assert cases[1].message == "it is for legacy only"


@pytest.mark.parametrize("text", [LAB, "live: true" + PROBES], ids=["lab", "live"])
def test_what_only_the_kernels_events_prove_is_a_visible_skip(text: str) -> None:
    check = parse_check(text.replace("{name: first,", "{name: first, needs-events: true,"), "x.yml")
    there = kernel(DROPPED)
    cases = run_check(check, "legacy", there.stage(events=False), lambda _: None)
    (skipped,) = (case for case in cases if case.state is State.SKIPPED)
    assert (skipped.name, skipped.message.split()[:2]) == ("first", ["only", "root"])
    assert len(there.specs) == 1


def test_a_twin_that_cannot_be_built() -> None:
    there = kernel(broken=NotSupportedError("no nft"))
    assert [case.state for case in run(twin(), there)] == [State.ERROR, State.SKIPPED]


def test_a_probe_that_cannot_be_sent_does_not_keep_the_next_ones_from_it() -> None:
    there = kernel(UsageError("no such interface"), DROPPED)
    assert states(run(live(), there)) == [("legacy", "first", "error"), ("legacy", "web", "passed")]
    cancelled = kernel(CancelledError("stop"))
    with pytest.raises(CancelledError):
        run(twin(), cancelled)
    assert cancelled.lab.done == ["down"]


def test_coverage_reads_after_each_change_and_joins_files_of_one_target() -> None:
    there = kernel(DROPPED, DROPPED, DELIVERED, DELIVERED)
    stage = there.stage(coverage=True)
    run_check(lab(), "legacy", stage, lambda _: None)
    assert there.read == ["real", "w", "real"]
    run_check(lab(), "legacy", stage, lambda _: None)
    met = {each.netns: [str(rule.ref) for rule in each.unmet] for each in stage.covered()}
    assert met["server"] == ["nat/OUTPUT 1"]


def test_live_coverage_reads_each_namespace_once() -> None:
    there = kernel(DROPPED, DROPPED)
    stage = there.stage(coverage=True)
    run_check(live(), None, stage, lambda _: None)
    assert there.read == [None, "web"]
    assert [each.target for each in stage.covered()] == ["live", "live"]


def test_rules_that_cannot_be_read_leave_no_lab_behind() -> None:
    there = kernel()

    def unreadable(netns: str | None) -> Ruleset:
        raise KernelError("cannot read")

    stage = replace(there.stage(coverage=True), read=unreadable)
    cases = run_check(lab(), "legacy", stage, lambda _: None)
    assert cases[0].message == "cannot read"
    assert there.lab.done == ["down"]
