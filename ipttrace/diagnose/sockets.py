"""The causes that lie in the sockets of this host: who listens, where, and how full."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ipttrace.diagnose.case import Case
from ipttrace.diagnose.catalogue import Cause
from ipttrace.diagnose.drops import rewrites
from ipttrace.diagnose.endpoints import destination, holder, place, port_words, socket_words, where
from ipttrace.diagnose.kernel_words import kernel_words
from ipttrace.diagnose.nobody import NO_SOCKET, nobody_there
from ipttrace.diagnose.remedy import what_listens
from ipttrace.diagnose.remote import is_refusal, kind, left
from ipttrace.diagnose.walk import made_here, packet_before
from ipttrace.evidence import SocketEntry
from ipttrace.fates import (
    OVERFLOWS,
    address_of_many,
    aimed_at_many,
    full_listener,
    taken_by_rule,
)
from ipttrace.netfilter import Hook
from ipttrace.path import (
    ChainHop,
    Diagnosis,
    Evidence,
    Outcome,
    PacketPath,
    ResetHop,
    Role,
    Strength,
)
from ipttrace.presumed import is_loopback
from ipttrace.takers import opens, taking

DROPPED_REQUESTS = "TcpExt.ListenDrops"
ECHO_REPLIES = frozenset({0, 129})
NOT_LOOKED = " (who took it was not looked at)"
PLAIN = "no rule stood in its way"
SERVES = "; which socket, if any, serves {} was not looked at"

MEANINGS = {
    "TCP_FLAGS": "its flags do not fit a socket in that state",
    "TCP_INVALID_ACK_SEQUENCE": "it acknowledges what was never sent",
    "TCP_ACK_UNSENT_DATA": "it acknowledges what was never sent",
    "TCP_OLD_ACK": "it acknowledges too little",
    "TCP_TOO_OLD_ACK": "it acknowledges too little",
    "TCP_RFC7323_PAWS": "its timestamp is too old",
    "TCP_ABORT_ON_DATA": "data came for a connection that the program had closed",
    "TCP_TIMEWAIT_SOCKET": "the port pair's last connection is not over yet",
    "INVALID_SYN": "it is a SYN within a connection",
}
"""enum sk_rst_reason in include/net/rstreason.h."""
UNSAID = "NOT_SPECIFIED"
"""What a kernel says that has no reason to give."""


def accept_queue_full(case: Case) -> Diagnosis | None:
    """Return the cause where a listener has no room for another connection."""
    listener = full_listener(case.path, case.scene, case.replies)
    if listener is None:
        return None
    waiting, backlog = listener.waiting, listener.backlog
    summary = (
        f"dropped: {holder(listener)} does not accept fast enough: {waiting} connections wait at "
        f"{place(listener)}, and its backlog is {backlog}"
    )
    rise = case.risen(OVERFLOWS)
    evidence = (
        *rewrites(case.path),
        Evidence(f"Recv-Q {waiting} is more than Send-Q {backlog}", Strength.MATCHED),
        Evidence(f"{OVERFLOWS} rose by {rise}", Strength.MATCHED),
        Evidence("no SYN-ACK was seen", Strength.INFERRED),
    )
    remedy = (
        f"to see its queue{where(case.path)}: {what_listens(case.packet)}",
        (
            "find out why the program does not call accept(), or raise the backlog that it gives "
            "to listen(), which is cut at: sysctl net.core.somaxconn"
        ),
    )
    return Diagnosis(Cause.ACCEPT_QUEUE_FULL, summary, evidence=evidence, remedy=remedy)


def tcp_to_many(case: Case) -> Diagnosis | None:
    """Return the cause where TCP was asked to connect to more than one host."""
    kind = aimed_at_many(case.path, case.scene, case.replies)
    if kind is None:
        return None
    dst = case.packet.dst
    summary = f"dropped: {dst} is a {kind} address, and TCP takes no connection to it"
    evidence = [*rewrites(case.path)]
    if rise := case.risen(DROPPED_REQUESTS):
        evidence.append(Evidence(f"{DROPPED_REQUESTS} rose by {rise}", Strength.MATCHED))
    evidence.append(Evidence("no SYN-ACK was seen", Strength.INFERRED))
    remedy = ("send to the address of one host",)
    return Diagnosis(Cause.KERNEL_DROP, summary, evidence=tuple(evidence), remedy=remedy)


def protocol_reset(case: Case) -> Diagnosis | None:
    """Return the cause where the kernel's TCP answered with a reset though a socket is there."""
    told = case.trail.resets or [hop for hop in case.path.hops if isinstance(hop, ResetHop)]
    reset = next((each for each in told if _reason(case, each) != NO_SOCKET), None)
    if case.path.outcome is not Outcome.REFUSED or reset is None:
        return None
    reason = _reason(case, reset)
    if reason is None:
        return None
    why = f": {reason}, {MEANINGS[reason]}" if reason in MEANINGS else f": {reason}"
    if reason == UNSAID:
        why = ", and gives no reason"
    flags = " ".join(case.packet.tcp_flags) or "no flags"
    summary = f"refused: the kernel's TCP answered {flags} with a reset{why}"
    evidence = [*rewrites(case.path), *kernel_words(case)]
    taker = taking(case.scene.sockets or (), case.packet, case.path.in_interface)
    if taker is not None:
        evidence.append(Evidence(f"it is for {socket_words(taker)}", Strength.MATCHED))
    return Diagnosis(Cause.PROTOCOL_RESET, summary, evidence=tuple(evidence))


def _reason(case: Case, reset: ResetHop) -> str | None:
    """Return why a reset was sent; older kernels tell only why the packet was freed."""
    return reset.reason or (case.drop.reason if case.drop else None)


def delivered(case: Case) -> Diagnosis | None:
    """Return who took the packet, as far as that is known."""
    path = case.path
    if path.outcome is not Outcome.DELIVERED:
        return None
    changed = list(rewrites(path))
    refs = tuple(dict.fromkeys(hop.ref for hop in path.chain_hops if _changes_target(hop)))
    if case.last is not None and taken_by_rule(path):
        return _taken_by_rule(case, case.last, changed)
    taker = taking(case.scene.sockets or (), case.packet, path.in_interface)
    if taker is None and _should_have_one(case):
        return _taken_by_nobody(case, changed)
    whom = _taker(case, taker)
    why = ", and ".join(each.text for each in changed) or PLAIN
    if whom is None:
        whom = f" to {destination(packet_before(path, None))}" if changed else ""
        why += NOT_LOOKED if _unlooked(case) else ""
    evidence = (*changed, *_doubts(case))
    catcher = _catcher(path)
    remedy: tuple[str, ...] = ()
    if catcher is not None:
        why += f"; it was for {destination(path.packet)}, and never left this host"
        remedy = (
            f"if that is another host, let {catcher.ref} match this host's own addresses only (-d)",
        )
    word = Outcome.DELIVERED.value if taker is not None else path.fate
    return Diagnosis(Cause.DELIVERED, f"{word}{whom}: {why}", refs, evidence, remedy=remedy)


def _unlooked(case: Case) -> bool:
    """Tell whether nobody looked for the socket, as in a watch: only the chains are known."""
    packet = case.packet
    ported = packet.protocol in ("tcp", "udp") and packet.dport is not None
    return ported and case.path.role is Role.OBSERVED and case.scene.sockets is None


def _catcher(path: PacketPath) -> ChainHop | None:
    """Return the rule of OUTPUT that kept a packet for another host here.

    To an address of its own a host sends from that very address (the source of its local routes).
    """
    first = path.packet
    if not made_here(path) or first.src == first.dst or is_loopback(first.dst):
        return None
    aimed = (hop for hop in path.chain_hops if hop.hook is Hook.OUTPUT and hop.rule is not None)
    return next((hop for hop in aimed if any(c.field == "dst" for c in hop.changes)), None)


def _taker(case: Case, taker: SocketEntry | None) -> str | None:
    if taker is not None:
        return f" to {socket_words(taker)}"
    echoed = any(
        each.packet.icmp and each.packet.icmp.type in ECHO_REPLIES for each in case.replies
    )
    if case.packet.icmp is not None and (echoed or case.client == "REPLIED"):
        return ", and the kernel answered the echo"
    return None


def _changes_target(hop: ChainHop) -> bool:
    return any(change.field in ("dst", "dport") for change in hop.changes)


def _should_have_one(case: Case) -> bool:
    """Tell whether a socket would be known if one had taken the probe."""
    if case.path.role is not Role.PROBE or case.scene.sockets != ():
        return False
    redirected = any(hop.target == "TPROXY" for hop in case.path.chain_hops)
    done = case.client in ("CONNECTED", "REPLIED") or bool(case.replies)
    return case.packet.protocol in ("tcp", "udp") and not redirected and not done


def _taken_by_nobody(case: Case, changed: Sequence[Evidence]) -> Diagnosis:
    summary = f"let in by every chain, but no socket is seen that takes {port_words(case.packet)}"
    remedy = (f"to see what listens there{where(case.path)}: {what_listens(case.packet)}",)
    evidence = (*changed, *_doubts(case))
    return Diagnosis(Cause.UNKNOWN, summary, evidence=evidence, remedy=remedy)


def _taken_by_rule(case: Case, rule: ChainHop, changed: Sequence[Evidence]) -> Diagnosis:
    summary = (
        f"taken by {rule.ref}: SYNPROXY answers in the place of "
        f"{destination(case.packet)}, and asks it once the client has answered"
    )
    seen = Evidence(f"{rule.ref} is the kernel's last report of it", Strength.REPORTED)
    evidence = (*changed, seen)
    return Diagnosis(Cause.DELIVERED, summary, (rule.ref,), evidence)


def _doubts(case: Case) -> Iterator[Evidence]:
    """Yield what speaks against a connection that works."""
    if opens(case.packet) and not case.replies and case.risen(DROPPED_REQUESTS):
        rise = case.risen(DROPPED_REQUESTS)
        text = f"{DROPPED_REQUESTS} rose by {rise}: the listener may have dropped it"
        yield Evidence(text, Strength.MATCHED)
    asked = case.path.packet.dst
    strange = [each for each in case.replies if _comes_from_another(each, asked)]
    if strange and not address_of_many(case.path.packet, case.scene):
        source = (strange[0].last_packet or strange[0].packet).src
        text = (
            f"its answer (packet {strange[0].id}) comes from {source}, not from {asked}: a client"
        )
        yield Evidence(f"{text} takes it for a stranger's", Strength.REPORTED)
    if case.client not in (None, "CONNECTED", "REPLIED", "SENT"):
        text = f"yet the client got {case.client}: look at what became of the answer"
        yield Evidence(text, Strength.MATCHED)


def _comes_from_another(answer: PacketPath, asked: str) -> bool:
    """Tell whether an answer leaves with another source than it was asked at."""
    left = answer.last_packet or answer.packet
    errors = left.icmp is not None and left.icmp.type not in ECHO_REPLIES
    return not errors and left.protocol != "tcp" and left.src != asked


def refused_somehow(case: Case) -> Diagnosis | None:
    """Return what is known of a refusal by this host that nothing more explains."""
    path = case.path
    if path.outcome is not Outcome.REFUSED:
        return None
    refusal = next((reply for reply in case.replies if is_refusal(reply.packet)), None)
    words = kind(refusal.packet) if refusal else "a refusal"
    short = "RST" if refusal and refusal.packet.icmp is None else words
    evidence = (
        *rewrites(path),
        Evidence(f"answered with {short} by this host", Strength.REPORTED),
        Evidence("no REJECT rule was met", Strength.REPORTED),
    )
    summary = f"refused: every chain let it in, and this host answered with {words}"
    if case.scene.sockets is None:
        serves = destination(packet_before(path, None))
        summary += SERVES.format(serves)
    remedy = (f"to see what listens there{where(path)}: {what_listens(packet_before(path, None))}",)
    return Diagnosis(Cause.UNKNOWN, summary, evidence=evidence, remedy=remedy)


def in_short(summary: str) -> str:
    """Return a summary without what is so of every packet where nobody looks at sockets."""
    summary = summary.removesuffix(NOT_LOOKED).removesuffix(f": {PLAIN}")
    return summary.partition(SERVES.partition("{}")[0])[0]


CAUSES: tuple[Callable[[Case], Diagnosis | None], ...] = (
    accept_queue_full,
    tcp_to_many,
    protocol_reset,
    nobody_there,
    delivered,
    left,
    refused_somehow,
)
