r"""Trace reports of ip_tables in the kernel log, as nf_log_ipv4 and nf_log_ipv6 print them.

A record of /dev/kmsg (Documentation/ABI/testing/dev-kmsg) is
`level,sequence,microseconds,flags;text`, with bytes outside printable ASCII written as `\xNN`.  A
report's text is `TRACE: table:chain:kind:number ` (trace_packet in net/ipv4/netfilter/ip_tables.c),
then `IN= OUT= ...` and the packet (net/netfilter/nf_log_syslog.c).

The log is shared by all namespaces and names none: a report whose interfaces do not exist here is
not ours, and whether a chain of these rules can have said it is for `ruleset.Ruleset.locate`.  It
does not name the hook either: a base chain's name says it, a user chain's hook is that of the base
chain from which the same packet jumped, or follows from table and interfaces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from ipttrace.decode.attributes import Malformed, text
from ipttrace.decode.logged_packet import read_logged_packet
from ipttrace.event import Event, Lost, TraceEvent, TraceKind, Undecoded
from ipttrace.netfilter import TABLE_HOOKS, Backend, Hook
from ipttrace.packet import PacketSummary

OVERWRITTEN = b""
"""Stands for a read() that said EPIPE: records were overwritten before they were read."""

REMEMBERED = 4096
"""Packets whose last base chain is remembered; reports of one packet come close together."""

REASON = "the kernel log was overwritten before it was read"

_RECORD = re.compile(rb"([0-9]{1,10}),([0-9]{1,20}),[^;]*;([^\n]*)")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
_HEAD = re.compile(
    r"TRACE: ([^:]+):(.+):(rule|return|policy):([0-9]{1,10}) IN=([^ ]*) OUT=([^ ]*) "
    r"(?:PHYSIN=([^ ]*) )?(?:PHYSOUT=([^ ]*) )?"
    r"(?:MAC(?:SRC)?=[^ ]* (?:MACDST=[^ ]* )?(?:VPROTO=[^ ]* VID=[^ ]* )?(?:MACPROTO=[^ ]* )?)?"
    r"(?:TUNNEL=[^ ]* )?",
    re.DOTALL,
)
_MARK = re.compile(r" MARK=0x([0-9a-f]{1,8}) ?\Z")
_USERSPACE = 8
"""Levels from here on carry a facility: a program wrote the record, not the kernel."""

_TWO_WAY = frozenset({Hook.FORWARD, Hook.POSTROUTING})
_WAYS = {
    (True, False): frozenset({Hook.PREROUTING, Hook.INPUT}),
    (False, True): frozenset({Hook.OUTPUT, Hook.POSTROUTING}),
    (True, True): _TWO_WAY,
    (False, False): frozenset(Hook),
}
"""Hooks by whether a report names an in-interface and an out-interface."""


def decode_line(line: str, time: float, interfaces: Mapping[str, int]) -> Event | None:
    """Return what one line says: None if it is no trace report, or not of this namespace.

    `interfaces` are this namespace's, name to index.  The hook is that of a base chain only.  A LOG
    rule can imitate a report, but none of a hook where such interfaces cannot be, and of TCP only
    with --log-tcp-sequence: ip_tables reports with all flags (trace_loginfo).
    """
    head = _HEAD.match(line)
    if head is None:
        return None
    table, chain, kind, number, in_name, out_name, *ports = head.groups()
    if any(name and name not in interfaces for name in (in_name, out_name)):
        return None
    try:
        packet = read_logged_packet(line, head.end())
    except Malformed as error:
        return Undecoded(time, str(error), line.encode("utf-8", "surrogateescape"))
    hook = next((hook for hook in TABLE_HOOKS.get(table, ()) if hook == chain), None)
    if hook is not None and hook not in _WAYS[bool(in_name), bool(out_name)]:
        return None
    if packet.protocol == "tcp" and packet.sport is not None and packet.tcp_seq is None:
        return None
    mark = _MARK.search(line)
    return TraceEvent(
        time,
        Backend.LEGACY,
        packet.family.table_family,
        table,
        chain,
        TraceKind(kind),
        int(number),
        hook=hook,
        packet=packet,
        mark=int(mark[1], 16) if mark else 0,
        in_index=interfaces.get(in_name),
        out_index=interfaces.get(out_name),
        physical_in=interfaces.get(ports[0] or ""),
        physical_out=interfaces.get(ports[1] or ""),
    )


class KernelLog:
    """Decodes the records of one reader of /dev/kmsg, in their order."""

    def __init__(self) -> None:
        self._sequence: int | None = None
        self._overwritten = False
        self._bases: dict[tuple[object, ...], Hook] = {}

    def decode(self, record: bytes, time: float, interfaces: Mapping[str, int]) -> list[Event]:
        """Return the events in what one read() returned, or `OVERWRITTEN` stands for."""
        if record == OVERWRITTEN:
            self._overwritten = True
            return []
        match = _RECORD.match(record)
        if match is None:
            return [Undecoded(time, "a record that the kernel log does not have", record)]
        level, sequence, line = int(match[1]), int(match[2]), match[3]
        events: list[Event] = self._gap(sequence, time)
        if level >= _USERSPACE or not line.startswith(b"TRACE: "):
            return events
        event = decode_line(text(_unescaped(line)), time, interfaces)
        if isinstance(event, TraceEvent):
            event = self._with_hook(event)
        return [*events, *([event] if event is not None else [])]

    def _gap(self, sequence: int, time: float) -> list[Event]:
        """Return what was lost before this record: every record is counted, whoever's it was."""
        last, self._sequence = self._sequence, sequence
        overwritten, self._overwritten = self._overwritten, False
        if last is not None and sequence > last + 1:
            return [Lost(time, sequence - last - 1, REASON)]
        return [Lost(time, None, REASON)] if overwritten and last is None else []

    def _with_hook(self, event: TraceEvent) -> TraceEvent:
        key = _walk_key(event)
        if event.hook is not None:
            self._bases.pop(key, None)
            self._bases[key] = event.hook
            if len(self._bases) > REMEMBERED:
                del self._bases[next(iter(self._bases))]
            return event
        return replace(event, hook=self._bases.get(key) or _only_hook(event))


def _walk_key(event: TraceEvent) -> tuple[object, ...]:
    """Return what stays the same while a packet walks through the chains of one table and hook."""
    packet = event.packet
    inner = _inner(packet) if packet is not None else ()
    return (event.table, event.in_index, event.out_index, *inner)


def _inner(packet: PacketSummary) -> tuple[object, ...]:
    return (
        packet.flow,
        packet.ip_id,
        packet.length,
        packet.fragment_offset,
        packet.tcp_seq,
        packet.tcp_ack,
        packet.icmp,
    )


def _only_hook(event: TraceEvent) -> Hook | None:
    """Return the one hook of the table at which the report's interfaces can be; None if several."""
    ways = _WAYS[event.in_index is not None, event.out_index is not None]
    possible = [hook for hook in TABLE_HOOKS.get(event.table, ()) if hook in ways]
    return possible[0] if len(possible) == 1 else None


def _unescaped(line: bytes) -> bytes:
    return _ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), line)
