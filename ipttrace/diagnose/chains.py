"""The causes that a path and the rules alone prove; all else is `unknown`, with what was seen."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ipttrace.criteria import criteria
from ipttrace.diagnose.case import Case
from ipttrace.diagnose.catalogue import Cause
from ipttrace.diagnose.drops import diagnose_death, rewrites
from ipttrace.diagnose.remedy import same_in_output
from ipttrace.diagnose.remote import kind
from ipttrace.diagnose.tracked import NOTRACK
from ipttrace.diagnose.walk import made_here, name, packet_before, stayed_here
from ipttrace.matching import PacketFacts, judge_any
from ipttrace.netfilter import FATAL_VERDICTS, ChainRef, Hook, TableFamily, Verdict
from ipttrace.nft_criteria import nft_criteria
from ipttrace.path import (
    ChainHop,
    Diagnosis,
    Evidence,
    Outcome,
    PacketPath,
    Role,
    Strength,
)
from ipttrace.presumed import is_loopback
from ipttrace.ruleset import Chain, Rule, Ruleset
from ipttrace.targets import sent_on_to

DESTINATIONS = frozenset({"-d", "--dport", "--dports"})
DESTINATION_ONLY = DESTINATIONS | {"-p", "-m", "--comment"}
WAY_IN = re.compile(r"(?:! )?-i \S+ |(?<![\w])(?:meta )?iif(?:name)? (?:!= )?(?:\{[^{}]*\}|\S+) ")
"""A rule's criterion of the interface by which a packet came in: one made here came by none."""
BY_INTERFACE = re.compile(r"(?:meta )?iif(?:name)? vmap \{")
CALLS = re.compile(r"\b(?:jump|goto) ([^\s,;}]+)")
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
    error = next((each.packet for each in case.replies if _is_own_error(each)), None)
    if case.path.outcome is Outcome.DROPPED and error is not None:
        after = f" after {name(case.last)}" if case.last is not None else ""
        summary = f"dropped{after}: this host answered with {kind(error)}"
        return Diagnosis(Cause.UNKNOWN, summary, evidence=tuple(rewrites(case.path)))
    return _unknown(case.path, case.last, case.client)


def _is_own_error(reply: PacketPath) -> bool:
    return reply.in_interface is None and reply.packet.icmp is not None


def _redirect_not_in_output(path: PacketPath, ruleset: Ruleset) -> Diagnosis | None:
    if not made_here(path) or any(map(_was_or_could_not_be_asked, path.chain_hops)):
        return None
    rule = next(_redirects(path, ruleset), None)
    if rule is None:
        return None
    summary = (
        f"refused: this host made the packet itself, so {rule.ref}, which would send it on "
        f"({rule.target}), was never asked"
    )
    evidence = (
        Evidence(f"its way begins here{_beginning(path)}", Strength.REPORTED),
        Evidence("no rule of nat/OUTPUT matched it", Strength.REPORTED),
        Evidence(f"{rule.ref} matches its destination: {rule.text}", Strength.INFERRED),
    )
    local = stayed_here(path) or path.packet.src == path.packet.dst
    command = same_in_output(rule.chain, WAY_IN.sub("", rule.text), local)
    aim = sent_on_to(rule.text)
    away = is_loopback(path.packet.dst) and aim is not None and not is_loopback(aim[0])
    but = f", which must then not go to {path.packet.dst}" if away else ""
    remedy = (f"the same rule for packets made here{but}: {command}",)
    return Diagnosis(Cause.REDIRECT_NOT_IN_OUTPUT, summary, (rule.ref,), evidence, remedy=remedy)


def _beginning(path: PacketPath) -> str:
    if not path.chain_hops:
        return ", without any chain"
    first = path.chain_hops[0]
    return f" at {name(first)}" if first.hook is Hook.OUTPUT else f"; {name(first)} saw it on lo"


def _was_or_could_not_be_asked(hop: ChainHop) -> bool:
    """Tell whether nat/OUTPUT had a rule for the packet, or none of its rules was asked."""
    if hop.hook is not Hook.OUTPUT or hop.rule is None:
        return False
    if NOTRACK.search(hop.rule):
        return True
    changed = any(change.field in ("dst", "dport") for change in hop.changes)
    return hop.chain.table == "nat" or changed


def _redirects(path: PacketPath, ruleset: Ruleset) -> Iterator[Rule]:
    """Yield the nat/PREROUTING rules that by protocol and destination alone match the packet."""
    local = {path.packet.dst: True} if stayed_here(path) else {}
    facts = PacketFacts(path.packet, local=local)
    for chain in _asked_from_outside(facts, ruleset):
        for rule in chain.user_rules:
            text = WAY_IN.sub("", rule.text)
            simple = _redirects_by_destination(rule) and _asks_destination_only(text)
            if simple and judge_any(text, facts).matches:
                yield rule


def _asked_from_outside(facts: PacketFacts, ruleset: Ruleset) -> Iterator[Chain]:
    """Yield the chains of PREROUTING that would be asked for such a packet from some interface."""
    families = (facts.packet.family.table_family, TableFamily.INET)
    waiting = [c for c in ruleset.chains.values() if c.hook is Hook.PREROUTING]
    waiting = [each for each in waiting if each.ref.table_family in families]
    seen: set[ChainRef] = set()
    while waiting:
        chain = waiting.pop(0)
        if chain.ref in seen:
            continue
        seen.add(chain.ref)
        yield chain
        names = (name for rule in chain.user_rules for name in _called(rule, facts))
        called = (ruleset.chains.get(replace(chain.ref, chain=name)) for name in names)
        waiting += [each for each in called if each is not None]


def _called(rule: Rule, facts: PacketFacts) -> Sequence[str]:
    """Return the chains that a rule may send the packet to, whatever interface it came in by."""
    if not rule.text.startswith("-A ") and BY_INTERFACE.match(rule.text):
        return CALLS.findall(rule.text)
    if not judge_any(WAY_IN.sub("", rule.text), facts).matches:
        return ()
    return [rule.target or ""] if rule.text.startswith("-A ") else CALLS.findall(rule.text)


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
        if path.in_interface is not None and path.role is Role.OBSERVED:
            summary = f"it came in by {path.in_interface}, and no chain with rules or policy met it"
            way = f"{path.packet.dst} from {path.packet.src} iif {path.in_interface}"
            remedy = f"to see what routing says of it: ip route get {way}"
            return Diagnosis(Cause.UNKNOWN, summary, remedy=(remedy,))
        got = f": the client's call ended with {client}" if client else ""
        summary = f"it never came to a chain of this namespace{got}"
        remedy = f"to see the route that the sender has: ip route get {path.packet.dst}"
        return Diagnosis(Cause.UNKNOWN, summary, remedy=(remedy,))
    seen = Evidence(f"{name(last)} is the kernel's last report of it", Strength.REPORTED)
    if path.outcome is Outcome.INCOMPLETE:
        summary = f"its way is not complete: reports were lost; last seen at {name(last)}"
    elif last.verdict is Verdict.QUEUE:
        summary = f"{name(last)} queued it for a program, and it did not come back"
    elif last.verdict is Verdict.STOLEN:
        summary = f"{name(last)} took it out of the chains, and no later one sees it: {last.rule}"
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
