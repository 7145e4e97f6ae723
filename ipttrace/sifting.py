"""Which reports in the kernel log, common to all namespaces, are about packets of one session.

A report names interfaces, but no namespace: another namespace has an `eth0` and a `lo`, too.  Our
own nft table is in this namespace alone: a packet that its chains reported is one of ours, and so
is every answer, because it is they that trace answers.  Of the traced flow itself the first report
may come before any of theirs: it comes at the hook where the trigger stands, and is of that flow.
On its way from one namespace to another a packet is made in the first and comes into the second:
one that came in is not one that was made here.

A LOG rule of the user's prints to the same log, with a prefix of its own that may imitate a report.
But the rule is reported, too, so that a line of the same packet with just its prefix, between the
same interfaces, is the rule's.  ip_tables reports it before it acts, nf_tables after that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from ipttrace.event import Event, ForeignLog, TraceEvent
from ipttrace.fingerprint import Fingerprint, fingerprint
from ipttrace.netfilter import LOOPBACK_INDEX
from ipttrace.packet import Flow, PacketSummary
from ipttrace.request import TraceRequest
from ipttrace.ruleset import Ruleset

Key = tuple[Fingerprint, bool]
"""What tells a packet from others, and whether it came in or was made here."""


class Look(NamedTuple):
    """A packet between two interfaces."""

    fingerprint: Fingerprint
    protocol: str
    in_index: int | None
    out_index: int | None

    @property
    def key(self) -> Key:
        """The packet, wherever it is."""
        return self.fingerprint, self.in_index not in (None, LOOPBACK_INDEX)


K = TypeVar("K")
V = TypeVar("V")

_LOG_PREFIX = re.compile(r'(?: --log-|\blog )prefix "(TRACE: [^"]*)"')
"""As iptables-save and nft write a prefix that can imitate a report: it has a space."""

_LOG_SEQUENCE = re.compile(r" --log-tcp-sequence\b|\blog .*\bflags (?:all\b|tcp .*\bsequence\b)")

REMEMBERED = 4096
"""Packets that are known to be ours; reports of one packet come close together."""


class Sieve:
    """Tells a session's packets from others'."""

    def __init__(self, request: TraceRequest, *, has_own_table: bool) -> None:
        """All counts as ours without a table of ours, and where a filter says what is traced.

        A filter looks at more than is logged.
        """
        self._request = request
        self._tells = has_own_table and request.flow is not None
        self._ours: dict[Key, None] = {}
        self._by_id: dict[int, Look] = {}
        self._printed: dict[tuple[Look, str], int] = {}
        """How many lines LOG rules printed, by their prefix."""

    def sift(
        self, logged: Sequence[Event], traced: Sequence[Event], ruleset: Ruleset
    ) -> list[Event]:
        """Return what was logged, with others' reports as `ForeignLog`.

        `traced` is what netlink said up to the same moment.
        """
        for event in traced:
            if isinstance(event, TraceEvent):
                self._take(event, ruleset)
        return [self._judged(event, ruleset) for event in logged]

    def _take(self, event: TraceEvent, ruleset: Ruleset) -> None:
        """Learn from a report of nf_tables: headers, or a trace id, say of which packet it is."""
        trace_id = event.trace_id or 0
        look = self._by_id.get(trace_id)
        if event.packet is not None:
            look = _look(event, event.packet)
            _remember(self._ours, look.key, None)
            _remember(self._by_id, trace_id, look)
        if look is not None:
            self._expect(look, event, ruleset)

    def _judged(self, event: Event, ruleset: Ruleset) -> Event:
        if not isinstance(event, TraceEvent) or event.packet is None:
            return event
        look = _look(event, event.packet)
        if self._tells and look.key not in self._ours and self._is_first(event, event.packet):
            _remember(self._ours, look.key, None)
        stranger = self._tells and look.key not in self._ours
        if stranger or self._is_printed(look, _prefix(event)):
            return ForeignLog(event.time, _prefix(event), event.packet)
        self._expect(look, event, ruleset)
        return event

    def _expect(self, look: Look, event: TraceEvent, ruleset: Ruleset) -> None:
        """Expect the line of a LOG rule, if that is what was reported and it can pass for one.

        Of TCP a report shows the sequence number, see `decode.kernel_log.decode_line`.
        """
        place = ruleset.locate(event)
        rule = place.rule if place is not None else None
        if rule is None or (look.protocol == "tcp" and not _LOG_SEQUENCE.search(rule.text)):
            return
        prefix = _LOG_PREFIX.search(rule.text)
        if prefix is not None:
            line = (look, prefix[1])
            _remember(self._printed, line, self._printed.get(line, 0) + 1)

    def _is_printed(self, look: Look, prefix: str) -> bool:
        left = self._printed.pop((look, prefix), 0)
        if left > 1:
            self._printed[look, prefix] = left - 1
        return left > 0

    def _is_first(self, event: TraceEvent, packet: PacketSummary) -> bool:
        """Tell whether a report can be the first of a packet that the trigger met."""
        flow = self._request.flow
        return event.hook is self._request.hook and flow is not None and self._is_of(flow, packet)

    def _is_of(self, flow: Flow, packet: PacketSummary) -> bool:
        """Tell whether a packet is of the flow, as far as the request knows it."""
        request, seen = self._request, packet.flow
        if (flow.family, flow.protocol) != (seen.family, seen.protocol):
            return False
        pairs: list[tuple[object, object]] = [
            (flow.icmp_id, seen.icmp_id),
            (flow.sport, seen.sport),
        ]
        if not request.any_source:
            pairs.append((flow.src, seen.src))
        if not request.any_destination:
            pairs += [(flow.dst, seen.dst), (flow.dport, seen.dport)]
        return all(wanted is None or wanted == found for wanted, found in pairs)


def _remember(known: dict[K, V], key: K, value: V) -> None:
    """Keep the newest; so many packets are not in flight at once."""
    known.pop(key, None)
    known[key] = value
    if len(known) > REMEMBERED:
        del known[next(iter(known))]


def _look(event: TraceEvent, packet: PacketSummary) -> Look:
    return Look(fingerprint(packet), packet.protocol, event.in_index, event.out_index)


def _prefix(event: TraceEvent) -> str:
    return f"TRACE: {event.table}:{event.chain}:{event.kind}:{event.number} "
