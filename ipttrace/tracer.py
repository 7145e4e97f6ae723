"""Tracing in one namespace: its rules, its queue and its packets, armed and taken back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ipttrace.changing import ChangingRules, Settled
from ipttrace.correlate import Correlator
from ipttrace.event import Lost
from ipttrace.netfilter import Hook, PacketFamily, RuleRef, TableFamily, Verdict
from ipttrace.own_table import BEFORE_RAW
from ipttrace.ports import (
    Armed,
    Clock,
    Datagram,
    Disarmed,
    EventSource,
    RulesetReader,
    TraceRequest,
    TraceRules,
)
from ipttrace.ruleset import Chain, Counter, Ruleset, conntrack_active, counter_changes

EARLY_HOOKS = (Hook.PREROUTING, Hook.OUTPUT)
"""Hooks at which our usual triggers stand."""


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

    def arm(self, request: TraceRequest, family: PacketFamily | None) -> None:
        """Arm for `request`, completed by what the namespace has; None means both families."""
        reader = self._side.reader
        self._family = family
        known = reader.read(family)
        tracked = _tracked(known, reader.conntrack_entries())
        request = replace(
            _with_early(request, known),
            backends=reader.backends(family),
            conntrack_active=bool(tracked & {family} if family else tracked),
            untracked=frozenset(PacketFamily) - tracked,
        )
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
        self.correlator = Correlator(
            ruleset,
            ids=self._ids,
            netns=self.netns,
            interfaces=reader.interfaces(),
            bridges=reader.bridges(),
            created=self.armed.created,
            own_table=self.armed.own_table,
        )

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


def _with_early(request: TraceRequest, ruleset: Ruleset) -> TraceRequest:
    """Return the request with the places where chains come before the usual triggers."""
    early = [chain for chain in ruleset.chains.values() if _is_early(chain)]
    # A filter's match cannot be had at ingress: see system.early_rules.
    devices = dict.fromkeys(name for chain in early for name in chain.devices if request.flow)
    hooks = {chain.hook for chain in early}
    return replace(
        request,
        early_devices=tuple(devices),
        early_hooks=tuple(hook for hook in EARLY_HOOKS if hook in hooks),
    )


def rules_met_untraced(ruleset: Ruleset, armed: TraceRequest | None) -> tuple[str, ...]:
    """Return a warning if packets meet rules before any trigger.

    `armed` is what early triggers were asked for, None if there are none.
    """
    early = [chain for chain in ruleset.chains.values() if _is_early(chain)]
    if armed is not None:
        early = [c for c in early if c.hook is Hook.INGRESS and not armed.early_devices]
    if not early:
        return ()
    names = ", ".join(f"{chain.ref.table_family} {chain.ref}" for chain in early)
    return (f"not traced, because packets meet them first: the rules of {names}",)


def _is_early(chain: Chain) -> bool:
    """Tell whether a chain has rules that packets meet before the usual triggers."""
    silent = not chain.user_rules and chain.policy is not Verdict.DROP
    if silent or chain.ref.table_family is TableFamily.BRIDGE:
        return False
    if chain.hook in EARLY_HOOKS:
        return (chain.priority or 0) < BEFORE_RAW
    return chain.hook is Hook.INGRESS


def _tracked(ruleset: Ruleset, entries: int) -> frozenset[PacketFamily]:
    """Return the families whose connections are tracked: where a rule needs it.

    Entries that no rule explains may be of either family.
    """
    by_rules = frozenset(
        family for family in PacketFamily if conntrack_active(_seeing(ruleset, family), 0)
    )
    return by_rules or frozenset(PacketFamily if entries else ())


def _seeing(ruleset: Ruleset, family: PacketFamily) -> Ruleset:
    """Return the chains that packets of `family` can meet."""
    other = {each.table_family for each in PacketFamily} - {family.table_family}
    return Ruleset(
        {ref: chain for ref, chain in ruleset.chains.items() if ref.table_family not in other}
    )
