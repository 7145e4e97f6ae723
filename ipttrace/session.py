"""One traced probe, in one namespace or several, from arming to the last rule taken back.

The order of things: arm everywhere, send, pump, read the counters, quiet the triggers, give the
answer, tidy up what the packets left, disarm.  Disarming happens on every way out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

from ipttrace.correlate import Tally
from ipttrace.diagnose import Case, diagnose
from ipttrace.errors import CancelledError
from ipttrace.evidence import Scene
from ipttrace.gathering import Gathering, Sources, Trails
from ipttrace.netfilter import Hook
from ipttrace.packet import Flow, PacketSummary
from ipttrace.path import Outcome, PacketPath, Role, TraceResult, TraceTotals
from ipttrace.ports import Clock, Disarmed, ProbeClient, TraceRequest, Trigger
from ipttrace.roles import UNSPECIFIED, Sent, assign_roles
from ipttrace.timeline import fate, with_evidence
from ipttrace.tracer import Side, Tracer

QUIET = 0.2
"""Seconds without a report after which nothing more is expected."""

ATTENTION = 0.25
"""Seconds after which a wait looks whether it was cancelled."""

_DEAD = frozenset({Outcome.DROPPED, Outcome.REJECTED})
_ENDED = frozenset({Outcome.DROPPED, Outcome.REJECTED, Outcome.REFUSED})
_UNKNOWN = frozenset({Outcome.LOST, Outcome.INCOMPLETE})


@dataclass(frozen=True, slots=True)
class Plan:
    """How one probe is to be traced."""

    session: str
    """Lower-case letters and digits: the tag of what we put into the namespace."""
    made_in: int | None = None
    """Which of the traced namespaces makes the packets; None if they come in from outside."""
    trigger: Trigger = Trigger.RAW
    injected: bool = False
    contain: bool = False
    in_interface: str | None = None
    packets: int = 1
    wait: float = 2.0
    """The longest that one packet's result is waited for, in seconds."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """The kernel's side of a session, behind its ports."""

    sides: Sequence[Side]
    """The traced namespaces; the first is where the packets start or come in."""
    client: ProbeClient
    clock: Clock
    cancelled: Callable[[], bool] = lambda: False
    """Asked often; once it says True the session ends with a CancelledError."""
    sources: Sources = Sources()
    """Where evidence comes from, beside the chains' reports."""


class TraceSession:
    """Runs one `Plan`; use once."""

    def __init__(self, plan: Plan, kernel: Kernel) -> None:
        self._plan = plan
        self._client = kernel.client
        self._clock = kernel.clock
        self._cancelled = kernel.cancelled
        self._started = kernel.clock.monotonic()
        self._results: list[str] = []
        self._ids = count(1)
        self._gathering = Gathering(kernel.sources)
        self._tracers = [self._tracer(side, number) for number, side in enumerate(kernel.sides)]
        self._first = [0] * len(self._tracers)
        """In each namespace, how many packets were seen before the one just sent."""

    def _tracer(self, side: Side, number: int) -> Tracer:
        return Tracer(
            side,
            self._clock,
            self._ids,
            follow=partial(self._gathering.follow, number),
            time_of=partial(self._gathering.time_of, number),
        )

    def run(self, answer: Callable[[TraceResult], None]) -> TraceResult:
        """Trace the probe; call `answer` as soon as the paths are known, then take all back."""
        disarmed: list[Disarmed] = []
        left: list[str] = []
        with ExitStack() as cleaning:
            cleaning.callback(self._gathering.close)
            for tracer in self._tracers:
                cleaning.callback(_disarm, tracer, disarmed)
            cleaning.callback(lambda: left.extend(self._client.finish()))
            flows = tuple(self._client.prepare())
            self._arm(flows)
            names = [name for tracer in self._tracers for name in tracer.interfaces()]
            self._gathering.begin(flows, names, self._client)
            self._send_all()
            paths = self._conclude()
            for tracer in self._tracers:
                tracer.quiet()
            result = self._result(paths)
            answer(result)
        return self._completed(result, disarmed, left)

    def _arm(self, flows: tuple[Flow, ...]) -> None:
        for number, tracer in enumerate(self._tracers):
            tracer.arm(self._request(flows, number), flows[0].family)

    def _request(self, flows: tuple[Flow, ...], number: int) -> TraceRequest:
        """Return what to arm in a namespace: as narrow as can be where the packets are made.

        The first namespace that they come in by may see another source already, and in later ones
        NAT may have changed all but the source port.  Packets with ports of their own are known by
        their destination there: without, all traffic would be theirs.
        """
        plan, flow = self._plan, _common(flows)
        request = TraceRequest(
            session=plan.session,
            hook=Hook.OUTPUT if number == plan.made_in else Hook.PREROUTING,
            flow=flow,
            trigger=plan.trigger,
            any_source=flows[0].src in UNSPECIFIED,
            lifetime=60.0 + plan.wait * plan.packets,
        )
        if number == plan.made_in:
            return request
        if number == 0:
            return replace(
                request,
                any_source=not plan.injected,
                in_interface=plan.in_interface,
                contain=plan.contain,
            )
        one_port = flow.sport is not None or flow.icmp_id is not None
        return replace(request, any_source=True, any_destination=one_port)

    def _send_all(self) -> None:
        for number in range(1, self._plan.packets + 1):
            self._first = [tracer.correlator.begun for tracer in self._tracers]
            self._gathering.sending(self._clock.now())
            self._client.send()
            self._gathering.sent()
            self._pump(last=number == self._plan.packets)
            self._results.append(self._client.poll() or "TIMEOUT")

    def _pump(self, *, last: bool) -> None:
        """Take reports until the packet just sent is accounted for, or its time is up.

        The last packet ends with a quiet time, in which answers and late reports come in.
        """
        now = self._clock.monotonic()
        deadline, quiet_since = now + self._plan.wait, now
        while now < deadline:
            if self._cancelled():
                raise CancelledError("cancelled; everything was taken back")
            if self._drain():
                quiet_since = self._clock.monotonic()
            settled = self._is_settled()
            now = self._clock.monotonic()
            until = quiet_since + QUIET if settled and last else deadline
            if settled and (not last or now >= until):
                return
            self._wait(min(until, deadline) - now, settled)
            now = self._clock.monotonic()

    def _wait(self, seconds: float, settled: bool) -> None:
        sources = [tracer.fileno() for tracer in self._tracers]
        wanted = [*sources, None if settled else self._client.fileno()]
        descriptors = [each for each in wanted if each is not None]
        self._clock.wait(descriptors, min(seconds, ATTENTION))

    def _drain(self) -> bool:
        drained = [tracer.drain() for tracer in self._tracers]
        self._gathering.drain()
        return any(drained)

    def _is_settled(self) -> bool:
        """Tell whether the client has its result, or the kernel said how the packet ended.

        An injected packet has no client: its way and its answers' ways must have ended.
        """
        plan, client = self._plan, self._client
        if not plan.injected and client.poll() is not None:
            return True
        concerned = self._recent(client.identities[len(self._results)])
        if not concerned:
            return self._died_unseen()
        trails = self._trails(concerned)
        concerned = tuple(replace(p, outcome=fate(p, trails.of(p))) for p in concerned)
        pending = self._pending()
        if any(path.id in pending and path.outcome not in _ENDED for path in concerned):
            return False
        seen = [path for path in concerned if path.role is not Role.OBSERVED]
        if all(path.role is not Role.PROBE for path in seen):
            return False
        rejected = any(path.outcome is Outcome.REJECTED for path in seen)
        if rejected and not plan.injected and any(path.role is Role.REPLY for path in seen):
            return False  # the client is about to hear of it: IPv6 may tell it by a second answer
        return plan.injected or any(path.outcome in _DEAD for path in seen)

    def _died_unseen(self) -> bool:
        """Tell whether the packet just sent died before any chain could report it."""
        trail = self._gathering.unreported(len(self._results))
        return trail is not None and bool(trail.drops)

    def _trails(self, paths: Sequence[PacketPath]) -> Trails:
        numbers = {tracer.netns: number for number, tracer in enumerate(self._tracers)}
        return self._gathering.trails(numbers, paths)

    def _pending(self) -> AbstractSet[int]:
        """Return the ids of the packets of which more may come."""
        since = zip(self._tracers, self._first, strict=True)
        return frozenset().union(*(tracer.correlator.pending(first) for tracer, first in since))

    def _recent(self, identity: PacketSummary) -> tuple[PacketPath, ...]:
        """Return the probe and what has to do with it, as far as it was seen since."""
        paths = [
            path
            for tracer, first in zip(self._tracers, self._first, strict=True)
            for path in tracer.correlator.paths(first=first)
        ]
        known = {path.id for path in paths}
        named = assign_roles(
            paths, self._flows(), Sent((identity,)), count(max(known, default=0) + 1)
        )
        return tuple(path for path in named if path.id in known)

    def _flows(self) -> dict[int, tuple[Flow, ...]]:
        known: dict[int, tuple[Flow, ...]] = {}
        for tracer in self._tracers:
            known |= tracer.correlator.flows_of()
        return known

    def _conclude(self) -> tuple[PacketPath, ...]:
        """Return all paths with their roles, counters and diagnoses."""
        changes = [tracer.changes() for tracer in self._tracers]
        self._drain()
        paths = [
            path
            for tracer, risen in zip(self._tracers, changes, strict=True)
            for path in tracer.correlator.paths(risen)
        ]
        sent = Sent(
            tuple(self._client.identities),
            () if self._plan.injected else tuple(self._results),
            self._tracers[0].netns,
            self._clock.now(),
        )
        named = assign_roles(paths, self._flows(), sent, self._ids)
        if not self._gathering.asked:
            return tuple(self._diagnosed(path, named, Scene()) for path in named)
        scenes = {path.id: scene for path, scene in self._scenes(named)}
        whole = tuple(with_evidence(path, scenes[path.id], _answers(path, named)) for path in named)
        return tuple(self._diagnosed(path, whole, scenes[path.id]) for path in whole)

    def _scenes(self, paths: Sequence[PacketPath]) -> Iterator[tuple[PacketPath, Scene]]:
        """Yield what was seen around each packet; the tables are asked for the probes alone."""
        trails, flows = self._trails(paths), self._flows()
        for path in paths:
            trail = trails.of(path)
            if path.role is not Role.PROBE:
                yield path, Scene(trail=trail, last=path.last_packet)
                continue
            if not path.reports and path.id not in flows:
                trail = self._gathering.unreported(path.journey - 1)
            seen = replace(path, outcome=fate(path, trail))
            yield path, self._gathering.scene(seen, flows.get(path.id, ()), trail)

    def _diagnosed(
        self, path: PacketPath, paths: tuple[PacketPath, ...], scene: Scene
    ) -> PacketPath:
        tracer = next(each for each in self._tracers if each.netns == path.netns)
        client = None
        if path.role is Role.PROBE and not self._plan.injected:
            client = self._results[path.journey - 1]
        case = Case(
            path,
            _answers(path, paths),
            client,
            tracer.correlator.ruleset,
            scene,
            paths,
            logged=tracer.correlator.foreign,
        )
        return replace(path, diagnosis=diagnose(case))

    def _tallies(self) -> Tally:
        tallies = [tracer.correlator.tally for tracer in self._tracers]
        names = ("lost", "undecoded", "foreign", "orphans")
        return Tally(*(sum(getattr(each, name) for each in tallies) for name in names))

    def _result(self, paths: tuple[PacketPath, ...]) -> TraceResult:
        tally = self._tallies()
        armed = [tracer.armed for tracer in self._tracers if tracer.armed is not None]
        known = self._flows().keys()
        seen = [path for path in paths if path.id in known]
        totals = TraceTotals(
            packets=len(seen),
            complete=sum(path.outcome not in _UNKNOWN for path in seen),
            lost_events=tally.lost,
            undecoded=tally.undecoded,
        )
        warnings = [warning for each in armed for warning in each.warnings]
        return TraceResult(
            paths=paths,
            totals=totals,
            client=() if self._plan.injected else tuple(self._results),
            trigger=armed[0].trigger,
            backends=tuple(sorted({name for each in armed for name in each.backends})),
            warnings=(*dict.fromkeys(warnings), *_remarks(tally)),
            seconds=self._clock.monotonic() - self._started,
        )

    def _completed(
        self, result: TraceResult, disarmed: Sequence[Disarmed], left: Sequence[str]
    ) -> TraceResult:
        found = [warning for each in disarmed for warning in each.warnings]
        return replace(
            result,
            totals=replace(result.totals, hits=sum(each.hits for each in disarmed)),
            warnings=(*result.warnings, *left, *found),
            clean=all(each.clean for each in disarmed),
            seconds=self._clock.monotonic() - self._started,
        )


def _answers(path: PacketPath, paths: Sequence[PacketPath]) -> list[PacketPath]:
    return [other for other in paths if other.request == path.id]


def _disarm(tracer: Tracer, found: list[Disarmed]) -> None:
    found.append(tracer.disarm())


def _common(flows: tuple[Flow, ...]) -> Flow:
    """Return the flow that all `flows` are of: what differs is left open."""
    first = flows[0]
    same_port = all(flow.sport == first.sport for flow in flows)
    same_id = all(flow.icmp_id == first.icmp_id for flow in flows)
    return replace(
        first,
        sport=first.sport if same_port else None,
        icmp_id=first.icmp_id if same_id else None,
    )


def _remarks(tally: Tally) -> tuple[str, ...]:
    remarks = []
    if tally.foreign:
        remarks.append(
            f"{tally.foreign} log messages are not of these rules and packets and were left out: "
            "others log to the same place, or the rules were changed meanwhile"
        )
    if tally.orphans:
        remarks.append(f"{tally.orphans} reports belong to packets whose beginning was not seen")
    return tuple(remarks)
