"""Which packets of a watch this host itself refused: by a reset, or an ICMP error about them.

Nobody looks at sockets during a watch, so that a packet at the end of INPUT counts as delivered
unless the answer that the kernel made at once is there to say no.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from ipttrace.packet import Flow, PacketSummary
from ipttrace.path import Outcome, PacketPath
from ipttrace.roles import is_refusal

AT_ONCE = 0.05
"""Seconds; the kernel makes both kinds of answer while it still holds the packet."""

_Known = Mapping[tuple[str | None, Flow], Sequence[PacketPath]]


def refused_by(paths: Iterable[PacketPath]) -> dict[int, PacketPath]:
    """Return the answer that refuses a packet, by the id of the packet's path."""
    delivered: dict[tuple[str | None, Flow], list[PacketPath]] = defaultdict(list)
    refusals: list[PacketPath] = []
    for path in paths:
        if is_refusal(path):
            refusals.append(path)
        elif path.outcome is Outcome.DELIVERED:
            for flow in {path.packet.flow, (path.last_packet or path.packet).flow}:
                delivered[path.netns, flow].append(path)
    return {
        asked.id: refusal
        for refusal in refusals
        if (asked := _asked(refusal, delivered)) is not None
    }


def _asked(refusal: PacketPath, delivered: _Known) -> PacketPath | None:
    """Return the packet that is refused; None where it may be one of several flows."""
    error = refusal.packet
    if error.icmp is None:
        found = delivered.get((refusal.netns, error.flow.reversed()), ())
    elif error.quoted is not None:
        found = delivered.get((refusal.netns, error.quoted.flow), ())
    else:
        found = _only_flow_from(refusal, delivered)
    fitting = [path for path in found if _is_about(path, refusal)]
    return fitting[-1] if fitting else None


def _only_flow_from(refusal: PacketPath, delivered: _Known) -> Sequence[PacketPath]:
    """Return the packets from where an error goes whose quotation was cut off (nft)."""
    flows = {
        flow: found
        for (netns, flow), found in delivered.items()
        if netns == refusal.netns
        and flow.src == refusal.packet.dst
        and flow.protocol != "tcp"
        and any(_at_once(path, refusal) for path in found)
    }
    return next(iter(flows.values())) if len(flows) == 1 else ()


def _at_once(path: PacketPath, refusal: PacketPath) -> bool:
    return 0 <= refusal.time - path.time < AT_ONCE


def _is_about(path: PacketPath, refusal: PacketPath) -> bool:
    """Tell whether an answer on the right flow is one to this very packet."""
    if not _at_once(path, refusal):
        return False
    asked, error = path.packet, refusal.packet
    if error.icmp is None:
        return asked.tcp_flags == ("SYN",) and _follows(asked, error)
    quoted = error.quoted
    return quoted is None or quoted.ip_id is None or quoted.ip_id == asked.ip_id


def _follows(syn: PacketSummary, reset: PacketSummary) -> bool:
    """Tell whether a reset acknowledges a SYN (RFC 9293 section 3.10.7.1)."""
    if syn.tcp_seq is None or reset.tcp_ack is None:
        return True
    return reset.tcp_ack == (syn.tcp_seq + 1) & 0xFFFFFFFF
