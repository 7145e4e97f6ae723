"""One packet on its way through one namespace: where it is, and what it met so far."""

from __future__ import annotations

from dataclasses import replace

from ipttrace.event import TraceEvent
from ipttrace.mapped import matched_element
from ipttrace.netfilter import (
    FATAL_VERDICTS,
    Backend,
    Hook,
    Stage,
    TableFamily,
    Verdict,
)
from ipttrace.packet import Flow, PacketSummary, complete
from ipttrace.path import Change, NatHop, Outcome, WireHop
from ipttrace.report import Base, Station, Step
from ipttrace.rewrites import differences, nat_hop, source_hop
from ipttrace.ruleset import Ruleset
from ipttrace.targets import ADDRESS_FIELDS, answers, translates

_CLOSING = frozenset({Verdict.ACCEPT, Verdict.QUEUE, Verdict.STOLEN}) | FATAL_VERDICTS
_LEAVING = frozenset({Hook.FORWARD, Hook.OUTPUT, Hook.POSTROUTING})
FIRST_PRIORITY, LAST_PRIORITY = -(1 << 31), (1 << 31) - 1


class Walk:
    """A packet that is (or was) on its way; the correlator's unit of state.

    `hook`, `priority` and `base` say which walk of a base chain reported last; `base_open` whether
    that walk can report again, `base_from` is the index of its first hop.  `headers_from` and
    `mark_from` are the indexes of the first hop that may have changed what was last known of the
    headers and of the mark.  `reached` is kept only of packets that meet a bridge's chains: how far
    they came at each stage.
    """

    __slots__ = (
        "ambiguous",
        "base",
        "base_from",
        "base_open",
        "bridged",
        "copied",
        "fate",
        "first",
        "first_in",
        "first_mark",
        "flows",
        "headers_from",
        "hook",
        "hops",
        "id",
        "last_chain",
        "last_number",
        "last_time",
        "local",
        "mark",
        "mark_from",
        "open_end",
        "out_index",
        "packet",
        "parent",
        "physical_in",
        "physical_out",
        "priority",
        "reached",
        "reports",
        "rules_changed",
        "ruleset",
        "time",
        "visited",
        "whole",
    )

    def __init__(self, number: int, packet: PacketSummary, event: TraceEvent) -> None:
        self.id = number
        self.first = self.packet = packet
        self.flows = [packet.flow]
        """Every flow that the packet has had."""
        self.first_mark = self.mark = event.mark or 0
        bridged = event.table_family is TableFamily.BRIDGE
        self.first_in = None if bridged else event.in_index
        self.out_index = None if bridged else event.out_index
        self.physical_in: int | None = None
        self.physical_out: int | None = None
        """The ports, where it came in by a bridge or left by one."""
        self.time = self.last_time = event.time
        self.hook: Hook | None = None
        self.bridged = False
        self.priority = FIRST_PRIORITY
        self.reached: dict[Stage, int] = {}
        self.base: Base | None = None
        self.base_from, self.base_open = 0, False
        self.last_chain = ""
        self.last_number = 0
        self.visited: set[Base] = set()
        self.hops: list[Step | NatHop | WireHop] = []
        self.headers_from = self.mark_from = 0
        self.reports: list[int] = []
        """The numbers of its reports in the queue, where that counts them."""
        self.parent: Walk | None = None
        self.ruleset: Ruleset | None = None
        """The rules that it met last."""
        self.whole: Walk | None = None
        """The first of its fragments, which went on as the packet that they were joined to."""
        self.fate: Outcome | None = None
        self.open_end = False
        """It left, and a bridge's chains or those of EGRESS may report it yet."""
        self.ambiguous = self.local = self.copied = self.rules_changed = False
        """`local`: the packet was made in this namespace; `copied`: it is the copy that goes back
        to this host (`copies`); `rules_changed`: reports of it may be about rules before a change.
        """

    @property
    def ended(self) -> bool:
        """Whether the kernel said how it ended, and will say no more."""
        return self.fate is not None and not self.open_end

    @property
    def inside(self) -> bool:
        """Whether it is in the midst of a chain that is not ours."""
        return self.base_open and len(self.hops) > self.base_from

    @property
    def root(self) -> Walk:
        """The packet of which it is a copy, or a copy's copy; itself if it is none."""
        return self.parent.root if self.parent else self

    def advance(self, event: TraceEvent, station: Station) -> None:
        """Move to where the report came from."""
        self.last_time = event.time
        self.last_chain, self.last_number = event.chain, event.number or 0
        base, hook = station.base, station.hook
        if base is None or hook is None:
            return
        if self.hook is None:
            self.local = self.copied or (hook is Hook.OUTPUT and not station.bridged)
        elif station.bridged or self.bridged:
            self.reached[self.hook, self.bridged] = self.priority
        if base != self.base:
            self.visited.add(base)
            self.base = base
            self.base_from = len(self.hops)
        self.hook, self.bridged = hook, station.bridged
        self.priority = station.priority
        self.base_open = True
        if station.bridged:
            self._note_ports(event.in_index, event.out_index)
            return
        if event.out_index and hook in _LEAVING:
            self.out_index = event.out_index
        if event.physical_in or event.physical_out:
            self._note_ports(event.physical_in, event.physical_out)
        if self.first_in is None and self.physical_in is not None:
            self.first_in = event.in_index

    def _note_ports(self, physical_in: int | None, physical_out: int | None) -> None:
        self.physical_in = self.physical_in or physical_in
        self.physical_out = physical_out or self.physical_out

    def learn(self, event: TraceEvent, station: Station) -> tuple[Change, ...]:
        """Take over the headers and the mark that a report shows.

        Each change goes to the step whose rule makes such changes; those that the reporting rule
        made itself are returned.
        """
        changed: list[Change] = []
        if event.packet is not None and event.packet is not self.packet:
            seen = self._seen_whole(event.packet)
            changed = differences(self.packet, seen)
            self.packet = seen
            if changed and self.packet.flow != self.flows[-1]:
                self.flows.append(self.packet.flow)
        mark = event.mark
        if mark is not None and mark != self.mark:
            changed.append(Change("mark", self.mark, mark))
            self.mark = mark
        return self._blame(changed, station, event.time) if changed else ()

    def _seen_whole(self, seen: PacketSummary) -> PacketSummary:
        """Return a new look at the packet, completed by earlier looks; it completes these."""
        if seen.partial:
            return complete(seen, self.packet)
        if self.packet.partial:
            self.packet = complete(self.packet, seen)
            self.first = complete(self.first, seen)
            self.flows = [self.first.flow]
        if len(seen.head) > len(self.first.head) and not differences(self.first, seen):
            self.first = replace(self.first, head=seen.head)
        return seen

    def _blame(self, changes: list[Change], station: Station, time: float) -> tuple[Change, ...]:
        """Return the changes of `station` itself, and put the others where they belong.

        Addresses that no rule here changed were rewritten by conntrack from an existing entry.
        """
        mine = tuple(change for change in changes if change.field in station.immediate)
        others = [change for change in changes if change not in mine]
        unexplained = [change for change in others if not self._blame_earlier(change)]
        translated = [change for change in unexplained if change.field in ADDRESS_FIELDS]
        if translated:
            self.hops.append(nat_hop(self.packet, translated, time))
        return mine

    def _blame_earlier(self, change: Change) -> bool:
        first = self.mark_from if change.field == "mark" else self.headers_from
        for step in reversed(self.hops[first:]):
            if isinstance(step, Step) and self._made_by(change, step):
                step.changes = (*step.changes, change)
                return True
        return False

    def _made_by(self, change: Change, step: Step) -> bool:
        """Tell whether a step's rule makes such changes.

        A reset meets nat chains only if REJECT made it: it then goes back on the connection that it
        ends, and what a nat rule decides is for packets the other way (nf_ct_attach).
        """
        rule = step.station.rule
        back = "RST" in self.packet.tcp_flags and change.field in ADDRESS_FIELDS
        if back and rule is not None and translates(rule.target, rule.text):
            return False
        return change.field in step.station.changes

    def append(self, event: TraceEvent, station: Station, changes: tuple[Change, ...]) -> None:
        """Add a step unless it is a hidden one, and note what can come after it."""
        self.mark_from = len(self.hops)
        if event.packet is not None:
            self.headers_from = self.mark_from
        if not station.hidden:
            step = Step(station, event.time, station.hook or self.hook, self.priority)
            step.changes, step.target = changes, event.target_chain
            if station.rule is not None and station.rule.elements:
                led = event.verdict, event.target_chain
                step.element = matched_element(station.rule, *led, self.packet)
            self.hops.append(step)
            if event.backend is Backend.NFT:
                self.mark_from += 1
            self._settle(station)
        if station.closes:
            self.base_open = False

    def _settle(self, station: Station) -> None:
        verdict = station.verdict
        if verdict in _CLOSING:
            self.base_open = False
        if verdict is Verdict.DROP:
            self.fate, self.open_end = Outcome.DROPPED, False
        elif verdict is Verdict.REJECT:
            self.fate, self.open_end = Outcome.REJECTED, False
        elif verdict is Verdict.STOLEN and station.rule and answers(station.rule.target):
            self.fate, self.open_end = Outcome.DELIVERED, False

    def note_source(self, before: PacketSummary, time: float) -> None:
        """Add the nat hop where the last chains of a hook gave the packet another source."""
        if (before.src, before.sport) == (self.packet.src, self.packet.sport):
            return
        last = self.hops[-1] if self.hops else None
        if not (isinstance(last, NatHop) and last.source):
            self.hops.append(source_hop(before, self.packet, time))

    def translate_source(self, flow: Flow, time: float) -> None:
        """Add the nat hop that a conntrack entry proves: `flow` is what the packet became."""
        before = self.packet
        self.packet = replace(before, src=flow.src, sport=flow.sport)
        if self.packet.flow != self.flows[-1]:
            self.flows.append(self.packet.flow)
            self.note_source(before, time)

    def leave(
        self, outcome: Outcome, wire: WireHop | None = None, *, open_end: bool = False
    ) -> None:
        """End the walk as the kernel reported; with `open_end` later chains may yet report it."""
        self.fate = outcome
        self.open_end = open_end
        self.base_open = False
        if wire is not None:
            self.hops.append(wire)

    def come_back(self) -> None:
        """Go on: what was sent is received here again."""
        self.fate, self.open_end = None, False

    def back_behind_output(self, hops: list[Step], mark: int) -> None:
        """Go back to where OUTPUT was over, with these hops and this mark."""
        self.hops, self.mark = [*hops], mark
        self.headers_from = self.mark_from = len(hops)
        self.hook, self.priority = Hook.OUTPUT, LAST_PRIORITY
        self.base, self.base_open = None, False
        self.visited = {base for base in self.visited if base[3] is Hook.OUTPUT}
        self.come_back()
