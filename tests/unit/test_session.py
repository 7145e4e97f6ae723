"""A session's order of things, and that it takes everything back on every way out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from ipttrace.errors import CancelledError, KernelError
from ipttrace.event import TraceEvent
from ipttrace.packet import PacketSummary
from ipttrace.path import Outcome, Role
from ipttrace.request import Armed, TraceRequest
from ipttrace.result import TraceResult
from ipttrace.session import Kernel, Plan, TraceSession
from ipttrace.settling import QUIET
from ipttrace.tracer import Side
from tests import recordings
from tests.fakes import FakeClock, FixedRules, ListSource, RecordingRules, ScriptedClient
from tests.transcripts import events_of

RECORDING = recordings.read_recording("legacy4-walk")
EVENTS = events_of(RECORDING)
SYN = next(
    event.packet
    for event in EVENTS
    if isinstance(event, TraceEvent) and event.packet and event.packet.protocol == "tcp"
)
DATA = [message.data for message in RECORDING.messages]
FATE_OF_THE_SYN = DATA[:11]


@dataclass
class Stage:
    """All fakes of one session."""

    batches: list[tuple[Sequence[bytes], int]] = field(default_factory=list)
    packets: Sequence[PacketSummary] = (SYN,)
    results: Sequence[str | None] = ()
    fail_in: str = ""
    failure: BaseException = field(default_factory=lambda: RuntimeError("told to fail"))
    cancelled: bool = False
    warnings: tuple[str, ...] = ()
    reserves: bool = False
    log: list[str] = field(default_factory=list)

    def run(self, plan: Plan, *, answer_fails: bool = False) -> TraceResult:
        self.clock = FakeClock()
        self.source = ListSource(list(self.batches))
        self.rules = RecordingRules(
            self.log, self.fail_in, failure=self.failure, warnings=self.warnings
        )
        self.client = ScriptedClient(
            self.packets, self.log, self.results, self.fail_in, failure=self.failure
        )
        self.answers: list[TraceResult] = []

        def open_source(_: TraceRequest, __: Armed) -> ListSource:
            self.log.append("open")
            if self.fail_in == "open":
                raise self.failure
            return self.source

        def reserve_source(_: TraceRequest) -> ListSource | None:
            if self.reserves:
                self.log.append("reserve")
            return self.source if self.reserves else None

        def answer(result: TraceResult) -> None:
            self.log.append("answer")
            self.answers.append(result)
            if answer_fails:
                raise BrokenPipeError

        side = Side(
            self.rules,
            FixedRules(RECORDING.ruleset),
            open_source,
            reserve_source=reserve_source,
        )
        kernel = Kernel(
            sides=[side],
            client=self.client,
            clock=self.clock,
            cancelled=lambda: self.cancelled,
        )
        return TraceSession(plan, kernel).run(answer)


INJECTED = Plan("s1", injected=True, contain=True, in_interface="eth0")
REAL = Plan("s1", made_in=0)


def test_the_order_of_things() -> None:
    stage = Stage([(FATE_OF_THE_SYN, 0)])
    stage.run(INJECTED)
    assert stage.log == [
        *("prepare", "arm", "open", "send", "quiet", "answer", "finish", "disarm"),
    ]
    assert stage.source.closed == 1


def test_what_another_session_may_hold_is_had_before_any_rule_is_made() -> None:
    stage = Stage([(FATE_OF_THE_SYN, 0)], reserves=True)
    stage.run(INJECTED)
    assert stage.log[:4] == ["prepare", "reserve", "arm", "send"]
    assert stage.source.closed == 1


def test_what_was_reserved_is_given_back_where_arming_fails() -> None:
    stage = Stage(fail_in="arm", reserves=True)
    with pytest.raises(RuntimeError):
        stage.run(INJECTED)
    assert stage.source.closed == 1


def test_a_dropped_packet_is_answered_after_a_quiet_time_not_after_the_whole_wait() -> None:
    stage = Stage([(FATE_OF_THE_SYN, 0)])
    result = stage.run(INJECTED)
    (path,) = result.paths
    assert (path.role, path.outcome) == (Role.PROBE, Outcome.DROPPED)
    assert stage.clock.time - 1000.0 == pytest.approx(QUIET, abs=0.01)
    assert stage.answers[0].paths == result.paths


def test_an_unseen_packet_is_waited_for_and_still_has_its_path() -> None:
    stage = Stage()
    (path,) = stage.run(INJECTED).paths
    assert (path.role, path.hops, path.outcome) == (Role.PROBE, (), Outcome.LOST)
    assert stage.clock.time - 1000.0 == pytest.approx(INJECTED.wait, abs=0.01)


def test_a_client_that_failed_at_once_has_a_path_without_hops_that_died() -> None:
    result = Stage(results=["ENETUNREACH"]).run(REAL)
    (path,) = result.paths
    assert (path.hops, path.outcome, result.client) == ((), Outcome.DROPPED, ("ENETUNREACH",))


def test_a_client_without_an_answer_timed_out() -> None:
    assert Stage([(FATE_OF_THE_SYN, 0)], results=[None]).run(REAL).client == ("TIMEOUT",)


def test_several_packets_are_sent_one_after_another() -> None:
    second = replace(SYN, tcp_seq=77, sport=40001)
    stage = Stage(packets=(SYN, second), results=["CONNECTED", "CONNECTED"])
    result = stage.run(replace(REAL, packets=2))
    assert stage.log.count("send") == 2
    assert result.client == ("CONNECTED", "CONNECTED")
    flow = stage.rules.requests[0].flow
    assert flow is not None
    assert flow.sport is None
    assert [path.role for path in result.paths] == [Role.PROBE, Role.PROBE]


def test_overruns_are_counted_and_make_a_path_incomplete() -> None:
    result = Stage([(DATA[:3], 2)]).run(INJECTED)
    assert result.totals.lost_events == 2
    assert result.paths[0].outcome is Outcome.INCOMPLETE


def test_garbage_is_counted() -> None:
    assert Stage([([b"\x01\x02\x03"], 0)]).run(INJECTED).totals.undecoded == 1


@pytest.mark.parametrize("step", ["prepare", "arm", "open", "send", "quiet"])
@pytest.mark.parametrize("failure", [KernelError("no"), KeyboardInterrupt(), MemoryError()])
def test_everything_is_taken_back_wherever_it_fails(step: str, failure: BaseException) -> None:
    stage = Stage([(FATE_OF_THE_SYN, 0)], fail_in=step, failure=failure)
    with pytest.raises(type(failure)):
        stage.run(INJECTED)
    assert stage.log[-2:] == ["finish", "disarm"]
    opened = "open" in stage.log and step != "open"
    assert stage.source.closed == (1 if opened else 0)


def test_a_reader_of_the_answer_that_goes_away_does_not_keep_the_rules_there() -> None:
    stage = Stage([(FATE_OF_THE_SYN, 0)])
    with pytest.raises(BrokenPipeError):
        stage.run(INJECTED, answer_fails=True)
    assert stage.log[-2:] == ["finish", "disarm"]


def test_a_cancelled_session_ends_at_once_and_takes_everything_back() -> None:
    stage = Stage(cancelled=True)
    with pytest.raises(CancelledError):
        stage.run(INJECTED)
    assert stage.clock.time == 1000.0
    assert stage.log[-2:] == ["finish", "disarm"]


def test_what_disarming_found_is_in_the_result() -> None:
    result = Stage([(FATE_OF_THE_SYN, 0)], warnings=("our rule was gone",)).run(INJECTED)
    assert (result.clean, result.warnings, result.totals.hits) == (
        False,
        ("our rule was gone",),
        1,
    )


def requested_behind_the_first(*packets: PacketSummary) -> TraceRequest:
    """Return what a later namespace was asked to trace."""
    log: list[str] = []
    first, later = RecordingRules(log), RecordingRules(log)
    sides = [
        Side(rules, FixedRules(RECORDING.ruleset), lambda _, __: ListSource(), netns)
        for rules, netns in ((first, "client"), (later, "server"))
    ]
    kernel = Kernel(sides, ScriptedClient(packets, log, ["TIMEOUT"] * len(packets)), FakeClock())
    TraceSession(replace(REAL, packets=len(packets)), kernel).run(lambda _: None)
    assert not first.requests[0].any_destination
    return later.requests[0]


def test_a_later_namespace_knows_a_packet_by_its_source_port_alone() -> None:
    request = requested_behind_the_first(SYN)
    assert (request.any_source, request.any_destination) == (True, True)
    assert request.flow is not None
    assert request.flow.sport == SYN.sport


def test_packets_with_ports_of_their_own_are_known_by_their_destination() -> None:
    request = requested_behind_the_first(SYN, replace(SYN, sport=41000))
    assert (request.any_source, request.any_destination) == (True, False)
    assert request.flow is not None
    assert request.flow.sport is None
