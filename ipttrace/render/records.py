"""Values to lines of JSON; no line ends with a newline."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ipttrace.checkup.finding import Finding
from ipttrace.netfilter import PacketFamily, RuleRef
from ipttrace.packet import PacketSummary
from ipttrace.path import (
    ChainHop,
    Change,
    Diagnosis,
    DropHop,
    Hop,
    NatHop,
    PacketPath,
    ResetHop,
    RouteHop,
    SocketHop,
    WireHop,
)
from ipttrace.render import record_types as types
from ipttrace.result import TraceResult
from ipttrace.ruleset import Chain, Counter, Rule

_encoder = msgspec.json.Encoder()


def path_record(path: PacketPath) -> bytes:
    """Return the line of one path."""
    return encoded(
        types.PathRecord(
            schema=types.SCHEMA,
            record="path",
            id=path.id,
            journey=path.journey,
            leg=path.leg,
            netns=path.netns,
            role=path.role,
            request=path.request,
            time=_microseconds(path.time),
            packet=_packet(path),
            hops=tuple(_hop(hop) for hop in path.hops),
            outcome=path.outcome,
            ambiguous=path.ambiguous,
            rules_changed=path.rules_changed,
            diagnosis=_diagnosis(path.diagnosis) if path.diagnosis else None,
        )
    )


def summary_record(result: TraceResult) -> bytes:
    """Return the last line of a run."""
    totals = result.totals
    return encoded(
        types.SummaryRecord(
            schema=types.SCHEMA,
            record="summary",
            client=client_field(result.client),
            trigger=result.trigger,
            backends=result.backends,
            traced=types.TracedFields(
                totals.hits,
                totals.packets,
                totals.complete,
                totals.lost_events,
                totals.undecoded,
            ),
            warnings=result.warnings,
            clean=result.clean,
            seconds=round(result.seconds, 3),
        )
    )


def chain_record(netns: str | None, chain: Chain, rise: Counter | None = None) -> bytes:
    """Return the line of one chain of a ruleset."""
    ref = chain.ref
    return encoded(
        types.ChainRecord(
            schema=types.SCHEMA,
            record="chain",
            netns=netns,
            backend=ref.backend,
            table_family=ref.table_family,
            table=ref.table,
            chain=ref.chain,
            hook=chain.hook,
            priority=chain.priority,
            policy=chain.policy,
            counter=_counter(chain.counter),
            rise=_counter(rise),
            rules=len(chain.user_rules),
            devices=chain.devices,
        )
    )


def rule_record(netns: str | None, rule: Rule, rise: Counter | None = None) -> bytes:
    """Return the line of one rule of the user's; `rule.number` must not be None."""
    if rule.number is None:
        raise ValueError("a rule of ours is not shown")
    ref = rule.chain
    return encoded(
        types.RuleRecord(
            schema=types.SCHEMA,
            record="rule",
            netns=netns,
            backend=ref.backend,
            table_family=ref.table_family,
            table=ref.table,
            chain=ref.chain,
            number=rule.number,
            handle=rule.handle,
            rule=rule.text,
            target=rule.target,
            counter=_counter(rule.counter),
            rise=_counter(rise),
        )
    )


def finding_record(netns: str | None, finding: Finding) -> bytes:
    """Return the line of one finding of a check-up."""
    return encoded(
        types.FindingRecord(
            schema=types.SCHEMA,
            record="finding",
            netns=netns,
            topic=finding.topic,
            state=finding.state,
            text=finding.text,
            advice=finding.advice,
        )
    )


def encoded(record: msgspec.Struct) -> bytes:
    """Return any record as its line; bytes that are no UTF-8 are written out."""
    try:
        return _encoder.encode(record)
    except UnicodeEncodeError:
        return _encoder.encode(_without_surrogates(msgspec.to_builtins(record)))


def _without_surrogates(value: object) -> object:
    """Put U+FFFD for every lone surrogate: JSON is UTF-8, which cannot hold one (RFC 8259, 8.1)."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(each) for each in value]
    return value


def _microseconds(time: float) -> float:
    return round(time, 6)


def client_field(words: tuple[str, ...]) -> str | tuple[str, ...] | None:
    """Return what clients got as the records have it: null, a word, or a list of them."""
    if not words:
        return None
    return words[0] if len(words) == 1 else words


def _counter(counter: Counter | None) -> types.CounterFields | None:
    return types.CounterFields(counter.packets, counter.bytes) if counter else None


def _packet(path: PacketPath) -> types.PacketFields:
    packet = path.packet
    return types.PacketFields(
        family=packet.family,
        protocol=packet.protocol,
        src=packet.src,
        sport=packet.sport,
        dst=packet.dst,
        dport=packet.dport,
        ip_id=packet.ip_id if packet.family is PacketFamily.IPV4 else None,
        length=packet.length,
        ttl=packet.ttl,
        tcp_flags=packet.tcp_flags,
        icmp=_icmp(packet),
        in_interface=path.in_interface,
        out_interface=path.out_interface,
        mark=path.mark,
        physical_in=path.physical_in,
        physical_out=path.physical_out,
    )


def _icmp(packet: PacketSummary) -> types.IcmpFields | None:
    header = packet.icmp
    return types.IcmpFields(header.type, header.code, header.id, header.seq) if header else None


def _hop(hop: Hop) -> types.HopRecord:
    match hop:
        case ChainHop():
            return _chain_hop(hop)
        case NatHop():
            return types.NatHopRecord(hop.source, hop.destination, hop.basis)
        case WireHop():
            event = msgspec.convert(hop.event, types.WireEvent)
            return types.WireHopRecord(event, hop.interface)
        case RouteHop():
            return types.RouteHopRecord(
                hop.decision,
                hop.in_interface,
                hop.out_interface,
                hop.via,
                hop.table,
                hop.source,
                hop.basis,
            )
        case SocketHop():
            return types.SocketHopRecord(
                hop.state, hop.address, hop.port, hop.pid, hop.process, hop.netns
            )
        case DropHop():
            return types.DropHopRecord(
                hop.reason, hop.location, msgspec.convert(hop.basis, types.DropBasis)
            )
        case ResetHop():
            return types.ResetHopRecord(hop.reason, msgspec.convert(hop.by, types.ResetBy))


def _chain_hop(hop: ChainHop) -> types.ChainHopRecord:
    return types.ChainHopRecord(
        time=_microseconds(hop.time),
        backend=hop.chain.backend,
        table_family=hop.chain.table_family,
        hook=hop.hook,
        priority=hop.priority,
        table=hop.chain.table,
        chain=hop.chain.chain,
        event=hop.event,
        rule_number=hop.number,
        rule_handle=hop.handle,
        rule=hop.rule,
        target=hop.target,
        verdict=hop.verdict,
        basis=hop.basis,
        counter=_counter(hop.counter),
        changes=_changes(hop.changes),
        map_key=hop.element.key if hop.element is not None else None,
    )


def _changes(
    changes: Iterable[Change],
) -> dict[str, tuple[str | int | None, str | int | None]]:
    merged: dict[str, tuple[str | int | None, str | int | None]] = {}
    for change in changes:
        before = merged[change.field][0] if change.field in merged else change.old
        merged[change.field] = (before, change.new)
    return merged


def _rule(ref: RuleRef) -> types.RuleFields:
    chain = ref.chain
    return types.RuleFields(
        chain.backend, chain.table_family, chain.table, chain.chain, ref.number, ref.handle
    )


def _diagnosis(diagnosis: Diagnosis) -> types.DiagnosisFields:
    return types.DiagnosisFields(
        cause=diagnosis.cause,
        summary=diagnosis.summary,
        rules=tuple(_rule(ref) for ref in diagnosis.rules),
        evidence=tuple(types.EvidenceFields(e.text, e.strength) for e in diagnosis.evidence),
        unmatched=tuple(
            types.UnmatchedFields(
                each.rule.chain.backend,
                each.rule.chain.table_family,
                each.rule.chain.table,
                each.rule.chain.chain,
                each.rule.number,
                each.criterion,
                each.actual,
            )
            for each in diagnosis.unmatched
        ),
        remedy=diagnosis.remedy,
    )
