"""Which packets of a watch this host itself refused: by a reset, or an ICMP error about them.

Nobody looks at sockets during a watch, so that a packet at the end of INPUT counts as delivered
unless the answer that the kernel made at once is there to say no.  Nor is it heard what became of
one that vanished between two chains, but for the ICMP error about it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from ipttrace.netfilter import PacketFamily
from ipttrace.packet import Flow, PacketSummary
from ipttrace.path import Outcome, PacketPath
from ipttrace.roles import ERROR_TYPES, is_refusal

QUOTED_BEHIND = 8
"""Bytes of an ICMP error before the quotation (RFC 792, RFC 4443)."""
IPV6_HEADER = 40

AT_ONCE = 0.05
"""Seconds; the kernel makes both kinds of answer while it still holds the packet."""

_Known = Mapping[tuple[str | None, Flow], Sequence[PacketPath]]


def _not_tcp(protocol: str) -> bool:
    """Tell whether the kernel refuses such packets by an ICMP error where no socket is."""
    return protocol != "tcp"


def _any(_: str) -> bool:
    """Tell that every packet may get one on its way."""
    return True


def refused_by(paths: Iterable[PacketPath]) -> dict[int, PacketPath]:
    """Return the answer that refuses a packet, by the id of the packet's path."""
    delivered, lost = _Packets(), _Packets()
    answers: list[PacketPath] = []
    for path in paths:
        if is_refusal(path) or is_error(path):
            answers.append(path)
        elif path.outcome is Outcome.DELIVERED:
            delivered.add(path)
        elif path.outcome is Outcome.LOST and path.in_interface is not None:
            lost.add(path)
    found: dict[int, PacketPath] = {}
    for answer in answers:
        asked = _asked(answer, delivered.known) if is_refusal(answer) else None
        if asked is None and is_error(answer):
            asked = _asked(answer, lost.known, _any)
        if asked is not None:
            found[asked.id] = answer
    return found


class _Packets:
    """Packets by the namespace and each flow that they had there."""

    def __init__(self) -> None:
        self.known: dict[tuple[str | None, Flow], list[PacketPath]] = defaultdict(list)

    def add(self, path: PacketPath) -> None:
        for flow in {path.packet.flow, (path.last_packet or path.packet).flow}:
            self.known[path.netns, flow].append(path)


def is_error(path: PacketPath) -> bool:
    """Tell whether this host made an ICMP error."""
    packet = path.packet
    if path.in_interface is not None or packet.icmp is None:
        return False
    return packet.icmp.type in ERROR_TYPES[packet.protocol]


def _asked(
    refusal: PacketPath, delivered: _Known, protocols: Callable[[str], bool] = _not_tcp
) -> PacketPath | None:
    """Return the packet that is refused; None where it may be one of several flows."""
    error = refusal.packet
    if error.icmp is None:
        found = delivered.get((refusal.netns, error.flow.reversed()), ())
    elif error.quoted is not None:
        found = delivered.get((refusal.netns, error.quoted.flow), ())
    else:
        found = _only_flow_from(refusal, delivered, protocols)
    fitting = [p for p in found if _is_about(p, refusal) and _may_quote(refusal, p)]
    return fitting[-1] if fitting else None


def _only_flow_from(
    refusal: PacketPath, delivered: _Known, protocols: Callable[[str], bool]
) -> Sequence[PacketPath]:
    """Return the packets from where an error goes whose quotation was cut off (nft)."""
    flows = {
        flow: found
        for (netns, flow), found in delivered.items()
        if netns == refusal.netns
        and flow.src == refusal.packet.dst
        and protocols(flow.protocol)
        and any(_at_once(path, refusal) and _may_quote(refusal, path) for path in found)
    }
    return next(iter(flows.values())) if len(flows) == 1 else ()


def _may_quote(refusal: PacketPath, asked: PacketPath) -> bool:
    """Tell whether what is left of a quotation fits a packet: IPv4's id, IPv6's length."""
    head, packet = refusal.packet.head, asked.packet
    if refusal.packet.icmp is None:
        return True
    if packet.family is PacketFamily.IPV4:
        at = (head[0] & 0xF) * 4 + QUOTED_BEHIND if head else 0
        number = head[at + 4 : at + 6]
        return len(number) < 2 or int.from_bytes(number, "big") == packet.ip_id
    length = head[IPV6_HEADER + QUOTED_BEHIND + 4 : IPV6_HEADER + QUOTED_BEHIND + 6]
    return len(length) < 2 or int.from_bytes(length, "big") + IPV6_HEADER == packet.length


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
