"""Trace reports in, packets' paths out: the one stateful object of the core.

Theory of operation
===================

Rule 1: everything that decides which packet a report belongs to lives here and in `choosing`.
Rule 2: a report continues a walk only if it is possible next: later at the same hook, or at a hook
that follows, in the same namespace, with the same fingerprint, and with other addresses only where
conntrack rewrites them or a rule just met does so.

Reports of one namespace arrive in the order in which the kernel made them (one socket carries all
of them).  Reports of different packets interleave freely.  What ties reports to a packet:

legacy    every report carries the headers: the fingerprint (`fingerprint`) finds the walks,
          `can_take` the right one.
nft       the first report of each base chain carries the headers; all carry a trace id, which is a
          hash of the packet's address.  Ids are reused, so an id is believed for reports without
          headers only, and every report with headers binds it anew.

Several walks with one fingerprint: a packet that is inside a chain reports next where its jumps
lead, and nowhere else (`choosing.expects`).  A packet that was born while another was inside a
chain (TEE) runs to its end within that chain's walk, so the inner one is served first.  Otherwise
equal packets are in flight: the oldest is served first and both are flagged `ambiguous`.

A walk ends by a fatal verdict, or where one of our observer chains reports: at the end of INPUT the
packet is handed to a socket, at the end of POSTROUTING to an interface.  Where there are no
observers it ends at the last base chain of INPUT or POSTROUTING: `outcome` decides when asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ipttrace.accounts import Interfaces, path_of
from ipttrace.choosing import choose, may_begin
from ipttrace.copies import is_copied_at, returning, split
from ipttrace.event import Event, FlowChange, FlowEvent, ForeignLog, Lost, TraceEvent, Undecoded
from ipttrace.fingerprint import Fingerprint, can_be_one, fingerprint
from ipttrace.netfilter import (
    Backend,
    ChainRef,
    Hook,
    RuleRef,
    TableFamily,
)
from ipttrace.observing import pass_observer
from ipttrace.packet import Flow, PacketSummary
from ipttrace.path import Outcome, PacketPath
from ipttrace.reassembly import Fragments
from ipttrace.report import Station
from ipttrace.rules_in_force import RulesInForce
from ipttrace.ruleset import Counter, Ruleset
from ipttrace.walk import Walk

CONNTRACK_LOG = "nf_ct_proto_"
"""How conntrack begins to say why a packet is INVALID (nf_ct_l4proto_log_invalid): evidence."""


@dataclass(slots=True)
class Tally:
    """What was counted beside the paths."""

    lost: int = 0
    """Messages that the kernel threw away, as far as it said."""
    undecoded: int = 0
    foreign: int = 0
    """Log messages that are no trace reports of these rules."""
    begun: int = 0
    """Packets that a trigger of somebody's has taken: without those that came of others here."""
    orphans: int = 0
    """Reports that continue no packet's way: its beginning was not seen, or they are forged."""


class Correlator:
    """The packets of one namespace."""

    def __init__(
        self,
        ruleset: Ruleset,
        *,
        ids: Iterator[int],
        netns: str | None = None,
        interfaces: Mapping[int, str] | None = None,
        bridges: Mapping[int, int] | None = None,
        created: frozenset[ChainRef] = frozenset(),
        own_table: tuple[TableFamily, str] | None = None,
    ) -> None:
        """Start with the rules as they are while the triggers are armed.

        `ids` numbers the packets of all namespaces; `bridges` is the bridge of each of its ports;
        `created` are base chains that exist only because of us, `own_table` is our own nft table.
        """
        self._rules = RulesInForce(ruleset, created)
        self.netns = netns
        self.tally = Tally()
        self.foreign: list[ForeignLog] = []
        self.last_time = 0.0
        self._ids = ids
        self._interfaces = Interfaces(dict(interfaces or {}), dict(bridges or {}))
        self._own_table = own_table
        self._walks: list[Walk] = []
        self._in_flight: defaultdict[Fingerprint, list[Walk]] = defaultdict(list)
        self._by_trace_id: dict[int, Walk] = {}
        self._fragments = Fragments()
        self._sequence: int | None = None
        self._number: int | None = None
        self._last_packet: PacketSummary | None = None
        self._last_key: Fingerprint = ()

    @property
    def ruleset(self) -> Ruleset:
        """The rules that the reports are looked up in."""
        return self._rules.newest

    def use(self, ruleset: Ruleset, *, changed: bool = True) -> None:
        """Look reports up in these rules and in those before, until `settle`: one changed them.

        If rules are `changed` that the user has made, all packets on their way may have met both.
        """
        self._rules.change(ruleset, changed=changed)
        self._note_change()

    def name_interfaces(self, names: Mapping[int, str], bridges: Mapping[int, int]) -> None:
        """Name interfaces so; of those that went since the last time the name is still known."""
        self._interfaces = self._interfaces.followed_by(names, bridges)

    def begin_anew(
        self,
        created: frozenset[ChainRef],
        own_table: tuple[TableFamily, str] | None,
        *,
        whole: bool,
    ) -> None:
        """Go on after new arming; if that was `whole`, packets on their way were seen in part."""
        self._rules.created, self._own_table = created, own_table
        if whole:
            self._sequence = None
            for walk in self._walks:
                walk.rules_changed = walk.rules_changed or not self._is_settled(walk)

    def settle(self) -> None:
        """Look reports up in the newest rules alone: what comes from now on is of them."""
        self._note_change()
        self._rules.settle()

    def _note_change(self) -> None:
        if self._rules.changing:
            for walk in self._walks:
                walk.rules_changed = walk.rules_changed or not self._is_settled(walk)

    def feed(self, event: Event, number: int | None = None) -> None:
        """Take one event, in the order in which the kernel gave it.

        `number` is that of its message in the queue, where these are counted.
        """
        self.last_time = event.time
        self._number = number
        match event:
            case TraceEvent():
                self._count_gap(event.sequence)
                self._trace(event)
            case FlowEvent():
                self._connection(event)
            case ForeignLog():
                self._count_gap(event.sequence)
                self._refuse(event)
            case Lost():
                self.tally.lost += event.count or 1
            case Undecoded():
                self.tally.undecoded += 1

    def _connection(self, event: FlowEvent) -> None:
        """Take a packet's new source from its conntrack entry, where no observer shows it."""
        if self._own_table is not None or event.change is not FlowChange.NEW:
            return
        for walk in reversed(self._walks):
            if walk.first.flow == event.original:
                walk.translate_source(event.reply.reversed(), event.time)
                return

    def _refuse(self, log: ForeignLog) -> None:
        if not log.prefix.startswith(CONNTRACK_LOG):
            self.tally.foreign += 1
        if len(self.foreign) < 100:
            self.foreign.append(log)

    def _count_gap(self, sequence: int | None) -> None:
        if sequence is None:
            return
        if self._sequence is not None and sequence != self._sequence + 1:
            self.tally.lost += max(0, sequence - self._sequence - 1)
        self._sequence = sequence

    def _trace(self, event: TraceEvent) -> None:
        station = self._rules.locator.locate(event)
        if station is None:
            self._refuse(ForeignLog(event.time, _prefix(event), event.packet))
            return
        if station.own and not self._is_ours(event):
            return
        walk = self._find(event, station)
        if walk is None:
            self.tally.orphans += 1
            return
        before = walk.packet
        walk.ruleset = self._rules.newest
        doubtful = self._rules.may_be_of_either(station.chain)
        walk.rules_changed = walk.rules_changed or doubtful
        if self._number is not None:
            walk.reports.append(self._number)
        walk.advance(event, station)
        walk.append(event, station, walk.learn(event, station))
        if station.own:
            pass_observer(walk, event, station, before, self._interfaces, self._rules.ends)

    def _is_ours(self, event: TraceEvent) -> bool:
        return self._own_table is not None and event.table == self._own_table[1]

    def _find(self, event: TraceEvent, station: Station) -> Walk | None:
        if event.packet is None:
            return self._by_trace_id.get(event.trace_id or 0)
        if event.packet is not self._last_packet:
            self._last_packet, self._last_key = event.packet, fingerprint(event.packet)
        key = self._last_key
        alike = [walk for walk in self._in_flight[key] if can_be_one(walk.packet, event.packet)]
        walk = choose(event, station, alike, self._by_trace_id.get(event.trace_id or 0))
        if walk is None:
            walk = self._rejoined(key, event.packet) or self._returned(event, station, key, alike)
        if walk is None:
            copied = is_copied_at(station, alike)
            if not copied and not may_begin(event, station):
                return None
            walk = self._begin(event, station, key, event.packet)
            walk.copied = copied
            self.tally.begun -= copied
        if event.trace_id is not None:
            self._by_trace_id[event.trace_id] = walk
        return walk

    def _surrounds(self, walk: Walk, station: Station) -> bool:
        """Tell whether a packet that begins at a station was born within the way of another.

        A rule that copies may be the first to report of its table, and then only after its copy.
        """
        if station.hook is Hook.OUTPUT and self._rules.copying:
            return True
        return walk.inside and walk.hook is not station.hook

    def _rejoined(self, key: Fingerprint, packet: PacketSummary) -> Walk | None:
        """Return the first fragment of a packet that was joined from fragments."""
        walk = self._fragments.join(packet)
        if walk is not None:
            self._in_flight[key].append(walk)
        return walk

    def _returned(
        self, event: TraceEvent, station: Station, key: Fingerprint, alike: list[Walk]
    ) -> Walk | None:
        """Return the copy of a packet that its sender receives."""
        walk = returning(event, station, alike)
        if walk is None:
            return None
        if not walk.copied:
            walk = split(walk, next(self._ids))
            self._walks.append(walk)
            self._in_flight[key].append(walk)
        walk.come_back()
        return walk

    def _begin(
        self, event: TraceEvent, station: Station, key: Fingerprint, packet: PacketSummary
    ) -> Walk:
        walk = Walk(next(self._ids), packet, event)
        self.tally.begun += 1
        waiting = [other for other in self._in_flight[key] if not self._is_settled(other)]
        rivals = [other for other in waiting if can_be_one(other.packet, packet)]
        around = [other for other in rivals if self._surrounds(other, station)]
        walk.parent = around[-1] if around else None
        self.tally.begun -= walk.parent is not None
        if rivals and walk.parent is None and event.backend is Backend.LEGACY:
            walk.ambiguous = True
            for other in rivals:
                other.ambiguous = True
        self._walks.append(walk)
        self._fragments.note(walk)
        self._in_flight[key] = [*waiting, walk]
        return walk

    def _is_settled(self, walk: Walk) -> bool:
        """Tell whether nothing more can be reported of a packet."""
        return walk.fate is not None or walk.whole is not None or self._rules.ends.reached_by(walk)

    def outcome(self, walk: Walk) -> Outcome:
        """Return a packet's fate as far as it is known now; that of a fragment is the whole's."""
        if walk.whole is not None:
            return self.outcome(walk.whole)
        if walk.fate is not None:
            return walk.fate
        if self._own_table is None and self._rules.ends.reached_by(walk):
            if walk.hook is Hook.INPUT:
                return Outcome.DELIVERED
            return Outcome.SENT if walk.local else Outcome.FORWARDED
        missing = self.tally.lost or self.tally.orphans or walk.rules_changed
        return Outcome.INCOMPLETE if missing else Outcome.LOST

    @property
    def begun(self) -> int:
        """How many packets were seen so far."""
        return len(self._walks)

    def pending(self, first: int = 0) -> frozenset[int]:
        """Return the ids of the packets that may still report, the `first` ones left out."""
        return frozenset(walk.id for walk in self._walks[first:] if not self._is_settled(walk))

    def paths(
        self, changes: Mapping[RuleRef, Counter] | None = None, first: int = 0
    ) -> tuple[PacketPath, ...]:
        """Return the packets so far, oldest first, with the counters' `changes` on their hops.

        The `first` packets are left out.
        """
        return tuple(self._path(walk, changes or {}) for walk in self._walks[first:])

    def _path(self, walk: Walk, changes: Mapping[RuleRef, Counter]) -> PacketPath:
        return path_of(walk, self.outcome(walk), self.netns, self._interfaces, changes)

    def take(self, before: float) -> tuple[PacketPath, ...]:
        """Return and forget the packets of which nothing more is to come.

        These are the ended ones, and those whose last report is older than `before`.
        """
        done = [walk for walk in self._walks if walk.ended or walk.last_time < before]
        if not done:
            return ()
        paths = tuple(replace(self._path(walk, {}), ruleset=walk.ruleset) for walk in done)
        gone = set(map(id, done))
        self._walks = [walk for walk in self._walks if id(walk) not in gone]
        self._in_flight.clear()
        self._fragments.forget(gone)
        for walk in self._walks:
            self._in_flight[fingerprint(walk.packet)].append(walk)
        self._by_trace_id = {
            number: walk for number, walk in self._by_trace_id.items() if id(walk) not in gone
        }
        return paths

    def flows_of(self) -> dict[int, tuple[Flow, ...]]:
        """Return every flow that each packet has had, by path id: NAT gives it new ones."""
        return {walk.id: tuple(walk.flows) for walk in self._walks}


def _prefix(event: TraceEvent) -> str:
    return f"TRACE: {event.table}:{event.chain}:{event.kind}:{event.number} "
