"""A watch gives packets out in order, forgets them, and takes everything back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest

from ipttrace.netfilter import PacketFamily
from ipttrace.path import Outcome, PacketPath, Role
from ipttrace.request import TraceRequest
from ipttrace.result import TraceResult
from ipttrace.ruleset import Ruleset
from ipttrace.tracer import Side
from ipttrace.watch import GRACE, WatchLimits, WatchSession
from tests import builders, recordings
from tests.fakes import FakeClock, FixedRules, ListSource, RecordingRules

RECORDING = recordings.read_recording("legacy4-walk")
DATA = [message.data for message in RECORDING.messages]
REQUEST = TraceRequest(session="s1")


@dataclass
class Stage:
    """All fakes of one watch."""

    batches: list[tuple[Sequence[bytes], int]] = field(default_factory=list)
    limits: WatchLimits = field(default_factory=lambda: WatchLimits(seconds=5.0))
    log: list[str] = field(default_factory=list)
    given: list[PacketPath] = field(default_factory=list)
    on_packet: Callable[[], None] = lambda: None

    def run(self) -> TraceResult:
        self.clock = FakeClock()
        self.source = ListSource(list(self.batches))
        rules = RecordingRules(self.log)
        side = Side(rules, FixedRules(RECORDING.ruleset), lambda _, __: self.source)
        self.session = WatchSession([side], self.clock, self.limits)

        def give(path: PacketPath) -> None:
            self.given.append(path)
            self.on_packet()

        return self.session.run(REQUEST, give)


def test_packets_are_given_out_in_the_order_of_their_times_and_counted() -> None:
    stage = Stage([(DATA, 0)])
    result = stage.run()
    assert [path.id for path in stage.given] == list(range(1, 8))
    assert stage.given[0].outcome is Outcome.DROPPED
    assert stage.given[0].diagnosis is not None
    assert (result.totals.packets, result.totals.complete, result.paths) == (7, 7, ())


def test_a_packet_is_given_out_soon_after_its_last_report() -> None:
    stage = Stage([(DATA, 0)])
    seen: list[float] = []
    stage.on_packet = lambda: seen.append(stage.clock.time - 1000.0)
    stage.run()
    assert max(seen) <= 2 * GRACE + 0.1


def test_it_ends_after_its_time() -> None:
    stage = Stage(limits=WatchLimits(seconds=3.0))
    stage.run()
    assert stage.clock.time - 1000.0 == pytest.approx(3.0, abs=0.1)
    assert stage.log == ["arm", "quiet", "disarm"]
    assert stage.source.closed == 1


def test_it_ends_after_its_number_of_packets() -> None:
    stage = Stage([(DATA, 0)], limits=WatchLimits(packets=2))
    stage.run()
    assert [path.id for path in stage.given] == [1, 2]


def test_ctrl_c_ends_it_in_good_order() -> None:
    stage = Stage([(DATA, 0)])

    def interrupt() -> None:
        stage.on_packet = lambda: None
        raise KeyboardInterrupt

    stage.on_packet = interrupt
    result = stage.run()
    assert stage.session.interrupted
    assert result.clean
    assert stage.log == ["arm", "quiet", "disarm"]
    assert [path.id for path in stage.given] == list(range(1, 8))


def test_memory_does_not_grow_with_the_packets() -> None:
    stage = Stage([(DATA, 0)] * 40, limits=WatchLimits(seconds=60.0))
    stage.run()
    correlator = next(iter(stage.session._tracers.values())).correlator
    assert correlator.begun == 0
    assert not correlator._by_trace_id
    assert sum(map(len, correlator._in_flight.values())) == 0


def test_losses_are_counted() -> None:
    assert Stage([(DATA[:3], 2)]).run().totals.lost_events == 2


def test_what_was_seen_so_far_is_known_while_it_runs() -> None:
    stage = Stage([(DATA, 0)])
    seen: list[int] = []
    stage.on_packet = lambda: seen.append(stage.session.so_far().totals.packets)
    result = stage.run()
    assert seen == list(range(1, 8))
    assert stage.session.so_far().rulesets == result.rulesets == {None: RECORDING.ruleset}


def test_before_arming_nothing_was_seen() -> None:
    clock = FakeClock()
    side = Side(RecordingRules([]), FixedRules(RECORDING.ruleset), lambda _, __: ListSource([]))
    before = WatchSession([side], clock, WatchLimits(seconds=1.0)).so_far()
    assert (before.totals.packets, before.backends, before.paths) == (0, (), ())


@dataclass
class Turning(FixedRules):
    """Rules that are no more after a while."""

    clock: FakeClock = field(default_factory=FakeClock)
    closed: bool = False

    def watch(self) -> Turning:
        return self

    def now(self) -> bool:
        return self.clock.time > 1002.0

    def read(self, family: PacketFamily | None = None) -> Ruleset:
        return Ruleset() if self.now() else self.ruleset

    def close(self) -> None:
        self.closed = True


def test_a_change_of_rules_is_told_at_the_end() -> None:
    reader = Turning(RECORDING.ruleset)
    batches: list[tuple[Sequence[bytes], int]] = [([], 0)] * 16
    source = ListSource([*batches, (DATA, 0)])
    side = Side(RecordingRules([]), reader, lambda _, __: source)
    given: list[PacketPath] = []
    session = WatchSession([side], reader.clock, WatchLimits(seconds=5.0))
    result = session.run(REQUEST, given.append)
    assert [each.split(" at ")[0] for each in result.warnings] == [
        "rules were changed during the watch, once,"
    ]
    assert len(given) == 7
    assert all(path.ruleset is None for path in given), "whoever keeps paths does not keep rules"
    assert all(path.rules_changed and path.diagnosis is None for path in given)
    assert reader.closed


def test_what_passed_input_is_let_in_and_no_more_is_said() -> None:
    """The kernel may have refused it, by an answer that is not traced."""
    recording = recordings.read_recording("legacy4-walk")
    data = [message.data for message in recording.messages]
    side = Side(
        RecordingRules([]), FixedRules(recording.ruleset), lambda _, __: ListSource([(data, 0)])
    )
    given: list[PacketPath] = []
    WatchSession([side], FakeClock(), WatchLimits(seconds=2.0)).run(REQUEST, given.append)
    told = [path.diagnosis.summary for path in given if path.diagnosis]
    assert any(path.outcome is Outcome.DELIVERED for path in given)
    assert any(each.startswith("let in") for each in told)
    assert not any("delivered" in each for each in told)


def test_legs_of_one_packet_stand_together_though_they_were_read_at_other_times() -> None:
    session = WatchSession([], FakeClock(), WatchLimits())
    early = replace(builders.path(role=Role.OBSERVED), id=1, time=1.0)
    late = replace(early, id=2, netns="router", time=1.05)
    other = replace(early, id=3, time=1.04, packet=builders.udp())
    session._tracers = {"server": None, "router": None}  # type: ignore[dict-item]
    session._waiting = [(path.time, path.id, path) for path in (early, other, late)]
    assert session._ripe(1.02) == [early, late]
    assert [path for _, _, path in session._waiting] == [other]
