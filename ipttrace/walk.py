"""One packet on its way through one namespace: where it is, and what it met so far."""

from __future__ import annotations

from dataclasses import replace

from ipttrace.event import TraceEvent
from ipttrace.netfilter import (
    FATAL_VERDICTS,
    INET_HOOKS,
    LOOPBACK_INDEX,
    Backend,
    Basis,
    Hook,
    Verdict,
    leads_to,
    nat_priority,
)
from ipttrace.packet import Flow, PacketSummary
from ipttrace.path import ChainHop, Change, Hop, NatHop, Outcome, WireHop
from ipttrace.report import Base, Report
from ipttrace.targets import ADDRESS_FIELDS, may_change

_CLOSING = frozenset({Verdict.ACCEPT, Verdict.QUEUE, Verdict.STOLEN}) | FATAL_VERDICTS
FIRST_PRIORITY = -(1 << 31)


class Walk:
    """A packet that is (or was) on its way; the correlator's unit of state.

    `hook`, `priority` and `base` say which walk of a base chain reported last; `base_open` whether
    that walk can report again.  `headers_from` and `mark_from` are the indexes of the first hop
    that may have changed what was last known of the headers and of the mark.
    """

    __slots__ = (
        "ambiguous",
        "base",
        "base_open",
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
        "loopback",
        "mark",
        "mark_from",
        "out_index",
        "packet",
        "parent",
        "priority",
        "time",
        "visited",
    )

    def __init__(self, number: int, packet: PacketSummary, event: TraceEvent) -> None:
        self.id = number
        self.first = self.packet = packet
        self.flows = [packet.flow]
        """Every flow that the packet has had."""
        self.first_mark = self.mark = event.mark or 0
        self.first_in = event.in_index
        self.out_index = event.out_index
        self.time = self.last_time = event.time
        self.hook: Hook | None = None
        self.priority = FIRST_PRIORITY
        self.base: Base | None = None
        self.base_open = False
        self.last_chain = ""
        self.last_number = 0
        self.visited: set[Base] = set()
        self.hops: list[Hop] = []
        self.headers_from = self.mark_from = 0
        self.parent: Walk | None = None
        self.fate: Outcome | None = None
        self.ambiguous = False
        self.loopback = False
        self.local = False
        """The packet was made in this namespace."""

    @property
    def ended(self) -> bool:
        """Whether the kernel said how it ended."""
        return self.fate is not None

    def can_take(self, report: Report) -> bool:
        """Tell whether this packet can be the one that reported."""
        here, there = self.hook, report.hook
        if self.ended or here is None or there is None:
            return not self.ended
        walked_on = report.base == self.base and there is here and self.base_open
        if walked_on and not self._is_further(report.event):
            return False
        if not walked_on:
            if report.base in self.visited:
                return False
            if there is here and (report.priority or 0) < self.priority:
                return False
            if there is not here and not leads_to(here, there, report.event.in_index):
                return False
        return self._same_addresses(report, here, there)

    def _is_further(self, event: TraceEvent) -> bool:
        """Tell whether a report is further down the chain that reported last.

        A chain is entered again only from another chain, whose jump reports.
        """
        return event.chain != self.last_chain or (event.number or 0) > self.last_number

    def _same_addresses(self, report: Report, here: Hook, there: Hook) -> bool:
        seen = report.event.packet
        if seen is None or _addresses(seen) == _addresses(self.packet):
            return True
        return self._crosses_nat(report, here, there) or self._may_have_changed(ADDRESS_FIELDS)

    def _crosses_nat(self, report: Report, here: Hook, there: Hook) -> bool:
        """Tell whether conntrack rewrites addresses somewhere between here and the report."""
        for hook in INET_HOOKS:
            at = nat_priority(hook)
            if at is None:
                continue
            ahead = self.priority <= at if hook is here else leads_to(here, hook, LOOPBACK_INDEX)
            if not ahead:
                continue
            if hook is there and at <= (report.priority or 0):
                return True
            if hook is not there and leads_to(hook, there, report.event.in_index):
                return True
        return False

    def _may_have_changed(self, fields: frozenset[str]) -> bool:
        return any(
            fields & may_change(hop.target, hop.rule)
            for hop in self.hops[self.headers_from :]
            if isinstance(hop, ChainHop)
        )

    def advance(self, report: Report) -> None:
        """Move to where the report came from."""
        event = report.event
        self.last_time = event.time
        self.last_chain, self.last_number = event.chain, event.number or 0
        if report.base is None or report.hook is None:
            return
        if self.hook in (Hook.POSTROUTING, Hook.OUTPUT) and report.hook is Hook.PREROUTING:
            self.loopback = True
        if self.hook is None:
            self.local = report.hook is Hook.OUTPUT
        if report.base != self.base:
            self.visited.add(report.base)
        self.hook, self.base = report.hook, report.base
        self.priority = report.priority or 0
        self.base_open = True
        if event.out_index and report.hook in (Hook.POSTROUTING, Hook.OUTPUT, Hook.FORWARD):
            self.out_index = event.out_index

    def learn(self, report: Report, hop: ChainHop | None) -> ChainHop | None:
        """Take over the headers and the mark that a report shows, and say which hop changed them.

        Returns `hop` with what it changed itself: an nft rule reports after it was evaluated, a
        legacy rule before.
        """
        own = hop if report.event.backend is Backend.NFT else None
        changed: list[Change] = []
        if report.event.packet is not None:
            changed = _differences(self.packet, report.event.packet)
            self.packet = report.event.packet
            if self.packet.flow != self.flows[-1]:
                self.flows.append(self.packet.flow)
        mark = self._reported_mark(report.event)
        if mark != self.mark:
            changed.append(Change("mark", self.mark, mark))
            self.mark = mark
        own_changes = self._blame(changed, own, report.event.time)
        if hop is not None and own_changes:
            hop = replace(hop, changes=own_changes)
        return hop

    def _reported_mark(self, event: TraceEvent) -> int:
        if event.mark is None and event.verdict is Verdict.STOLEN:
            return self.mark
        return event.mark or 0

    def _blame(
        self, changes: list[Change], own: ChainHop | None, time: float
    ) -> tuple[Change, ...]:
        """Put each change on the hop whose rule makes such changes; return those of `own`.

        Addresses that no rule here changed were rewritten by conntrack from an existing entry.
        """
        mine: list[Change] = []
        unexplained: list[Change] = []
        for change in changes:
            field = frozenset({change.field})
            immediate = field & may_change(own.target, own.rule) if own else frozenset()
            if own and immediate and (field.isdisjoint(ADDRESS_FIELDS) or _rewrites_now(own)):
                mine.append(change)
            elif not self._blame_earlier(change):
                unexplained.append(change)
        translated = [change for change in unexplained if change.field in ADDRESS_FIELDS]
        if translated:
            self.hops.append(_nat_hop(self.packet, translated, time))
        return tuple(mine)

    def _blame_earlier(self, change: Change) -> bool:
        first = self.mark_from if change.field == "mark" else self.headers_from
        for index in range(len(self.hops) - 1, first - 1, -1):
            hop = self.hops[index]
            if isinstance(hop, ChainHop) and change.field in may_change(hop.target, hop.rule):
                self.hops[index] = replace(hop, changes=(*hop.changes, change))
                return True
        return False

    def append(self, report: Report, hop: ChainHop | None) -> None:
        """Add a hop (None: a hidden one), and note what can come after it."""
        self.mark_from = len(self.hops)
        if report.event.packet is not None:
            self.headers_from = len(self.hops)
        if hop is not None:
            self.hops.append(hop)
            if report.event.backend is Backend.NFT:
                self.mark_from = len(self.hops)
            self._settle(hop.verdict)
        if report.rule is None and not report.event.header_only and report.base is not None:
            self.base_open = not (report.chain is not None and report.chain.hook is not None)

    def _settle(self, verdict: Verdict | None) -> None:
        if verdict in _CLOSING:
            self.base_open = False
        if verdict is Verdict.DROP:
            self.fate = Outcome.DROPPED
        elif verdict is Verdict.REJECT:
            self.fate = Outcome.REJECTED

    def note_source(self, before: PacketSummary, time: float) -> None:
        """Add the nat hop where the last chains of a hook gave the packet another source."""
        if (before.src, before.sport) == (self.packet.src, self.packet.sport):
            return
        last = self.hops[-1] if self.hops else None
        if not (isinstance(last, NatHop) and last.source):
            self.hops.append(_source_hop(before, self.packet, time))

    def translate_source(self, flow: Flow, time: float) -> None:
        """Add the nat hop that a conntrack entry proves: `flow` is what the packet became."""
        before = self.packet
        self.packet = replace(before, src=flow.src, sport=flow.sport)
        if self.packet.flow != self.flows[-1]:
            self.flows.append(self.packet.flow)
            self.note_source(before, time)

    def leave(self, outcome: Outcome, wire: WireHop | None = None) -> None:
        """End the walk as the kernel reported."""
        self.fate = outcome
        self.base_open = False
        if wire is not None:
            self.hops.append(wire)


def _addresses(packet: PacketSummary) -> tuple[object, ...]:
    return packet.src, packet.dst, packet.sport, packet.dport


def _differences(old: PacketSummary, new: PacketSummary) -> list[Change]:
    names = ("src", "dst", "sport", "dport", "ttl")
    pairs = [(name, getattr(old, name), getattr(new, name)) for name in names]
    return [Change(*pair) for pair in pairs if pair[1] != pair[2] and pair[2] is not None]


def _rewrites_now(hop: ChainHop) -> bool:
    """Tell whether an nft rule writes into the header itself; NAT waits for the end of the hook."""
    return hop.rule is not None and " set " in hop.rule and not hop.rule.startswith("-A ")


def endpoint(packet: PacketSummary, address: str, port: int | None) -> str:
    """Return `address:port`, in IPv6 `[address]:port`; the bare address without a port."""
    if port is None:
        return address
    return f"[{address}]:{port}" if packet.family == "ipv6" else f"{address}:{port}"


def _source_hop(before: PacketSummary, after: PacketSummary, time: float) -> NatHop:
    return NatHop(
        time,
        Basis.REPORTED,
        source=(
            endpoint(before, before.src, before.sport),
            endpoint(after, after.src, after.sport),
        ),
    )


def _nat_hop(packet: PacketSummary, changes: list[Change], time: float) -> NatHop:
    """Return the nat hop for address changes that led to `packet`."""
    old = {change.field: change.old for change in changes}
    source = (
        endpoint(packet, str(old.get("src", packet.src)), _port(old.get("sport", packet.sport))),
        endpoint(packet, packet.src, packet.sport),
    )
    destination = (
        endpoint(packet, str(old.get("dst", packet.dst)), _port(old.get("dport", packet.dport))),
        endpoint(packet, packet.dst, packet.dport),
    )
    return NatHop(
        time,
        Basis.REPORTED,
        source if source[0] != source[1] else None,
        destination if destination[0] != destination[1] else None,
    )


def _port(value: str | int | None) -> int | None:
    return value if isinstance(value, int) else None
