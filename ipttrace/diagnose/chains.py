"""The causes that a path and the rules alone prove; all else is `unknown`, with what was seen."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ipttrace.criteria import criteria
from ipttrace.diagnose.case import Case
from ipttrace.diagnose.catalogue import Cause
from ipttrace.diagnose.drops import diagnose_death, rewrites
from ipttrace.diagnose.remedy import same_in_output, what_listens
from ipttrace.diagnose.walk import (
    endpoint,
    made_here,
    name,
    packet_before,
    stayed_here,
    with_port,
)
from ipttrace.matching import PacketFacts, judge_any
from ipttrace.netfilter import FATAL_VERDICTS, Hook, PacketFamily, TableFamily, Verdict
from ipttrace.nft_criteria import nft_criteria
from ipttrace.packet import PacketSummary
from ipttrace.path import (
    ChainHop,
    Diagnosis,
    Evidence,
    Outcome,
    PacketPath,
    Role,
    Strength,
    WireHop,
)
from ipttrace.ruleset import Rule, Ruleset

ICMP_ERRORS = {
    PacketFamily.IPV4: frozenset({3, 11, 12}),
    PacketFamily.IPV6: frozenset({1, 2, 3, 4}),
}
"""RFC 792 and RFC 4443; redirects and source quench say nothing of a packet's fate."""

DESTINATIONS = frozenset({"-d", "--dport", "--dports"})
DESTINATION_ONLY = DESTINATIONS | {"-p", "-m", "--comment"}
NATIVE_REDIRECT = re.compile(r"\b(?:redirect|dnat)\b")


def killed_by_chain(case: Case) -> Diagnosis | None:
    """Return the cause where the last chain that reported dropped or rejected the packet."""
    last = case.last
    if last is None or last.verdict not in FATAL_VERDICTS:
        return None
    return diagnose_death(case, last)


def redirect_not_in_output(case: Case) -> Diagnosis | None:
    """Return the cause where a packet made here was refused for want of a rule in nat/OUTPUT."""
    if case.path.outcome is not Outcome.REFUSED:
        return None
    return _redirect_not_in_output(case.path, case.ruleset)


def otherwise(case: Case) -> Diagnosis:
    """Return what the path alone says, where nothing more was proved."""
    path = case.path
    if path.outcome is Outcome.DELIVERED:
        return _delivered(path, case.client)
    if path.outcome in (Outcome.FORWARDED, Outcome.SENT):
        return _left(path, case.replies)
    if path.outcome is Outcome.REFUSED:
        return _refused(path, case.replies)
    return _unknown(path, case.last, case.client)


def _delivered(path: PacketPath, client: str | None) -> Diagnosis:
    evidence = list(rewrites(path))
    refs = tuple(dict.fromkeys(hop.ref for hop in path.chain_hops if _rewrites_target(hop)))
    if not evidence:
        summary = "delivered: no rule stood in its way"
    else:
        summary = f"delivered to {endpoint(packet_before(path, None))}: {_short(evidence)}"
    if client not in (None, "CONNECTED", "REPLIED", "SENT"):
        text = f"yet the client got {client}: look at what became of the answer"
        evidence.append(Evidence(text, Strength.MATCHED))
    return Diagnosis(Cause.DELIVERED, summary, refs, tuple(evidence))


def _rewrites_target(hop: ChainHop) -> bool:
    return any(change.field in ("dst", "dport") for change in hop.changes)


def _short(evidence: Sequence[Evidence]) -> str:
    return ", and ".join(each.text for each in evidence)


def _left(path: PacketPath, answers: Sequence[PacketPath]) -> Diagnosis:
    wire = next((hop for hop in reversed(path.hops) if isinstance(hop, WireHop)), None)
    way_out = (wire.interface if wire else None) or path.out_interface
    interface = with_port(way_out, path.physical_out)
    verb = "sent by" if path.outcome is Outcome.SENT else "forwarded by"
    evidence = tuple(rewrites(path))
    contained = wire is not None and wire.event == "contained"
    if path.role is Role.REPLY:
        end = ", and was stopped there (contained)" if contained else ""
        return Diagnosis(Cause.UNKNOWN, f"the answer left by {interface}{end}", evidence=evidence)
    if contained:
        text = f"left by {interface} (contained); use --let-out to go further"
        return Diagnosis(Cause.UNKNOWN, text, evidence=evidence)
    outside = [reply for reply in answers if not made_here(reply)]
    refusal = next((reply for reply in outside if is_refusal(reply.packet)), None)
    if refusal is not None:
        return _remote_refused(f"{verb} {interface}", refusal, evidence)
    if outside:
        seen = Evidence(f"its answer is packet {outside[0].id}", Strength.REPORTED)
        summary = f"{verb} {interface}, and its answer came back"
        return Diagnosis(Cause.ANSWERED, summary, evidence=(*evidence, seen))
    if path.role is Role.OBSERVED:
        return Diagnosis(Cause.UNKNOWN, f"{verb} {interface}", evidence=evidence)
    summary = f"{verb} {interface}; no answer was seen here"
    device = path.physical_out or way_out or "any"
    remedy = f"to see whether the answer arrives: tcpdump -ni {device} host {path.packet.dst}"
    return Diagnosis(Cause.UNKNOWN, summary, evidence=evidence, remedy=(remedy,))


def is_refusal(packet: PacketSummary) -> bool:
    """Return whether an answer is a TCP reset or an ICMP error."""
    errors = ICMP_ERRORS[packet.family]
    return "RST" in packet.tcp_flags or (packet.icmp is not None and packet.icmp.type in errors)


def _kind(packet: PacketSummary) -> str:
    if packet.icmp is None:
        return "a TCP reset"
    return f"ICMP type {packet.icmp.type} code {packet.icmp.code}"


def _remote_refused(left: str, refusal: PacketPath, evidence: tuple[Evidence, ...]) -> Diagnosis:
    sender, kind = refusal.packet.src, _kind(refusal.packet)
    where = with_port(refusal.in_interface, refusal.physical_in)
    seen = Evidence(f"{kind} from {sender} came in on {where}", Strength.REPORTED)
    summary = f"{left}; {sender} refused it with {kind}, not this host"
    return Diagnosis(Cause.REMOTE_REFUSED, summary, evidence=(*evidence, seen))


def _refused(path: PacketPath, answers: Sequence[PacketPath]) -> Diagnosis:
    refusal = next((reply for reply in answers if is_refusal(reply.packet)), None)
    packet = packet_before(path, None)
    kind = _kind(refusal.packet) if refusal else "a refusal"
    short = "RST" if refusal and refusal.packet.icmp is None else kind
    evidence = (
        *rewrites(path),
        Evidence(f"answered with {short} by this host", Strength.REPORTED),
        Evidence("no REJECT rule was met", Strength.REPORTED),
    )
    summary = (
        f"refused: every chain let it in, and this host answered with {kind}; "
        f"which socket, if any, serves {endpoint(packet)} was not looked at"
    )
    where = f" (in namespace {path.netns})" if path.netns else ""
    remedy = (f"to see what listens there{where}: {what_listens(packet)}",)
    return Diagnosis(Cause.UNKNOWN, summary, evidence=evidence, remedy=remedy)


def _redirect_not_in_output(path: PacketPath, ruleset: Ruleset) -> Diagnosis | None:
    if not made_here(path) or any(map(_is_nat_in_output, path.chain_hops)):
        return None
    rule = next(_redirects(path, ruleset), None)
    if rule is None:
        return None
    summary = (
        f"refused: this host made the packet itself, so {rule.ref}, which would send it on "
        f"({rule.target}), was never asked"
    )
    begin = f" at {name(path.chain_hops[0])}" if path.chain_hops else ", without any chain"
    evidence = (
        Evidence(f"its way begins here{begin}", Strength.REPORTED),
        Evidence("no rule of nat/OUTPUT matched it", Strength.REPORTED),
        Evidence(f"{rule.ref} matches its destination: {rule.text}", Strength.INFERRED),
    )
    local = stayed_here(path) or path.packet.src == path.packet.dst
    command = same_in_output(rule.chain, rule.text, local)
    remedy = (f"the same rule for packets made here: {command}",)
    return Diagnosis(Cause.REDIRECT_NOT_IN_OUTPUT, summary, (rule.ref,), evidence, remedy=remedy)


def _is_nat_in_output(hop: ChainHop) -> bool:
    if hop.hook is not Hook.OUTPUT or hop.rule is None:
        return False
    return hop.chain.table == "nat" or _rewrites_target(hop)


def _redirects(path: PacketPath, ruleset: Ruleset) -> Iterator[Rule]:
    """Yield the nat/PREROUTING rules that by protocol and destination alone match the packet."""
    facts = PacketFacts(path.packet)
    families = (path.packet.family.table_family, TableFamily.INET)
    for ref, chain in ruleset.chains.items():
        if chain.hook is not Hook.PREROUTING or ref.table_family not in families:
            continue
        for rule in chain.user_rules:
            simple = _redirects_by_destination(rule) and _asks_destination_only(rule.text)
            if simple and judge_any(rule.text, facts).matches:
                yield rule


def _redirects_by_destination(rule: Rule) -> bool:
    if rule.text.startswith("-A "):
        return rule.chain.table == "nat" and rule.target in ("REDIRECT", "DNAT")
    return NATIVE_REDIRECT.search(rule.text) is not None


def _asks_destination_only(text: str) -> bool:
    try:
        wanted = criteria(text) if text.startswith("-A ") else nft_criteria(text)
    except ValueError:
        return False
    options = {each.option for each in wanted}
    return options <= DESTINATION_ONLY and bool(options & DESTINATIONS)


def _unknown(path: PacketPath, last: ChainHop | None, client: str | None) -> Diagnosis:
    if last is None:
        got = f": the client's call ended with {client}" if client else ""
        summary = f"it never came to a chain of this namespace{got}"
        remedy = f"to see the route that the sender has: ip route get {path.packet.dst}"
        return Diagnosis(Cause.UNKNOWN, summary, remedy=(remedy,))
    seen = Evidence(f"{name(last)} is the kernel's last report of it", Strength.REPORTED)
    if path.outcome is Outcome.INCOMPLETE:
        summary = f"its way is not complete: reports were lost; last seen at {name(last)}"
    elif last.verdict is Verdict.QUEUE:
        summary = f"{name(last)} queued it for a program, and it did not come back"
    else:
        word = "dropped" if path.outcome is Outcome.DROPPED else "lost"
        summary = f"{word} after {name(last)}, and no rule or policy that was reported did it"
    diagnosis = Diagnosis(Cause.UNKNOWN, summary, evidence=(*rewrites(path), seen))
    return replace(diagnosis, remedy=tuple(_next_steps(path, last)))


def _next_steps(path: PacketPath, last: ChainHop) -> Iterator[str]:
    """Yield the commands that would settle it."""
    packet = packet_before(path, None)
    if last.verdict is Verdict.QUEUE:
        yield "to see which programs read queues: cat /proc/net/netfilter/nfnetlink_queue"
    elif last.hook is Hook.PREROUTING and path.in_interface:
        way = f"{packet.dst} from {packet.src} iif {path.in_interface}"
        yield f"to see what routing says of it: ip route get {way}"
    else:
        yield "to see which of the kernel's drop counters rise: nstat -z"
