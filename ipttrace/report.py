"""A trace event with its place: which chain, which rule, at which hook and priority."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ipttrace.event import TraceEvent, TraceKind
from ipttrace.netfilter import (
    Backend,
    Basis,
    ChainRef,
    Hook,
    TableFamily,
    Verdict,
    builtin_priority,
)
from ipttrace.own_table import OWN_CHAINS
from ipttrace.packet import PacketSummary
from ipttrace.path import ChainHop
from ipttrace.ruleset import OWN_TABLE, Chain, Rule, Ruleset
from ipttrace.targets import verdict_of

Base = tuple[Backend, TableFamily, str, Hook]
"""One walk of a base chain: the table and the hook."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one trace event means."""

    event: TraceEvent
    kind: TraceKind
    hook: Hook | None = None
    """None in nft user chains, whose hook is that of the base chain being walked."""
    priority: int | None = None
    base: Base | None = None
    """None in nft user chains and in chains that the ruleset does not have."""
    chain: Chain | None = None
    rule: Rule | None = None

    @property
    def in_own_table(self) -> bool:
        """Whether a table of ipttrace's reports."""
        return self.event.table.startswith(OWN_TABLE)


def resolve(event: TraceEvent, ruleset: Ruleset) -> Report | None:
    """Return where `event` belongs, or None if it cannot be a report of these rules.

    A legacy report comes through a log group that others write to as well, so one that does not
    fit table, chain, number and hook is refused; nft reports come from the kernel alone.
    """
    place = ruleset.locate(event)
    if event.backend is Backend.LEGACY:
        if place is None or event.hook is None:
            return None
        priority = builtin_priority(event.table, event.hook)
        if priority is None or place.chain.hook not in (None, event.hook):
            return None
        base: Base = (event.backend, event.table_family, event.table, event.hook)
        return Report(event, place.kind, event.hook, priority, base, place.chain, place.rule)
    if event.table.startswith(OWN_TABLE):
        return _resolve_own(event)
    chain = place.chain if place else ruleset.chains.get(event.chain_ref)
    rule = place.rule if place else None
    if chain is None or chain.hook is None:
        return Report(event, event.kind, chain=chain, rule=rule)
    base = (event.backend, event.table_family, event.table, chain.hook)
    return Report(event, event.kind, chain.hook, chain.priority, base, chain, rule)


def _resolve_own(event: TraceEvent) -> Report:
    own = OWN_CHAINS.get(event.chain)
    if own is None:
        return Report(event, event.kind)
    table = f"{event.table} {event.chain}"
    base: Base = (event.backend, event.table_family, table, own.hook)
    return Report(event, event.kind, own.hook, own.priority, base)


def hop_of(report: Report, hook: Hook | None, priority: int | None, ruleset: Ruleset) -> ChainHop:
    """Return the hop that a report stands for, without what it changed."""
    event, rule = report.event, report.rule
    verdict, basis = _verdict(report, ruleset)
    return ChainHop(
        time=event.time,
        chain=event.chain_ref,
        hook=hook,
        priority=priority,
        event=report.kind,
        verdict=verdict,
        basis=basis,
        number=rule.number if rule else None,
        handle=event.handle,
        rule=rule.text if rule else None,
        target=rule.target if rule else None,
    )


def _verdict(report: Report, ruleset: Ruleset) -> tuple[Verdict | None, Basis]:
    if report.event.backend is Backend.NFT:
        reported = report.event.verdict
        if reported is None:
            return None, Basis.UNKNOWN
        refused = report.rule is not None and (report.rule.target or "").upper() == "REJECT"
        if reported is Verdict.DROP and refused:
            return Verdict.REJECT, Basis.REPORTED
        return reported, Basis.REPORTED
    if report.rule is None:
        ends = report.kind is TraceKind.RETURN
        policy = Verdict.RETURN if ends else report.chain.policy if report.chain else None
        return policy, Basis.INFERRED if policy else Basis.UNKNOWN
    return _legacy_rule_verdict(report.rule, ruleset), Basis.INFERRED


def _legacy_rule_verdict(rule: Rule, ruleset: Ruleset) -> Verdict:
    if rule.target and replace(rule.chain, chain=rule.target) in ruleset.chains:
        return Verdict.GOTO if rule.goto else Verdict.JUMP
    return verdict_of(rule.target)


Fingerprint = tuple[object, ...]


def fingerprint(packet: PacketSummary) -> Fingerprint:
    """Return what stays the same of a packet on its whole way, NAT and marks notwithstanding.

    nft reports only the first 20 bytes of the transport header: no more than these is used.
    """
    inner: object = None
    if packet.fragment_offset == 0:
        if packet.protocol == "tcp":
            inner = (packet.tcp_seq, packet.tcp_ack)
        elif packet.icmp is not None:
            inner = (packet.icmp.type, packet.icmp.code, packet.icmp.seq)
        else:
            inner = packet.payload[:8]
    identification = packet.ip_id if packet.family == "ipv4" else None
    return (
        packet.family,
        packet.protocol,
        identification,
        packet.fragment_offset,
        packet.length,
        inner,
    )


def chain_is_hidden(chain: ChainRef, created: frozenset[ChainRef]) -> bool:
    """Tell whether a chain exists only because of ipttrace."""
    return chain in created or chain.table.startswith(OWN_TABLE)
