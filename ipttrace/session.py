"""One traced probe in one namespace, from arming to the last rule taken back.

The order of things: read the rules, arm, read them again (now with our own rules in their places),
send, pump, read the counters, quiet the triggers, give the answer, tidy up what the packets left,
disarm.  Disarming happens on every way out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count

from ipttrace.correlate import Correlator, Tally
from ipttrace.decode.netlink import decode_datagram
from ipttrace.diagnose.chains import diagnose
from ipttrace.errors import CancelledError
from ipttrace.event import Lost
from ipttrace.netfilter import Backend, Hook, RuleRef
from ipttrace.packet import Flow
from ipttrace.path import Diagnosis, Outcome, PacketPath, Role, TraceResult, TraceTotals
from ipttrace.ports import (
    Armed,
    Clock,
    Disarmed,
    EventSource,
    ProbeClient,
    RulesetReader,
    TraceRequest,
    TraceRules,
    Trigger,
)
from ipttrace.roles import UNSPECIFIED, Sent, assign_roles
from ipttrace.ruleset import Counter, Ruleset, conntrack_active, counter_changes

QUIET = 0.2
"""Seconds without a report after which nothing more is expected."""

ATTENTION = 0.25
"""Seconds after which a wait looks whether it was cancelled."""

_DEAD = frozenset({Outcome.DROPPED, Outcome.REJECTED})
_UNKNOWN = frozenset({Outcome.LOST, Outcome.INCOMPLETE})


@dataclass(frozen=True, slots=True)
class Plan:
    """How one probe is to be traced."""

    session: str
    """Lower-case letters and digits: the tag of what we put into the namespace."""
    hook: Hook
    """PREROUTING where the packets come in, OUTPUT where they are made."""
    netns: str | None = None
    trigger: Trigger = Trigger.RAW
    injected: bool = False
    contain: bool = False
    in_interface: str | None = None
    packets: int = 1
    wait: float = 2.0
    """The longest that one packet's result is waited for, in seconds."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """The namespace's own side, behind its ports."""

    rules: TraceRules
    reader: RulesetReader
    open_source: Callable[[bool], EventSource]
    """Opens the queue; the argument says whether it must carry legacy reports."""
    client: ProbeClient
    clock: Clock
    cancelled: Callable[[], bool] = lambda: False
    """Asked often; once it says True the session ends with a CancelledError."""


class TraceSession:
    """Runs one `Plan`; use once."""

    def __init__(self, plan: Plan, kernel: Kernel) -> None:
        self._plan = plan
        self._kernel = kernel
        self._clock = kernel.clock
        self._started = kernel.clock.monotonic()
        self._results: list[str] = []
        self._ids = count(1)
        self._first = 0
        self._source: EventSource
        self._correlator: Correlator

    def run(self, answer: Callable[[TraceResult], None]) -> TraceResult:
        """Trace the probe; call `answer` as soon as the paths are known, then take all back."""
        kernel = self._kernel
        left: tuple[str, ...] = ()
        try:
            armed, before = self._arm(tuple(kernel.client.prepare()))
            self._send_all()
            paths = self._conclude(before)
            kernel.rules.quiet()
            result = self._result(paths, armed)
            answer(result)
        finally:
            try:
                left = tuple(kernel.client.finish())
            finally:
                disarmed = kernel.rules.disarm()
                if hasattr(self, "_source"):
                    self._source.close()
        return self._completed(result, disarmed, left)

    def _arm(self, flows: tuple[Flow, ...]) -> tuple[Armed, Ruleset]:
        """Arm for all `flows`; return what was armed and the rules as they are then."""
        reader, plan = self._kernel.reader, self._plan
        self._family = family = flows[0].family
        found = reader.read(family)
        request = TraceRequest(
            session=plan.session,
            hook=plan.hook,
            flow=_common(flows),
            trigger=plan.trigger,
            any_source=flows[0].src in UNSPECIFIED,
            in_interface=plan.in_interface,
            contain=plan.contain,
            lifetime=60.0 + plan.wait * plan.packets,
            backends=reader.backends(family),
            conntrack_active=conntrack_active(found, reader.conntrack_entries()),
        )
        armed = self._kernel.rules.arm(request)
        self._source = self._kernel.open_source(Backend.LEGACY in request.backends)
        ruleset = reader.read(family)
        self._correlator = Correlator(
            ruleset,
            ids=self._ids,
            netns=plan.netns,
            interfaces=reader.interfaces(),
            created=armed.created,
            own_table=armed.own_table,
        )
        return armed, ruleset

    def _send_all(self) -> None:
        client = self._kernel.client
        for number in range(1, self._plan.packets + 1):
            self._first = self._correlator.begun
            client.send()
            self._pump(last=number == self._plan.packets)
            self._results.append(client.poll() or "TIMEOUT")

    def _pump(self, *, last: bool) -> None:
        """Take reports until the packet just sent is accounted for, or its time is up.

        The last packet ends with a quiet time, in which answers and late reports come in.
        """
        now = self._clock.monotonic()
        deadline, quiet_since = now + self._plan.wait, now
        while now < deadline:
            if self._kernel.cancelled():
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
        descriptors = [self._source.fileno()]
        client = self._kernel.client.fileno()
        if client is not None and not settled:
            descriptors.append(client)
        self._clock.wait(descriptors, min(seconds, ATTENTION))

    def _drain(self) -> bool:
        datagrams, overruns = self._source.drain()
        for datagram in datagrams:
            for event in decode_datagram(datagram.data, datagram.time):
                self._correlator.feed(event)
        for _ in range(overruns):
            self._correlator.feed(Lost(self._clock.now(), None, "the receive buffer was full"))
        return bool(datagrams or overruns)

    def _is_settled(self) -> bool:
        """Tell whether the client has its result, or the kernel said how the packet ended.

        An injected packet has no client: its way and its answers' ways must have ended.
        """
        plan, client = self._plan, self._kernel.client
        if not plan.injected and client.poll() is not None:
            return True
        if self._correlator.pending(self._first):
            return False
        sent = Sent((client.identities[len(self._results)],))
        paths = assign_roles(
            self._correlator.paths(first=self._first), self._correlator.flows_of(), sent, count()
        )
        seen = [path for path in paths if path.role is not Role.OBSERVED and path.hops]
        probe = next((path for path in seen if path.role is Role.PROBE), None)
        if probe is None:
            return False
        return plan.injected or any(path.outcome in _DEAD for path in seen)

    def _conclude(self, before: Ruleset) -> tuple[PacketPath, ...]:
        """Return all paths with their roles, counters and diagnoses."""
        after = self._kernel.reader.read(self._family)
        self._drain()
        paths = self._assigned(counter_changes(before, after))
        return tuple(replace(path, diagnosis=self._diagnose(path, paths)) for path in paths)

    def _assigned(self, changes: Mapping[RuleRef, Counter]) -> tuple[PacketPath, ...]:
        client = self._kernel.client
        sent = Sent(
            tuple(client.identities),
            () if self._plan.injected else tuple(self._results),
            self._plan.netns,
            self._clock.now(),
        )
        correlator = self._correlator
        return assign_roles(correlator.paths(changes), correlator.flows_of(), sent, self._ids)

    def _diagnose(self, path: PacketPath, paths: tuple[PacketPath, ...]) -> Diagnosis:
        replies = [other for other in paths if other.request == path.id]
        probes = [other.id for other in paths if other.role is Role.PROBE]
        client = None
        if path.id in probes and not self._plan.injected:
            client = self._results[probes.index(path.id)]
        return diagnose(path, replies=replies, client=client, ruleset=self._correlator.ruleset)

    def _result(self, paths: tuple[PacketPath, ...], armed: Armed) -> TraceResult:
        tally = self._correlator.tally
        seen = [path for path in paths if path.hops]
        totals = TraceTotals(
            packets=len(seen),
            complete=sum(path.outcome not in _UNKNOWN for path in seen),
            lost_events=tally.lost,
            undecoded=tally.undecoded,
        )
        return TraceResult(
            paths=paths,
            totals=totals,
            client=() if self._plan.injected else tuple(self._results),
            trigger=armed.trigger,
            backends=tuple(sorted(armed.backends)),
            warnings=(*armed.warnings, *_remarks(tally)),
            seconds=self._clock.monotonic() - self._started,
        )

    def _completed(
        self, result: TraceResult, disarmed: Disarmed, left: tuple[str, ...]
    ) -> TraceResult:
        return replace(
            result,
            totals=replace(result.totals, hits=disarmed.hits),
            warnings=(*result.warnings, *left, *disarmed.warnings),
            clean=disarmed.clean,
            seconds=self._clock.monotonic() - self._started,
        )


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
            f"{tally.foreign} log messages of group 0 are not of these rules and were left out: "
            "another NFLOG rule writes there, or the rules were changed meanwhile"
        )
    if tally.orphans:
        remarks.append(f"{tally.orphans} reports belong to packets whose beginning was not seen")
    return tuple(remarks)
