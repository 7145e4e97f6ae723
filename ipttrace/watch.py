"""Watching live traffic: packets are given out one by one as soon as their way has ended.

Memory stays bounded: a packet is forgotten when it is given out, which happens at the latest
`GRACE` after its last report.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count

from ipttrace.diagnose import Case, diagnose
from ipttrace.evidence import Scene
from ipttrace.fingerprint import fingerprint
from ipttrace.journeys import JourneyBook
from ipttrace.limiting import LimitGauge
from ipttrace.path import Diagnosis, Outcome, PacketPath, Role
from ipttrace.ports import Clock
from ipttrace.refusals import refused_by
from ipttrace.request import Disarmed, TraceRequest, Trigger
from ipttrace.result import TraceResult, TraceTotals
from ipttrace.ruleset import Ruleset
from ipttrace.tracer import Side, Tracer

GRACE = 0.5
"""Seconds without a report after which a packet's way is over, and in which ways are sorted."""

ATTENTION = 0.1
"""Seconds after which a wait looks whether it is to end, and whether rules were changed."""

GATHER = 0.02
"""Seconds in which reports gather: waking up costs more than reading."""

TOGETHER = 0.1
"""Seconds between the readings of one packet's legs, at most."""

_Disarmings = list[tuple[Tracer, Disarmed]]
_UNKNOWN = frozenset({Outcome.LOST, Outcome.INCOMPLETE})


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """When a watch ends by itself."""

    seconds: float | None = None
    packets: int | None = None


class WatchSession:
    """Watches one or several namespaces; use once."""

    def __init__(
        self,
        sides: Sequence[Side],
        clock: Clock,
        limits: WatchLimits,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._cancelled = cancelled
        ids = count(1)
        self._tracers = {
            side.netns: Tracer(side, clock, ids, rules_may_change=True) for side in sides
        }
        self._book = JourneyBook(as_read=True)
        self._waiting: list[tuple[float, int, PacketPath]] = []
        self._ready: deque[PacketPath] = deque()
        self._refusals: dict[int, PacketPath] = {}
        """The answer that refuses a packet, by its id, until the packet is given out."""
        self._given = self._complete = 0
        self._gauge = LimitGauge(None)
        self._interrupted = False

    def run(self, request: TraceRequest, give: Callable[[PacketPath], None]) -> TraceResult:
        """Arm, call `give` for each packet in the order of their times, take all back.

        Ends at a limit, when cancelled, or by KeyboardInterrupt out of `give` or a wait; the
        result, without paths, says how much was seen.
        """
        started = self._clock.monotonic()
        self._gauge = LimitGauge(request.limit)
        disarmed: _Disarmings = []
        with ExitStack() as cleaning:
            for tracer in self._tracers.values():
                cleaning.callback(_disarm, tracer, disarmed)
            for tracer in self._tracers.values():
                tracer.arm(request, None)
            try:
                self._pump(started, give)
            except KeyboardInterrupt:
                self._interrupted = True
            self._drain(at_once=True)
            for tracer in self._tracers.values():
                tracer.quiet()
            self._drain(at_once=True)
            self._give_out(float("inf"), give)
        return self._result(disarmed, self._clock.monotonic() - started)

    @property
    def interrupted(self) -> bool:
        """Whether the user ended it."""
        return self._interrupted

    def _pump(self, started: float, give: Callable[[PacketPath], None]) -> None:
        seconds = self._limits.seconds
        deadline = started + seconds if seconds is not None else float("inf")
        while not self._cancelled() and not self._has_enough():
            now = self._clock.monotonic()
            gone = [tracer.is_gone() for tracer in self._tracers.values()]
            if now >= deadline or all(gone):
                return
            descriptors = [tracer.fileno() for tracer in self._tracers.values()]
            open_ones = [each for each in descriptors if each is not None]
            self._clock.wait(open_ones, min(deadline - now, ATTENTION))
            self._clock.wait((), GATHER)
            self._drain()
            known = min(tracer.known_until for tracer in self._tracers.values())
            self._give_out(min(self._clock.now(), known) - GRACE, give)

    def _drain(self, *, at_once: bool = False) -> None:
        for tracer in self._tracers.values():
            tracer.drain(at_once=at_once)

    def _give_out(self, before: float, give: Callable[[PacketPath], None]) -> None:
        """Give out what began before `before`, in order; what ended later waits for its turn."""
        for tracer in self._tracers.values():
            for path in tracer.correlator.take(before):
                heapq.heappush(self._waiting, (path.time, path.id, path))
        ripe = self._ripe(before)
        # By their own times: joining changes those of legs.
        self._refusals |= refused_by([*ripe, *(path for _, _, path in self._waiting)])
        self._ready.extend(self._book.join(ripe))
        while self._ready and not self._has_enough():
            path = self._ready.popleft()
            replies: tuple[PacketPath, ...] = ()
            if refusal := self._refusals.pop(path.id, None):
                answer = replace(refusal, role=Role.REPLY, request=path.id)
                delivered = path.outcome is Outcome.DELIVERED
                end = Outcome.REFUSED if delivered else Outcome.DROPPED
                path, replies = replace(path, outcome=end), (answer,)
            armed = self._tracers[path.netns].armed
            self._gauge.note(path, armed.trigger if armed else Trigger.RAW)
            self._given += 1
            self._complete += path.outcome not in _UNKNOWN
            give(replace(path, diagnosis=_diagnosis(path, replies), ruleset=None))

    def _ripe(self, before: float) -> list[PacketPath]:
        """Return what began before `before`, and other legs of the same packets.

        The namespaces are read one after the other: a leg that came first may have a later time.
        """
        ready: list[PacketPath] = []
        while self._waiting and self._waiting[0][0] < before:
            ready.append(heapq.heappop(self._waiting)[2])
        if len(self._tracers) == 1 or not ready:
            return ready
        packets = {fingerprint(path.packet) for path in ready}
        later: list[tuple[float, int, PacketPath]] = []
        while self._waiting and self._waiting[0][0] < before + TOGETHER:
            entry = heapq.heappop(self._waiting)
            is_leg = fingerprint(entry[2].packet) in packets
            ready.append(entry[2]) if is_leg else later.append(entry)
        for entry in later:
            heapq.heappush(self._waiting, entry)
        return ready

    def _has_enough(self) -> bool:
        return self._limits.packets is not None and self._given >= self._limits.packets

    def so_far(self) -> TraceResult:
        """Return how much was seen until now, without paths; nothing is counted before arming."""
        return self._result([], 0.0)

    def _left_out(self, disarmings: _Disarmings) -> Sequence[str]:
        """Return what is to be said of packets that were not traced."""
        if self._has_enough():  # who has the packets asked for does not ask what else came
            return self._gauge.warnings(None)
        untraced = _untraced(disarmings)
        disturbed = any(of.beginnings or not each.counted for of, each in disarmings)
        if not (disturbed and untraced):
            return self._gauge.warnings(untraced)
        packets = "1 packet was" if untraced == 1 else f"{untraced:,} packets were"
        limit = ", or because of the limit" if self._gauge.reached else ""
        return (f"{packets} not traced while our rules were gone{limit}",)

    def _result(self, disarmings: _Disarmings, seconds: float) -> TraceResult:
        tracers = list(self._tracers.values())
        armed = [tracer.armed for tracer in tracers if tracer.armed is not None]
        tallies = [tracer.correlator.tally for tracer in tracers]
        warnings = [*(each for one in armed for each in one.warnings)]
        warnings += [warning for _, each in disarmings for warning in each.warnings]
        warnings += self._left_out(disarmings)
        warnings += [warning for tracer in tracers for warning in _changes(tracer)]
        return TraceResult(
            paths=(),
            totals=TraceTotals(
                hits=sum(_hits(tracer, each) for tracer, each in disarmings),
                packets=self._given,
                complete=self._complete,
                lost_events=sum(tally.lost for tally in tallies),
                undecoded=sum(tally.undecoded for tally in tallies),
            ),
            trigger=armed[0].trigger if armed else Trigger.RAW,
            backends=tuple(sorted({name for each in armed for name in each.backends})),
            warnings=tuple(dict.fromkeys(warnings)),
            clean=all(each.clean for _, each in disarmings),
            seconds=seconds,
            rulesets={tracer.netns: tracer.correlator.ruleset for tracer in tracers},
        )


def _hits(tracer: Tracer, disarmed: Disarmed) -> int:
    """Return how many packets were traced: where counts were taken away, as many as reported."""
    begun = tracer.correlator.tally.begun
    return disarmed.hits if disarmed.counted else max(disarmed.hits, begun)


def _untraced(disarmings: _Disarmings) -> int | None:
    """Return how many packets were not traced that the filter takes; None if it is not known."""
    known = [each.due - _hits(of, each) for of, each in disarmings if each.due is not None]
    if not disarmings or len(known) < len(disarmings):
        return None
    return sum(max(0, each) for each in known)


def _diagnosis(path: PacketPath, replies: tuple[PacketPath, ...]) -> Diagnosis | None:
    """Return why a packet ended as it did; None where it may have met rules that are not known."""
    if path.rules_changed:
        return None
    return diagnose(Case(path, replies, ruleset=path.ruleset or Ruleset(), scene=Scene()))


def _changes(tracer: Tracer) -> Iterator[str]:
    """Yield what is to be said of rules that somebody changed."""
    where = f" in namespace {tracer.netns}" if tracer.netns is not None else ""
    rules = tracer.rules
    if rules is not None and rules.first_change is not None:
        when = _when(rules.changes, rules.first_change)
        yield f"rules were changed during the watch{where}, {when}"
    if tracer.gone_at is not None:
        at = _clock(tracer.gone_at)
        yield f"namespace {tracer.netns} was deleted, or its process ended, at {at}"
    for reason in dict.fromkeys(each.reason for each in tracer.beginnings):
        those = [each for each in tracer.beginnings if each.reason == reason]
        gap = sum(each.gap for each in those)
        blind = f"; for {gap * 1000:.0f} ms nothing was traced or counted" if gap else ""
        yield f"tracing began anew{where}, {_when(len(those), those[0].time)}: {reason}{blind}"


def _when(times: int, first: float) -> str:
    return f"{f'{times} times, first' if times > 1 else 'once,'} at {_clock(first)}"


def _clock(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, tz=UTC).astimezone():%H:%M:%S}"


def _disarm(tracer: Tracer, found: _Disarmings) -> None:
    found.append((tracer, tracer.disarm()))
