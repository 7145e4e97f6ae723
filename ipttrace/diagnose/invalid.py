"""Why conntrack calls a packet INVALID, as far as conntrack said it, or its rules tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ipttrace.diagnose.case import Case
from ipttrace.diagnose.tracked import ECHO_REQUESTS, entry_before, first_of_tcp
from ipttrace.event import ForeignLog
from ipttrace.packet import PacketSummary
from ipttrace.path import Evidence, Strength

PREFIX = "nf_ct_proto_"
LOG_INVALID = "net/netfilter/nf_conntrack_log_invalid"
LOOSE = "net/netfilter/nf_conntrack_tcp_loose"

VALID_FLAGS = frozenset(
    frozenset(flags.split())
    for flags in (
        "SYN",
        "SYN URG",
        "SYN ACK",
        "RST",
        "RST ACK",
        "FIN ACK",
        "FIN ACK URG",
        "ACK",
        "ACK URG",
    )
)
"""tcp_valid_flags in net/netfilter/nf_conntrack_proto_tcp.c; PSH, ECE and CWR are left out."""
IGNORED_FLAGS = frozenset({"PSH", "ECE", "CWR"})


def why_invalid(case: Case) -> tuple[Evidence, ...]:
    """Return the reasons, the surest first; empty where nothing tells."""
    return (*_logged(case), *_concluded(case))


def _logged(case: Case) -> Iterator[Evidence]:
    """Yield what conntrack itself wrote of this packet (nf_ct_l4proto_log_invalid)."""
    said = [each for each in case.logged if is_of_conntrack(each, case.path.packet)]
    for each in said[:1]:
        _, _, text = each.prefix.partition(": ")
        yield Evidence(f"conntrack logged {text.strip()!r} of it", Strength.REPORTED)


def is_of_conntrack(log: ForeignLog, packet: PacketSummary) -> bool:
    """Return whether a log message is conntrack's own word about a packet."""
    about = log.packet
    if about is None or not log.prefix.startswith(PREFIX):
        return False
    return (about.flow, about.ip_id, about.tcp_seq, about.tcp_flags) == (
        packet.flow,
        packet.ip_id,
        packet.tcp_seq,
        packet.tcp_flags,
    )


def _concluded(case: Case) -> Iterator[Evidence]:
    packet = case.path.packet
    if packet.protocol == "tcp":
        yield from _concluded_of_tcp(case, packet)
    elif packet.icmp is not None and packet.icmp.type not in ECHO_REQUESTS and _is_new(case):
        text = "an ICMP message that is no request, and no connection here is what it speaks of"
        yield Evidence(text, Strength.INFERRED)


def _is_new(case: Case) -> bool:
    """Return whether it is known that conntrack had no entry for the packet."""
    known = case.scene.connections is not None
    return known and entry_before(case.path, case.scene) is None


def _concluded_of_tcp(case: Case, packet: PacketSummary) -> Iterator[Evidence]:
    if frozenset(packet.tcp_flags) - IGNORED_FLAGS not in VALID_FLAGS:
        yield Evidence("no TCP sends this combination of flags", Strength.INFERRED)
        return
    entry = entry_before(case.path, case.scene)
    if entry is not None:
        text = (
            f"its flags or sequence numbers do not fit the connection that conntrack knows, in "
            f"state {entry.state}"
        )
        yield Evidence(text, Strength.INFERRED)
        return
    loose = case.scene.settings.get(LOOSE, "1") != "0"
    reason = first_of_tcp(packet, loose=loose) if _is_new(case) else None
    if reason is not None:
        text = f"{reason} begins no connection, and this host knows none that it belongs to"
        yield Evidence(text, Strength.INFERRED)


def how_to_learn_more(case: Case, reasons: Sequence[Evidence]) -> Iterator[str]:
    """Yield the commands that tell more of why."""
    if not any(each.strength is Strength.REPORTED for each in reasons):
        if case.scene.settings.get(LOG_INVALID, "0") == "0":
            yield (
                "to let conntrack log why, and probe again: "
                f"sysctl -w {LOG_INVALID.replace('/', '.')}=255"
            )
        else:
            yield "conntrack may have logged why: dmesg | grep nf_ct_proto_"
    yield "check that both directions of the connection cross this host: conntrack -L"
