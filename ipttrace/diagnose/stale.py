"""An older conntrack entry keeps a nat rule from acting on the packet.

Either the nat rules are not asked any more (nf_nat_inet_fn), or, where the entry is older than the
first nat rule, they are asked, match, and change nothing (nf_nat_setup_info: a confirmed entry).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ipttrace.diagnose.case import Case
from ipttrace.diagnose.catalogue import Cause
from ipttrace.diagnose.unmatched import facts_at
from ipttrace.diagnose.walk import packet_before
from ipttrace.event import TraceKind
from ipttrace.evidence import Connection
from ipttrace.matching import PacketFacts, judge_any
from ipttrace.netfilter import Hook, TableFamily, nat_priority
from ipttrace.packet import Flow
from ipttrace.path import LEFT, ChainHop, Diagnosis, Evidence, Outcome, Strength
from ipttrace.ruleset import Chain, Rule

DESTINATION = re.compile(
    r"(?:-j DNAT .*--to-destination |-j REDIRECT .*--to-ports |\bdnat (?:ip6? )?to |\bredirect to )"
    r"(?P<to>\S+)"
)
SOURCE = re.compile(
    r"(?:-j SNAT .*--to-source |\bsnat (?:ip6? )?to )(?P<to>\S+)|-j MASQUERADE|\bmasquerade\b"
)
ENDPOINT = re.compile(
    r"(?:\[(?P<six>[0-9a-f:]+)\]|(?P<four>[0-9.]+\.[0-9]+)|(?P<bare>[0-9a-f]*:[0-9a-f:]*:[0-9a-f:]*))?"
    r"(?::?(?P<port>\d+))?$"
)
IPS_SRC_NAT = 16

HERE = frozenset({Outcome.DELIVERED, Outcome.REFUSED, Outcome.REJECTED})


@dataclass(frozen=True, slots=True)
class _Stale:
    rule: Rule
    entry: Connection
    matched: bool
    """The rule was asked and matched, and yet changed nothing."""


def stale_conntrack(case: Case) -> Diagnosis | None:
    """Return the cause where an entry from before the packet decided its NAT, not the rules."""
    found = _find(case)
    if found is None:
        return None
    entry, rule = found.entry, found.rule
    asked = "matched, and changed nothing" if found.matched else "was not asked"
    summary = (
        f"{rule.ref} {asked}: the older conntrack entry of {endpoint_of(entry.original)} decides, "
        f"whose packets go to {_far_end(entry)}"
    )
    return Diagnosis(
        Cause.STALE_CONNTRACK,
        summary,
        (rule.ref,),
        tuple(_evidence(found)),
        remedy=(f"to have the nat rules asked again: {_delete(entry.original)}",),
    )


def _evidence(found: _Stale) -> Iterator[Evidence]:
    entry = found.entry
    flow, back = entry.original, entry.reply
    text = (
        f"conntrack had the entry {flow.protocol} {endpoint_of(flow)}, answers "
        f"{endpoint_of(back)}, before the packet was sent"
    )
    yield Evidence(text, Strength.MATCHED)
    if found.matched:
        yield Evidence(
            f"{found.rule.ref} matched, and the packet stayed as it was", Strength.REPORTED
        )
    else:
        yield Evidence(f"no chain {found.rule.chain} reported it", Strength.INFERRED)
        yield Evidence(f"{found.rule.ref} would match: {found.rule.text}", Strength.INFERRED)


def endpoint_of(flow: Flow) -> str:
    """Return both ends of a flow."""
    return f"{_end(flow.src, flow.sport)} > {_end(flow.dst, flow.dport)}"


def _end(address: str, port: int | None) -> str:
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _far_end(entry: Connection) -> str:
    return _end(entry.reply.src, entry.reply.sport)


def _delete(flow: Flow) -> str:
    words = ["conntrack", "-D", "-f", flow.family.value, "-p", _protocol(flow)]
    words += ["-s", flow.src, "-d", flow.dst]
    if flow.sport is not None and flow.dport is not None:
        words += ["--sport", str(flow.sport), "--dport", str(flow.dport)]
    if flow.icmp_id is not None:
        words += ["--icmp-id", str(flow.icmp_id)]
    return shlex.join(words)


def _protocol(flow: Flow) -> str:
    return "icmpv6" if flow.protocol == "icmp6" else flow.protocol


def _find(case: Case) -> _Stale | None:
    flow = case.path.packet.flow
    entry = next((each for each in case.scene.before if each.original == flow), None)
    if entry is None:
        return None
    hooks = [Hook.PREROUTING if case.path.in_interface else Hook.OUTPUT]
    hooks += [Hook.POSTROUTING] if case.path.outcome in LEFT else []
    found = (_at_hook(case, hook, entry) for hook in hooks)
    return next((each for each in found if each is not None), None)


def _at_hook(case: Case, hook: Hook, entry: Connection) -> _Stale | None:
    for chain in nat_chains(case, hook):
        hops = [hop for hop in case.path.chain_hops if hop.chain == chain.ref]
        if not hops:
            rule = _would_match(case, chain, entry) if _went_past(case, hook) else None
            if rule is not None:
                return _Stale(rule, entry, matched=False)
            continue
        rule = _without_effect(chain, hops[-1], entry)
        if rule is not None:
            return _Stale(rule, entry, matched=True)
    return None


def nat_chains(case: Case, hook: Hook) -> Iterator[Chain]:
    """Yield the chains at a hook that translate, of the packet's family."""
    families = (case.path.packet.family.table_family, TableFamily.INET)
    for ref, chain in case.ruleset.chains.items():
        if chain.hook is hook and ref.table_family in families and any(map(_pattern, chain.rules)):
            yield chain


def _pattern(rule: Rule) -> re.Match[str] | None:
    return DESTINATION.search(rule.text) or SOURCE.search(rule.text)


def _went_past(case: Case, hook: Hook) -> bool:
    """Return whether the packet came past the place of the nat rules."""
    place = nat_priority(hook) or 0
    beyond = (
        hop for hop in case.path.chain_hops if hop.hook is not hook or (hop.priority or 0) > place
    )
    return any(beyond) or case.path.outcome in LEFT | HERE


def _would_match(case: Case, chain: Chain, entry: Connection) -> Rule | None:
    """Return the nat rule that a new connection would meet first, if the entry is otherwise."""
    rule = first_translating(chain, _facts(case))
    return rule if rule is not None and _diverges(rule, entry) else None


def first_translating(chain: Chain, facts: PacketFacts) -> Rule | None:
    """Return the rule that would surely translate such a packet; None if that is in doubt."""
    for rule in chain.user_rules:
        matches = judge_any(rule.text, facts).matches
        if matches is False:
            continue
        return rule if matches and _pattern(rule) is not None else None
    return None


def _facts(case: Case) -> PacketFacts:
    last = case.last
    if last is None:
        packet = packet_before(case.path, None)
        return PacketFacts(packet, case.path.in_interface, ct_state="NEW")
    return replace(facts_at(case.path, last, case.scene), ct_state="NEW")


def _without_effect(chain: Chain, hop: ChainHop, entry: Connection) -> Rule | None:
    if hop.event is not TraceKind.RULE or hop.changes:
        return None
    rule = next((each for each in chain.rules if each.ref == hop.ref), None)
    return rule if rule is not None and _pattern(rule) and _diverges(rule, entry) else None


def _diverges(rule: Rule, entry: Connection) -> bool:
    """Return whether the rule surely asks for another translation than the entry has."""
    found = DESTINATION.search(rule.text)
    if found is not None:
        return _differs(found["to"], entry.reply.src, entry.reply.sport)
    found = SOURCE.search(rule.text)
    if found is None:
        return False
    if found["to"] is None:
        return not entry.status & IPS_SRC_NAT
    return _differs(found["to"], entry.reply.dst, entry.reply.dport)


def _differs(wanted: str, address: str, port: int | None) -> bool:
    text = wanted if not wanted.isdecimal() else f":{wanted}"
    found = ENDPOINT.match(text)
    if found is None:
        return False
    host = found["six"] or found["four"] or found["bare"]
    if host is not None and host != address:
        return True
    return found["port"] is not None and int(found["port"]) != port
