"""What became of a packet that left this namespace: answered, refused, or nothing heard of it."""

from __future__ import annotations

from collections.abc import Sequence

from ipttrace.diagnose.case import Case
from ipttrace.diagnose.catalogue import Cause
from ipttrace.diagnose.drops import rewrites
from ipttrace.diagnose.walk import with_port
from ipttrace.netfilter import Hook, PacketFamily
from ipttrace.packet import PacketSummary
from ipttrace.path import (
    LEFT,
    Diagnosis,
    Evidence,
    Outcome,
    PacketPath,
    Role,
    Strength,
    WireHop,
)
from ipttrace.roles import accepts

ICMP_ERRORS = {
    PacketFamily.IPV4: frozenset({3, 11, 12}),
    PacketFamily.IPV6: frozenset({1, 2, 3, 4}),
}
"""RFC 792 and RFC 4443; redirects and source quench say nothing of a packet's fate."""

REFUSALS = frozenset({"ECONNREFUSED", "ECONNRESET"})
ANSWERS = frozenset({"CONNECTED", "REPLIED"})


def is_refusal(packet: PacketSummary) -> bool:
    """Return whether an answer is a TCP reset or an ICMP error."""
    errors = ICMP_ERRORS[packet.family]
    return "RST" in packet.tcp_flags or (packet.icmp is not None and packet.icmp.type in errors)


def from_here(answer: PacketPath) -> bool:
    """Return whether this namespace made an answer, also where no chain reported it."""
    return answer.in_interface is None


def kind(packet: PacketSummary) -> str:
    """Return what a refusal is called."""
    if packet.icmp is None:
        return "a TCP reset"
    return f"ICMP type {packet.icmp.type} code {packet.icmp.code}"


def left(case: Case) -> Diagnosis | None:
    """Return what is known of a packet that left by an interface."""
    path = case.path
    if path.outcome not in LEFT:
        return None
    wire = next((hop for hop in reversed(path.hops) if isinstance(hop, WireHop)), None)
    device = (wire.interface if wire else None) or path.out_interface
    interface = with_port(device, path.physical_out)
    evidence = tuple(rewrites(path))
    contained = wire is not None and wire.event == "contained"
    if path.role is Role.REPLY:
        end = ", and was stopped there (contained)" if contained else ""
        return Diagnosis(Cause.UNKNOWN, f"the answer left by {interface}{end}", evidence=evidence)
    if contained:
        text = f"left by {interface} (contained){_not_asked(case, device)}; "
        text += "use --let-out to go further"
        return Diagnosis(Cause.UNKNOWN, text, evidence=evidence)
    went = f"{'sent' if path.outcome is Outcome.SENT else 'forwarded'} by {interface}"
    if path.role is Role.OBSERVED and not case.replies:
        return Diagnosis(Cause.UNKNOWN, went, evidence=evidence)
    return _answered(case, went, evidence) or _unanswered(case, went, device, evidence)


def _not_asked(case: Case, device: str | None) -> str:
    """Return in words which chains at egress a contained packet did not come to."""
    behind = [
        f"{chain.ref.table_family} {chain.ref}"
        for chain in case.ruleset.chains.values()
        if chain.hook is Hook.EGRESS and device in chain.devices
    ]
    return f", before {' and '.join(behind)} at egress could see it" if behind else ""


def _answered(case: Case, went: str, evidence: tuple[Evidence, ...]) -> Diagnosis | None:
    own = [reply for reply in case.replies if reply.request == case.path.id]
    outside = [reply for reply in own if not from_here(reply)]
    refusal = next((reply for reply in outside if is_refusal(reply.packet)), None)
    if refusal is not None and not any(accepts(reply.packet) for reply in outside):
        return _refused(went, refusal, evidence)
    if outside:
        seen = Evidence(f"its answer is packet {outside[0].id}", Strength.REPORTED)
    elif case.client in ANSWERS:
        seen = Evidence(f"the client got {case.client}", Strength.MATCHED)
    elif case.client in REFUSALS and not case.replies:
        seen = Evidence(f"the client got {case.client}", Strength.MATCHED)
        summary = f"{went}; it was refused there, not by this host"
        return Diagnosis(Cause.REMOTE_REFUSED, summary, evidence=(*evidence, seen))
    else:
        return None
    summary = f"{went}, and its answer came back"
    return Diagnosis(Cause.ANSWERED, summary, evidence=(*evidence, seen))


def _refused(went: str, refusal: PacketPath, evidence: tuple[Evidence, ...]) -> Diagnosis:
    sender, words = refusal.packet.src, kind(refusal.packet)
    where = with_port(refusal.in_interface, refusal.physical_in)
    seen = Evidence(f"{words} from {sender} came in on {where}", Strength.REPORTED)
    summary = f"{went}; {sender} refused it with {words}, not this host"
    return Diagnosis(Cause.REMOTE_REFUSED, summary, evidence=(*evidence, seen))


def _unanswered(
    case: Case, went: str, device: str | None, evidence: tuple[Evidence, ...]
) -> Diagnosis:
    path = case.path
    tap = path.physical_out or device or "any"
    remedy = (f"to see whether the answer arrives: tcpdump -ni {tap} host {case.packet.dst}",)
    if not _is_silent(case):
        summary = f"{went}; no answer was seen here"
        return Diagnosis(Cause.UNKNOWN, summary, evidence=evidence, remedy=remedy)
    queued = case.trail.queued
    gone = f"given to {queued[-1].interface} to be sent" if queued else went
    seen = (
        Evidence(gone, Strength.REPORTED if queued else Strength.INFERRED),
        Evidence("no answer and no error came in while it was waited for", Strength.INFERRED),
    )
    may = "; a UDP service need not answer" if path.packet.protocol == "udp" else ""
    summary = f"{went}, and nothing came back{may}"
    return Diagnosis(Cause.REMOTE_SILENT, summary, evidence=(*evidence, *seen), remedy=remedy)


def _is_silent(case: Case) -> bool:
    """Tell whether the packet is known to have left, for elsewhere than a traced namespace."""
    if case.replies or case.client not in (None, "TIMEOUT", "SENT"):
        return False
    if _goes_on(case.path, case.paths):
        return False
    return not case.followed or bool(case.trail.queued)


def _goes_on(path: PacketPath, paths: Sequence[PacketPath]) -> bool:
    return any(other.journey == path.journey and other.leg > path.leg for other in paths)
