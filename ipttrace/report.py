"""Where a trace event comes from: which chain and rule, at which hook and priority.

All reports of one place are alike but for packet and time, so each is worked out once: `Station`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ipttrace.event import TraceEvent, TraceKind
from ipttrace.netfilter import (
    Backend,
    Basis,
    ChainRef,
    Hook,
    RuleRef,
    TableFamily,
    Verdict,
    builtin_priority,
)
from ipttrace.own_table import OWN_CHAINS
from ipttrace.path import ChainHop, Change
from ipttrace.ruleset import OWN_TABLE, Chain, Counter, MapElement, Place, Rule, Ruleset
from ipttrace.targets import may_change, verdict_of

Base = tuple[Backend, TableFamily, str, Hook]
"""One walk of a base chain: the table and the hook."""


@dataclass(frozen=True, slots=True)
class Station:
    """A rule that matched, or the end of a chain: what all its reports have in common."""

    chain: ChainRef
    kind: TraceKind
    verdict: Verdict | None = None
    basis: Basis = Basis.UNKNOWN
    hook: Hook | None = None
    """None in nft user chains, whose hook is that of the base chain being walked."""
    priority: int = 0
    bridged: bool = False
    """The hook is the bridge's of that name."""
    base: Base | None = None
    """None in nft user chains and in chains that the ruleset does not have."""
    rule: Rule | None = None
    handle: int | None = None
    hidden: bool = False
    """No hop: it is ours, or only carries headers."""
    own: bool = False
    """In a table of ipttrace's."""
    replaced: bool = False
    """Rules were changed, and it is not known of which the report is."""
    closes: bool = False
    """The end of a base chain."""
    changes: frozenset[str] = frozenset()
    """The header fields, and `mark`, that the rule may rewrite."""
    immediate: frozenset[str] = frozenset()
    """Those of them that the report already shows: an nft rule reports after it was evaluated,
    but NAT waits for the end of the hook."""

    @property
    def ref(self) -> RuleRef:
        """The rule's full name, or the chain's."""
        return RuleRef(self.chain, self.rule.number if self.rule else None, self.handle)


class Locator:
    """Finds the station of each report in one ruleset."""

    def __init__(
        self, ruleset: Ruleset, created: frozenset[ChainRef], earlier: Ruleset | None = None
    ) -> None:
        """`created` are base chains that exist only because of us.

        With rules that were there `earlier` a report may be of either.
        """
        self._earlier = Locator(earlier, created) if earlier is not None else None
        self._ruleset = ruleset
        self._created = created
        self._known: dict[tuple[object, ...], Station | None] = {}

    def locate(self, event: TraceEvent) -> Station | None:
        """Return where `event` belongs, or None if it cannot be a report of these rules."""
        key = (
            event.backend,
            event.table_family,
            event.table,
            event.chain,
            event.kind,
            event.number,
            event.handle,
            event.verdict,
            event.hook,
        )
        try:
            return self._known[key]
        except KeyError:
            return self._known.setdefault(key, self._either(event))

    def _either(self, event: TraceEvent) -> Station | None:
        now = self._work_out(event)
        if self._earlier is None or event.table.startswith(OWN_TABLE):
            return now
        return _agreed(event, self._earlier.locate(event), now)

    def _work_out(self, event: TraceEvent) -> Station | None:
        if event.table.startswith(OWN_TABLE):
            return _own_station(event)
        place = self._ruleset.locate(event)
        if event.backend is Backend.LEGACY:
            return self._legacy_station(event, place) if place else None
        return self._nft_station(event, place)

    def _legacy_station(self, event: TraceEvent, place: Place) -> Station | None:
        """Return the station of a legacy report, or None if its hook cannot be right.

        It comes through a log group that others write to as well; nft's come from the kernel alone.
        """
        if event.hook is None or place.chain.hook not in (None, event.hook):
            return None
        priority = builtin_priority(event.table, event.hook)
        if priority is None:
            return None
        verdict = self._legacy_verdict(place)
        return Station(
            chain=event.chain_ref,
            kind=place.kind,
            verdict=verdict,
            basis=Basis.INFERRED if verdict else Basis.UNKNOWN,
            hook=event.hook,
            priority=priority,
            base=(event.backend, event.table_family, event.table, event.hook),
            rule=place.rule,
            hidden=self._is_hidden(event.chain_ref, place.rule),
            closes=place.rule is None and place.chain.hook is not None,
            changes=_changes(place.rule),
        )

    def _legacy_verdict(self, place: Place) -> Verdict | None:
        rule = place.rule
        if rule is None:
            return Verdict.RETURN if place.kind is TraceKind.RETURN else place.chain.policy
        if rule.target and replace(rule.chain, chain=rule.target) in self._ruleset.chains:
            return Verdict.GOTO if rule.goto else Verdict.JUMP
        return verdict_of(rule.target)

    def _nft_station(self, event: TraceEvent, place: Place | None) -> Station:
        chain = place.chain if place else self._ruleset.chains.get(event.chain_ref)
        rule = place.rule if place else None
        changes = _changes(rule)
        at_once = changes if _rewrites_headers(rule) else changes & {"mark", "ttl"}
        return Station(
            chain=event.chain_ref,
            kind=event.kind,
            verdict=_nft_verdict(event.verdict, rule),
            basis=Basis.REPORTED if event.verdict else Basis.UNKNOWN,
            hook=chain.hook if chain else None,
            priority=(chain.priority if chain else None) or 0,
            bridged=event.table_family is TableFamily.BRIDGE,
            base=_nft_base(event, chain),
            rule=rule,
            handle=event.handle,
            hidden=event.header_only or self._is_hidden(event.chain_ref, rule),
            closes=not event.header_only and event.handle is None and _is_base(chain),
            changes=changes,
            immediate=at_once,
        )

    def _is_hidden(self, chain: ChainRef, rule: Rule | None) -> bool:
        return chain in self._created or (rule is not None and rule.own)


def _agreed(event: TraceEvent, before: Station | None, now: Station | None) -> Station | None:
    """Return what is true of a report, whether it is about the rules before a change or after."""
    if before is None or now is None:
        return now or before
    if event.handle is not None and (before.rule is None) is not (now.rule is None):
        return now if now.rule is not None else before
    gone = event.handle is not None and now.rule is None
    if not gone and _tells(before) == _tells(now):
        return now
    return replace(
        now,
        kind=event.kind,
        verdict=event.verdict,
        basis=Basis.REPORTED if event.verdict else Basis.UNKNOWN,
        rule=None,
        hidden=event.header_only,
        changes=before.changes | now.changes,
        immediate=before.immediate | now.immediate,
        replaced=True,
    )


def _tells(station: Station) -> tuple[object, ...]:
    rule = (station.rule.text, station.rule.number) if station.rule else None
    return rule, station.kind, station.verdict, station.hook, station.priority, station.hidden


def _own_station(event: TraceEvent) -> Station:
    own = OWN_CHAINS.get(event.chain)
    station = Station(
        event.chain_ref, event.kind, event.verdict, Basis.REPORTED, hidden=True, own=True
    )
    if own is None:
        return station
    base = (event.backend, event.table_family, f"{event.table} {event.chain}", own.hook)
    bridged = event.table_family is TableFamily.BRIDGE
    return replace(station, hook=own.hook, priority=own.priority, bridged=bridged, base=base)


def _nft_base(event: TraceEvent, chain: Chain | None) -> Base | None:
    if chain is None or chain.hook is None:
        return None
    return event.backend, event.table_family, f"{event.table} {event.chain}", chain.hook


def _is_base(chain: Chain | None) -> bool:
    return chain is not None and chain.hook is not None


def _nft_verdict(reported: Verdict | None, rule: Rule | None) -> Verdict | None:
    """Return REJECT for the drop that the kernel reports of a rule that rejects."""
    refuses = rule is not None and (rule.target or "").upper() == "REJECT"
    return Verdict.REJECT if reported is Verdict.DROP and refuses else reported


def _changes(rule: Rule | None) -> frozenset[str]:
    return may_change(rule.target, rule.text) if rule else frozenset()


def _rewrites_headers(rule: Rule | None) -> bool:
    """Tell whether a native nft rule writes into the header itself."""
    return rule is not None and " set " in rule.text and not rule.text.startswith("-A ")


class Step:
    """A station that a packet met: a hop in the making."""

    __slots__ = ("changes", "element", "hook", "priority", "station", "target", "time")

    def __init__(self, station: Station, time: float, hook: Hook | None, priority: int) -> None:
        self.station = station
        self.time = time
        self.hook = hook
        self.priority = priority
        self.changes: tuple[Change, ...] = ()
        self.target: str | None = None
        """The chain that an nft rule led to: a verdict map's rule does not tell."""
        self.element: MapElement | None = None

    def hop(self, counter: Counter | None) -> ChainHop:
        """Return the hop; `counter` is by how much the rule's counter rose."""
        station, rule = self.station, self.station.rule
        return ChainHop(
            self.time,
            station.chain,
            self.hook,
            self.priority if station.hook or self.hook else None,
            station.kind,
            station.verdict,
            station.basis,
            rule.number if rule else None,
            station.handle,
            rule.text if rule else None,
            self.target or (rule.target if rule else None),
            counter,
            self.changes,
            self.element,
            station.replaced,
        )
