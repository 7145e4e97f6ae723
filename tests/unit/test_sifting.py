"""Lines of the shared kernel log: whose packets they are about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from ipttrace import sifting
from ipttrace.event import Event, ForeignLog, Lost, TraceEvent, TraceKind
from ipttrace.netfilter import Backend, Hook, PacketFamily, TableFamily
from ipttrace.packet import Flow, PacketSummary
from ipttrace.request import PacketFilter, TraceRequest
from ipttrace.sifting import Sieve
from tests import builders

PACKET = builders.tcp(sport=40000, dport=8443)
NFT = Backend.NFT
OTHER = builders.tcp(sport=40001, dport=8443, ip_id=7)


IMITATED = '--log-prefix "TRACE: raw:PREROUTING:policy:1 "'
RULES = builders.ruleset(
    builders.chain("mangle", "PREROUTING", [f"-j LOG {IMITATED} --log-tcp-sequence"]),
    builders.chain("nat", "PREROUTING", ['-j LOG --log-prefix "other "']),
    builders.chain("filter", "FORWARD", [f"-j LOG {IMITATED}"]),
    builders.chain("mangle", "PREROUTING", [f"-j LOG {IMITATED} --log-tcp-sequence"], backend=NFT),
)


def logged(
    packet: PacketSummary = PACKET, hook: Hook = Hook.PREROUTING, table: str = "raw"
) -> TraceEvent:
    """Return a legacy report."""
    kind = TraceKind.POLICY
    return TraceEvent(
        1.0,
        Backend.LEGACY,
        TableFamily.IP,
        table,
        hook,
        kind,
        1,
        hook=hook,
        packet=packet,
        in_index=None if hook is Hook.OUTPUT else 2,
    )


def traced(packet: PacketSummary | None = PACKET, hook: Hook = Hook.PREROUTING) -> TraceEvent:
    """Return a report of a chain in our own table."""
    event = logged(packet or PACKET, hook)
    return replace(event, backend=Backend.NFT, table="ipttrace-0", hook=None, packet=packet)


def sifted(
    events: list[Event],
    others: list[Event] | None = None,
    *,
    flow: Flow = PACKET.flow,
    has_own_table: bool = True,
    open_ends: Mapping[str, bool] | None = None,
) -> list[Event]:
    request = TraceRequest("0", flow=flow, **(open_ends or {}))  # type: ignore[arg-type]
    return Sieve(request, has_own_table=has_own_table).sift(events, others or [], RULES)


def refused(event: TraceEvent) -> ForeignLog:
    prefix = f"TRACE: {event.table}:{event.chain}:{event.kind}:{event.number} "
    return ForeignLog(event.time, prefix, event.packet)


def test_a_packet_of_the_flow_is_ours_from_its_first_report_on() -> None:
    changed = replace(PACKET, dport=8080)
    events: list[Event] = [logged(), logged(changed, Hook.INPUT, "filter")]
    assert sifted(events) == events


@pytest.mark.parametrize(
    "packet",
    [
        OTHER,
        replace(PACKET, src="203.0.113.8"),
        replace(PACKET, dst="198.51.100.9"),
        replace(PACKET, dport=1),
        replace(PACKET, protocol="udp", tcp_flags=()),
        builders.tcp("2001:db8::1", "2001:db8::2", sport=40000, dport=8443),
    ],
)
def test_a_packet_of_another_flow_is_not(packet: PacketSummary) -> None:
    event = logged(packet)
    assert sifted([event]) == [refused(event)]


def test_a_packet_first_seen_elsewhere_than_at_the_trigger_is_not() -> None:
    """It is that of another namespace, on its way to us."""
    event = logged(hook=Hook.OUTPUT)
    assert sifted([event]) == [refused(event)]


@pytest.mark.parametrize(
    ("packet", "open_ends"),
    [
        (replace(PACKET, src="203.0.113.8"), {"any_source": True}),
        (replace(PACKET, dst="203.0.113.8", dport=1), {"any_destination": True}),
    ],
)
def test_what_the_request_leaves_open_may_be_anything(
    packet: PacketSummary, open_ends: dict[str, bool]
) -> None:
    event = logged(packet)
    assert sifted([event], open_ends=open_ends) == [event]


def test_ports_that_the_flow_leaves_open_may_be_any() -> None:
    flow = Flow(PacketFamily.IPV4, "tcp", PACKET.src, PACKET.dst)
    assert sifted([logged(OTHER)], flow=flow) == [logged(OTHER)]


def test_an_echo_is_known_by_its_id() -> None:
    echo = builders.icmp()
    flow = replace(echo.flow, icmp_id=5)
    assert sifted([logged(echo)], flow=echo.flow) == [logged(echo)]
    assert sifted([logged(echo)], flow=flow) == [refused(logged(echo))]


def test_a_packet_that_our_table_reported_is_ours_whatever_its_flow() -> None:
    event = logged(OTHER, Hook.OUTPUT)
    assert sifted([event], [traced(OTHER, Hook.OUTPUT)]) == [event]


def test_a_packet_that_came_in_was_made_in_another_namespace() -> None:
    made, came = logged(hook=Hook.OUTPUT), logged()
    assert sifted([made, came], [traced()]) == [refused(made), came]


def test_a_packet_over_loopback_comes_in_and_was_made_here() -> None:
    packet = replace(PACKET, src=PACKET.dst)
    back = replace(logged(packet), in_index=1)
    events: list[Event] = [logged(packet, Hook.OUTPUT), back]
    assert sifted(events, [traced(packet, Hook.OUTPUT)]) == events


def test_what_was_known_before_is_known_still() -> None:
    sieve = Sieve(TraceRequest("0", flow=PACKET.flow), has_own_table=True)
    assert sieve.sift([], [traced(OTHER), traced(None)], RULES) == []
    event = logged(OTHER, Hook.INPUT, "filter")
    assert sieve.sift([event], [], RULES) == [event]


def test_only_so_many_packets_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sifting, "REMEMBERED", 1)
    sieve = Sieve(TraceRequest("0", flow=PACKET.flow), has_own_table=True)
    sieve.sift([], [traced(OTHER), traced(replace(OTHER, ip_id=8))], RULES)
    assert sieve.sift([logged(OTHER)], [], RULES) == [refused(logged(OTHER))]


def test_without_a_table_of_ours_all_is_taken() -> None:
    assert sifted([logged(OTHER)], has_own_table=False) == [logged(OTHER)]


def test_what_a_filter_traces_is_all_taken() -> None:
    sieve = Sieve(TraceRequest("0", filter=PacketFilter("tcp", ())), has_own_table=True)
    assert sieve.sift([logged(OTHER)], [], RULES) == [logged(OTHER)]


def test_what_is_no_report_is_kept() -> None:
    lost = Lost(1.0, 3, "why")
    assert sifted([lost, logged(OTHER)]) == [lost, refused(logged(OTHER))]


# -- lines of LOG rules


@pytest.mark.parametrize("has_own_table", [True, False])
def test_what_a_log_rule_prints_is_no_report(has_own_table: bool) -> None:
    """The report of the LOG rule comes first, then its line, then the packet goes on."""
    rule, line, goes_on = logged(table="mangle"), logged(), logged(table="nat")
    found = sifted([rule, line, goes_on], has_own_table=has_own_table)
    assert found == [rule, refused(line), goes_on]


def test_a_log_rules_line_comes_also_in_a_later_drain() -> None:
    sieve = Sieve(TraceRequest("0", flow=PACKET.flow), has_own_table=True)
    assert sieve.sift([logged(table="mangle")], [], RULES) == [logged(table="mangle")]
    assert sieve.sift([logged()], [], RULES) == [refused(logged())]
    assert sieve.sift([logged()], [], RULES) == [logged()]


def test_two_log_rules_print_two_lines() -> None:
    rule, line = logged(table="mangle"), logged()
    assert sifted([rule, rule, line, line, line]) == [rule, rule, *[refused(line)] * 2, line]


@pytest.mark.parametrize("headers", [True, False])
def test_what_an_nft_log_rule_prints_is_no_report(headers: bool) -> None:
    """nf_tables reports the rule after it acted; only its chain's first report shows headers."""
    rule = replace(traced(), table="mangle", kind=TraceKind.RULE, handle=11, trace_id=5)
    first = replace(rule, handle=None)
    reports: list[Event] = [rule] if headers else [first, replace(rule, packet=None)]
    assert sifted([logged(), logged()], reports) == [refused(logged()), logged()]


def test_a_line_with_another_prefix_or_of_another_packet_is_not_the_log_rules() -> None:
    other = replace(logged(), packet=replace(PACKET, ip_id=99))
    events: list[Event] = [logged(table="mangle"), other, logged(table="security")]
    assert sifted(events) == events


def test_a_line_between_other_interfaces_is_not_the_log_rules() -> None:
    rule, later = logged(table="mangle"), replace(logged(), out_index=3)
    assert sifted([rule, later]) == [rule, later]


@pytest.mark.parametrize("rule", [logged(table="nat"), logged(hook=Hook.FORWARD, table="filter")])
def test_a_log_rule_that_cannot_imitate_a_report_announces_nothing(rule: TraceEvent) -> None:
    """Without its sequence number a TCP packet is in no report."""
    events: list[Event] = [rule, replace(logged(), in_index=rule.in_index)]
    assert sifted(events, [traced()]) == events


def test_only_so_many_lines_are_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sifting, "REMEMBERED", 1)
    sieve = Sieve(TraceRequest("0", filter=PacketFilter("tcp", ())), has_own_table=True)
    packets = [replace(PACKET, ip_id=number) for number in (1, 2)]
    sieve.sift([logged(each, table="mangle") for each in packets], [], RULES)
    found = sieve.sift([logged(each) for each in packets], [], RULES)
    assert found == [logged(packets[0]), refused(logged(packets[1]))]
