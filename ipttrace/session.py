"""One traced probe, in one namespace or several, from arming to the last rule taken back.

The order of things: arm everywhere, send, pump, read the counters, quiet the triggers, give the
answer, tidy up what the packets left, disarm.  Disarming happens on every way out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

from ipttrace.conclusion import Conclusion
from ipttrace.errors import CancelledError
from ipttrace.gathering import NONE, Gathering, Sources
from ipttrace.netfilter import Hook
from ipttrace.packet import Flow
from ipttrace.ports import Clock, ProbeClient
from ipttrace.request import Disarmed, TraceRequest, Trigger
from ipttrace.result import TraceResult
from ipttrace.roles import UNSPECIFIED, Sent
from ipttrace.settling import QUIET, Settling
from ipttrace.tracer import Side, Tracer

ATTENTION = 0.25
"""Seconds after which a wait looks whether it was cancelled."""


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
    sources: Sources = NONE
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
        self._settling = Settling(
            kernel.client,
            self._tracers,
            self._gathering,
            kernel.clock,
            injected=plan.injected,
            contained=plan.contain,
        )

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
            for tracer in self._tracers:
                cleaning.callback(_disarm, tracer, disarmed)
            cleaning.callback(self._gathering.close)
            cleaning.callback(lambda: left.extend(self._client.finish()))
            flows = tuple(self._client.prepare())
            self._arm(flows)
            names = [name for tracer in self._tracers for name in tracer.interfaces()]
            self._gathering.begin(flows, names, self._client)
            self._send_all()
            conclusion = self._conclusion()
            paths = conclusion.paths(self._ids)
            for tracer in self._tracers:
                tracer.quiet()
            result = conclusion.result(paths, self._clock.monotonic() - self._started)
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
            self._settling.begin()
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
            settled = self._settling.is_settled(len(self._results))
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

    def _conclusion(self) -> Conclusion:
        """Return what is to be concluded from, after a last look at the counters."""
        changes = [tracer.changes() for tracer in self._tracers]
        self._drain()
        sent = Sent(
            tuple(self._client.identities),
            () if self._plan.injected else tuple(self._results),
            self._tracers[0].netns,
            self._clock.now(),
            self._plan.in_interface if self._plan.injected else None,
        )
        return Conclusion(self._tracers, self._gathering, sent, changes, self._plan.made_in)

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
