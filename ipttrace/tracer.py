"""Tracing in one namespace: its rules, its queue and its packets, armed and taken back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ipttrace.changing import ChangingRules, Settled
from ipttrace.correlate import Correlator
from ipttrace.errors import IptTraceError
from ipttrace.event import Lost
from ipttrace.needs import (
    GONE,
    Standing,
    disturbance,
    engines,
    rules_met_untraced,
    standing,
    tracked,
    with_early,
)
from ipttrace.netfilter import Backend, PacketFamily, RuleRef
from ipttrace.ports import Clock, Datagram, EventSource, RulesetReader, TraceRules
from ipttrace.request import Armed, Disarmed, TraceRequest
from ipttrace.ruleset import Counter, Ruleset, counter_changes

RETRIES = 5
"""How often it is tried to arm anew, one second after the other: a lock may be held."""
PAUSE = 1.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """That all was armed anew while it was watched."""

    time: float
    reason: str
    gap: float
    """Seconds for which nothing was traced, nor counted; 0 if what counts stood all the time."""


@dataclass(frozen=True, slots=True)
class Side:
    """A namespace's own side, behind its ports."""

    rules: TraceRules
    reader: RulesetReader
    open_source: Callable[[TraceRequest, Armed], EventSource]
    """Opens the queue for what was asked for and armed."""
    netns: str | None = None
    """As the user named it; None for the one that the tool runs in."""
    reserve_source: Callable[[TraceRequest], EventSource | None] = lambda _: None
    """Opens the queue before anything is armed, where that can be."""
    is_gone: Callable[[], bool] = lambda: False
    """Whether its name was taken away, or its process has ended."""


class Tracer:
    """One namespace of a session.

    The rules are read twice: to know what to arm, and again when armed, with our own rules in
    their places, as the reports will count them.
    """

    def __init__(
        self,
        side: Side,
        clock: Clock,
        ids: Iterator[int],
        follow: Callable[[EventSource], None] = lambda _: None,
        time_of: Callable[[int], float | None] = lambda _: None,
        *,
        rules_may_change: bool = False,
    ) -> None:
        """`follow` is told of the queue before anything is armed.

        `time_of` knows when the kernel wrote the n-th message since, if anything does.  Where
        `rules_may_change` reports are held back until it is known which rules they are about.
        """
        self.netns = side.netns
        self._follow = follow
        self._time_of = time_of
        self.armed: Armed | None = None
        self.correlator = Correlator(Ruleset(), ids=ids, netns=side.netns)
        self._side = side
        self._clock = clock
        self._ids = ids
        self._family: PacketFamily | None = None
        self._source: EventSource | None = None
        self._rules_may_change = rules_may_change
        self.rules: ChangingRules | None = None
        """None before arming, and where the rules are taken to stay as they are."""
        self.known_until = 0.0
        """Up to when all reports were taken to the correlator."""
        self._held: list[Datagram] = []
        self._rules_are_new = False
        self.beginnings: list[Beginning] = []
        self.gone_at: float | None = None
        self._standing: Standing | None = None
        self._is_recounting = False
        """Whether our rules are to be counted, all of them armed just now."""
        self._failures = 0
        self._next_try = 0.0

    def arm(self, request: TraceRequest, family: PacketFamily | None) -> None:
        """Arm for `request`, completed by what the namespace has; None means both families."""
        reader = self._side.reader
        self._family = family
        request = self._completed(request, reader.read(family))
        self._source = self._side.reserve_source(request)
        if self._source is not None:
            self._follow(self._source)
        self.armed = self._side.rules.arm(request)
        if self._source is not None:
            # What came while only some of the rules stood was traced in part.
            self._source.drain()
        self._source = self._source or self._side.open_source(request, self.armed)
        if self._rules_may_change:
            self.rules = ChangingRules(reader, family, self._clock)
        ruleset = self.rules.ruleset if self.rules else reader.read(family)
        unseen = rules_met_untraced(ruleset, request if self.armed.early else None)
        warnings = (*self.armed.warnings, *self._source.warnings, *unseen)
        self.armed = replace(self.armed, warnings=warnings)
        bridges = reader.bridges()
        self._standing = standing(request, ruleset, bridges.values())
        self.correlator = Correlator(
            ruleset,
            ids=self._ids,
            netns=self.netns,
            interfaces=reader.interfaces(),
            bridges=bridges,
            created=self.armed.created,
            own_table=self.armed.own_table,
        )

    def _completed(self, request: TraceRequest, rules: Ruleset) -> TraceRequest:
        """Return the request with what the namespace has."""
        reader, family = self._side.reader, self._family
        families = tracked(rules, reader.conntrack_entries())
        return replace(
            with_early(request, rules),
            backends=reader.backends(family),
            conntrack_active=bool(families & {family} if family else families),
            untracked=frozenset(PacketFamily) - families,
        )

    def is_gone(self) -> bool:
        """Tell whether what the user named is gone; note when that was first seen."""
        if self.gone_at is None and self._side.is_gone():
            self.gone_at = self._clock.now()
        return self.gone_at is not None

    def interfaces(self) -> Sequence[str]:
        """Return the names of the namespace's interfaces, as they are now."""
        return list(self._side.reader.interfaces().values())

    def fileno(self) -> int | None:
        """Return the queue's descriptor; None before it is open."""
        return self._source.fileno() if self._source is not None else None

    def drain(self, *, at_once: bool = False) -> bool:
        """Feed the correlator all that waits; whether there was anything.

        With `at_once` nothing is held back.
        """
        if self._source is None:
            return False
        again, read_at = False, self._clock.now()
        datagrams, overruns = self._source.drain()
        if self.rules is not None:
            self._held += datagrams
            settled = self.rules.settle(at_once=at_once)
            if settled is not None:
                self._feed_settled(settled)
                self.known_until = read_at
                again = settled.read_anew and not at_once
                if again or self._failures:
                    self._look_after(self.rules)
        elif self._source.position is not None:
            self._feed_counted(datagrams, self._source.position - len(datagrams))
        else:
            self._feed(datagrams)
        for _ in range(overruns):
            self.correlator.feed(Lost(self._clock.now(), None, "the receive buffer was full"))
        seen = bool(datagrams or overruns)
        return (again and self.drain()) or seen

    def _feed(self, datagrams: Sequence[Datagram]) -> None:
        assert self._source is not None
        for event in self._source.decode(datagrams, self.correlator.ruleset):
            self.correlator.feed(event)

    def _feed_settled(self, settled: Settled) -> None:
        """Feed the correlator what was held back: it is known which rules that is about.

        A packet that was under way while rules were exchanged may have reported the old ones while
        the new ones were read, so that the next reports may be of either, too.
        """
        if settled.read_anew:
            self.correlator.use(settled.ruleset, changed=settled.changed)
        held, self._held = self._held, []
        self._feed(held)
        if self._rules_are_new and not settled.read_anew:
            self.correlator.settle()
        self._rules_are_new = settled.read_anew

    def _look_after(self, rules: ChangingRules) -> None:
        """Arm anew where rules or a bridge came that need it, or where our rules have gone."""
        reader, armed = self._side.reader, self._standing
        assert armed is not None
        bridges = reader.bridges()
        self.correlator.name_interfaces(reader.interfaces(), bridges)
        created = self.armed.created if self.armed else frozenset()
        backends = armed.request.backends | engines(rules.ruleset, created)
        request = replace(self._completed(armed.request, rules.ruleset), backends=backends)
        now = standing(request, rules.ruleset, bridges.values())
        if self._is_recounting:
            armed = self._standing = replace(armed, heads=now.heads)
            self._is_recounting = False
        reason = disturbance(armed, now)
        if reason is None or self._clock.monotonic() < self._next_try:
            return
        whole = reason != GONE or self._failures > 0
        began = self._clock.monotonic()
        try:
            self._arm_anew(request if whole else armed.request, whole=whole)
        except IptTraceError:
            self._failures += 1
            self._next_try = self._clock.monotonic() + PAUSE
            if self._failures > RETRIES:
                raise
            return
        gap = self._clock.monotonic() - began if whole else 0.0
        self.beginnings.append(Beginning(self._clock.now(), reason, gap))
        self._standing = replace(now, heads=armed.heads) if whole else armed
        self._is_recounting, self._failures = whole, 0
        rules.hurry()

    def _arm_anew(self, request: TraceRequest, *, whole: bool) -> None:
        """Arm for the request; the queue is another one if legacy reports come from now on."""
        side, old, before = self._side, self._source, self._standing
        assert old is not None
        assert before is not None
        assert self.armed is not None
        listens = Backend.LEGACY in request.backends - before.request.backends
        new = side.reserve_source(request) if listens else old
        try:
            armed = side.rules.rearm(request, whole=whole)
            self._held += old.drain()[0]
            new = new or side.open_source(request, armed)
        except BaseException:
            if new is not None and new is not old:
                new.close()
            raise
        if new is not old:
            new.drain()  # what came before all stood was traced in part
            old.close()
            self._source = new
        unseen = rules_met_untraced(self.correlator.ruleset, request if armed.early else None)
        known = (*self.armed.warnings, *armed.warnings, *new.warnings, *unseen)
        self.armed = replace(armed, warnings=tuple(dict.fromkeys(known)))
        self.correlator.begin_anew(armed.created, armed.own_table, whole=whole)

    def _feed_counted(self, datagrams: Sequence[Datagram], first: int) -> None:
        """Feed the correlator messages, the n-th with its number and the kernel's time."""
        source, ruleset = self._source, self.correlator.ruleset
        assert source is not None
        for number, datagram in enumerate(datagrams, first):
            time = self._time_of(number)
            stamped = datagram if time is None else Datagram(time, datagram.data)
            for event in source.decode((stamped,), ruleset):
                self.correlator.feed(event, number)

    def changes(self) -> Mapping[RuleRef, Counter]:
        """Return by how much the counters rose since arming."""
        return counter_changes(self.correlator.ruleset, self._side.reader.read(self._family))

    def quiet(self) -> None:
        """Take the triggers back, but keep what contains."""
        if self.armed is not None:
            self._side.rules.quiet()

    def disarm(self) -> Disarmed:
        """Take everything back, and only then close the queue.

        In that order, because the nf_log settings are put back before somebody else can bind.
        """
        try:
            return self._side.rules.disarm()
        finally:
            if self._source is not None:
                self._source.close()
                self._source = None
            if self.rules is not None:
                self.rules.close()
