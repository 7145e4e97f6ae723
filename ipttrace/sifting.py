"""Which reports in the kernel log, common to all namespaces, are about packets of one session.

A report names interfaces, but no namespace: another namespace has an `eth0` and a `lo`, too.  Our
own nft table is in this namespace alone: a packet that its chains reported is one of ours, and so
is every answer, because it is they that trace answers.  Of the traced flow itself the first report
may come before any of theirs: it comes at the hook where the trigger stands, and is of that flow.
On its way from one namespace to another a packet is made in the first and comes into the second:
one that came in is not one that was made here.

A LOG rule of the user's prints to the same log, with a prefix of its own that may imitate a report.
ip_tables reports the rule before it acts: what follows of the same packet with just that prefix is
the rule's own line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ipttrace.event import Event, ForeignLog, TraceEvent
from ipttrace.netfilter import LOOPBACK_INDEX
from ipttrace.packet import Flow, PacketSummary
from ipttrace.ports import TraceRequest
from ipttrace.report import Fingerprint, fingerprint
from ipttrace.ruleset import Ruleset

Key = tuple[Fingerprint, bool]

_LOG_PREFIX = re.compile(r' --log-prefix "(TRACE: [^"]*)"')
"""As iptables-save writes a prefix that can imitate a report: it has a space."""

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
        self._announced: dict[Key, str] = {}
        """The prefix that a LOG rule is about to print of a packet."""

    def sift(
        self, logged: Sequence[Event], traced: Sequence[Event], ruleset: Ruleset
    ) -> list[Event]:
        """Return what was logged, with others' reports as `ForeignLog`.

        `traced` is what netlink said up to the same moment.
        """
        for event in traced:
            if isinstance(event, TraceEvent) and event.packet is not None:
                self._remember(_key(event, event.packet))
        return [self._judged(event, ruleset) for event in logged]

    def _judged(self, event: Event, ruleset: Ruleset) -> Event:
        if not isinstance(event, TraceEvent) or event.packet is None:
            return event
        key = _key(event, event.packet)
        if self._tells and key not in self._ours and self._is_first(event, event.packet):
            self._remember(key)
        stranger = self._tells and key not in self._ours
        if stranger or self._announced.pop(key, None) == _prefix(event):
            return ForeignLog(event.time, _prefix(event), event.packet)
        place = ruleset.locate(event)
        if place is not None and place.rule is not None and place.rule.target == "LOG":
            self._announce(key, place.rule.text)
        return event

    def _announce(self, key: Key, rule: str) -> None:
        prefix = _LOG_PREFIX.search(rule)
        if prefix is not None:
            self._announced[key] = prefix[1]
        if len(self._announced) > REMEMBERED:
            del self._announced[next(iter(self._announced))]

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

    def _remember(self, key: Key) -> None:
        self._ours.pop(key, None)
        self._ours[key] = None
        if len(self._ours) > REMEMBERED:
            del self._ours[next(iter(self._ours))]


def _key(event: TraceEvent, packet: PacketSummary) -> Key:
    """Return what tells a packet from others, and one that came in from one that was made here."""
    return fingerprint(packet), event.in_index not in (None, LOOPBACK_INDEX)


def _prefix(event: TraceEvent) -> str:
    return f"TRACE: {event.table}:{event.chain}:{event.kind}:{event.number} "
