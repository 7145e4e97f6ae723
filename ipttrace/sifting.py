"""Which reports in the kernel log, common to all namespaces, are about packets of one session.

A report names interfaces, but no namespace: another namespace has an `eth0` and a `lo`, too.  Our
own nft table is in this namespace alone: a packet that its chains reported is one of ours, and so
is every answer, because it is they that trace answers.  Of the traced flow itself the first report
may come before any of theirs: it comes at the hook where the trigger stands, and is of that flow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ipttrace.event import Event, ForeignLog, TraceEvent
from ipttrace.packet import Flow, PacketSummary
from ipttrace.ports import TraceRequest
from ipttrace.report import Fingerprint, fingerprint
from ipttrace.ruleset import OWN_TABLE, Ruleset

REMEMBERED = 4096
"""Packets that are known to be ours; reports of one packet come close together."""


class Sieve:
    """Tells a session's packets from others'."""

    def __init__(self, request: TraceRequest) -> None:
        self._request = request
        self._ours: dict[Fingerprint, None] = {}

    def sift(
        self,
        logged: Sequence[Event],
        traced: Sequence[Event],
        ruleset: Ruleset,
    ) -> list[Event]:
        """Return what was logged, with others' reports as `ForeignLog`.

        `traced` is what netlink said up to the same moment.  All reports count as ours where no
        table of ours stands, and where a filter says what is traced: it looks at more than is
        logged.
        """
        if self._request.flow is None or not _has_own_table(ruleset):
            return list(logged)
        for packet in _packets(traced):
            self._remember(fingerprint(packet))
        return [self._judged(event) for event in logged]

    def _judged(self, event: Event) -> Event:
        if not isinstance(event, TraceEvent) or event.packet is None:
            return event
        key = fingerprint(event.packet)
        if key not in self._ours and self._is_first(event, event.packet):
            self._remember(key)
        if key in self._ours:
            return event
        return ForeignLog(event.time, f"TRACE: {event.table}:{event.chain}", event.packet)

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

    def _remember(self, key: Fingerprint) -> None:
        self._ours.pop(key, None)
        self._ours[key] = None
        if len(self._ours) > REMEMBERED:
            del self._ours[next(iter(self._ours))]


def _packets(events: Sequence[Event]) -> Iterator[PacketSummary]:
    for event in events:
        if isinstance(event, TraceEvent) and event.packet is not None:
            yield event.packet


def _has_own_table(ruleset: Ruleset) -> bool:
    return any(ref.table.startswith(OWN_TABLE) for ref in ruleset.chains)
