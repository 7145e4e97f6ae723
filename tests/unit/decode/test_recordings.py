"""What this kernel sent, byte for byte, and each trap in it by name."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ipttrace.decode.netlink import decode_datagram
from ipttrace.event import Event, FlowChange, FlowEvent, ForeignLog, TraceEvent, TraceKind
from ipttrace.netfilter import Backend, Hook, TableFamily, Verdict
from ipttrace.packet import PacketSummary
from ipttrace.ruleset import Place
from tests import recordings

FAMILIES = ("4", "6")


def events_of(name: str) -> list[Event]:
    messages = recordings.read_recording(name).messages
    return [event for message in messages for event in decode_datagram(message.data, 0.0)]


def traces_of(name: str) -> list[TraceEvent]:
    return [event for event in events_of(name) if isinstance(event, TraceEvent)]


def packets_of(name: str, chain: str) -> list[PacketSummary]:
    traces = [event for event in traces_of(name) if event.chain == chain]
    return [event.packet for event in traces if event.packet is not None]


def probe_walk(name: str) -> list[TraceEvent]:
    """Return the reports of the packet to port 8445, which is redirected to 8443."""
    traces = traces_of(name)
    ports = [event.packet.dport if event.packet else None for event in traces]
    start = ports.index(8445)
    ids = {event.trace_id for event in traces[start : start + 1]}
    return [
        event
        for event, port in zip(traces[start:], ports[start:], strict=True)
        if event.trace_id in ids and (event.packet is None or port in (8443, 8445))
    ]


def place(name: str, event: TraceEvent) -> Place:
    found = recordings.read_recording(name).ruleset.locate(event)
    assert found is not None
    return found


@pytest.mark.parametrize("name", recordings.names())
def test_every_message_decodes_to_what_stands_beside_it(name: str) -> None:
    for index, message in enumerate(recordings.read_recording(name).messages, 1):
        events = decode_datagram(message.data, float(index))
        assert [recordings.event_record(event) for event in events] == message.expected


@pytest.mark.parametrize("name", recordings.names())
def test_a_recording_is_written_as_it_was_read(name: str) -> None:
    text = (recordings.DATA / f"{name}.dump").read_text()
    assert recordings.format_recording(recordings.parse_recording(text)) == text


@pytest.mark.parametrize("name", sorted(set(recordings.names()) - {"foreign4"}))
def test_every_report_has_its_place_in_the_rules_of_that_moment(name: str) -> None:
    ruleset = recordings.read_recording(name).ruleset
    traces = traces_of(name)
    assert traces
    assert [event for event in traces if ruleset.locate(event) is None] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_trap_an_unconditional_last_rule_reads_policy_in_legacy(family: str) -> None:
    name = f"legacy{family}-walk"
    last = probe_walk(name)[-1]
    assert (last.chain, last.kind, last.number) == ("INPUT", TraceKind.POLICY, 4)
    found = place(name, last)
    assert found.kind is TraceKind.RULE
    assert found.rule is not None
    assert found.rule.text == "-A INPUT -j DROP"


@pytest.mark.parametrize("family", FAMILIES)
def test_trap_an_unconditional_return_reads_return_in_legacy(family: str) -> None:
    name = f"legacy{family}-walk"
    (event,) = [event for event in probe_walk(name) if event.kind is TraceKind.RETURN]
    assert (event.chain, event.number) == ("U", 3)
    found = place(name, event)
    assert found.kind is TraceKind.RULE
    assert found.rule is not None
    assert found.rule.text == "-A U -j RETURN"


@pytest.mark.parametrize("family", FAMILIES)
def test_one_past_the_last_rule_is_the_end_of_a_legacy_chain(family: str) -> None:
    name = f"legacy{family}-walk"
    ends = [event for event in traces_of(name) if event.chain == "V" and event.number == 2]
    assert [event.kind for event in ends] == [TraceKind.RETURN]
    assert place(name, ends[0]).rule is None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_conditional_return_and_an_unconditional_jump_read_rule_in_legacy(family: str) -> None:
    points = [
        (event.chain, event.kind, event.number) for event in probe_walk(f"legacy{family}-walk")
    ]
    assert ("W", TraceKind.RULE, 1) in points
    assert ("U", TraceKind.RULE, 2) in points


@pytest.mark.parametrize("family", FAMILIES)
def test_trap_nft_reports_without_handle_are_no_rules(family: str) -> None:
    traces = traces_of(f"nft{family}-walk")
    bare = [event for event in traces if event.handle is None]
    assert {event.header_only for event in bare if event.kind is TraceKind.POLICY} == {False}
    closing = [event for event in bare if event.kind is not TraceKind.POLICY]
    assert closing
    assert {(event.header_only, event.verdict) for event in closing} == {(True, Verdict.CONTINUE)}


@pytest.mark.parametrize("family", FAMILIES)
def test_trap_a_report_without_handle_can_be_the_first_with_headers(family: str) -> None:
    carriers = [event for event in traces_of(f"nft{family}-walk") if event.header_only]
    assert any(event.packet is not None for event in carriers)
    assert any(event.packet is None for event in carriers)


@pytest.mark.parametrize("family", FAMILIES)
def test_trap_an_nft_return_with_a_handle_is_that_rule(family: str) -> None:
    name = f"nft{family}-walk"
    returns = [event for event in probe_walk(name) if event.verdict is Verdict.RETURN]
    rules = [place(name, event).rule for event in returns]
    assert [rule.text for rule in rules if rule] == ["-A W -p tcp -j RETURN", "-A U -j RETURN"]
    assert not any(event.header_only for event in returns)


def test_trap_the_end_of_an_nft_user_chain_is_a_report_without_handle() -> None:
    traces = traces_of("native4")
    ends = [event for event in traces if event.chain == "second" and event.handle is None]
    assert ends
    assert {(event.header_only, event.verdict) for event in ends} == {(True, Verdict.CONTINUE)}


@pytest.mark.parametrize("family", FAMILIES)
def test_nft_says_verdicts_and_where_a_jump_leads(family: str) -> None:
    walk = probe_walk(f"nft{family}-walk")
    jumps = [(e.chain, e.verdict, e.target_chain) for e in walk if e.target_chain is not None]
    assert jumps == [("INPUT", Verdict.JUMP, "U"), ("U", Verdict.JUMP, "W")]
    assert (walk[-1].chain, walk[-1].verdict) == ("INPUT", Verdict.DROP)
    gotos = [event for event in traces_of(f"nft{family}-walk") if event.verdict is Verdict.GOTO]
    assert {event.target_chain for event in gotos} == {"V"}


def test_the_verdict_of_an_nft_policy_is_the_policy() -> None:
    policies = {
        event.verdict
        for event in traces_of("native4")
        if event.kind is TraceKind.POLICY and event.chain == "input"
    }
    assert policies == {Verdict.DROP}


def test_legacy_reports_the_mark_before_the_rule_and_nft_after_it() -> None:
    def marks(name: str) -> list[int | None]:
        return [event.mark for event in probe_walk(name) if event.table == "mangle"][:2]

    assert marks("legacy4-walk") == [0, 1]
    assert marks("nft4-walk") == [1, 1]


@pytest.mark.parametrize("name", ["legacy4-walk", "legacy6-walk", "nft4-walk", "nft6-walk"])
def test_a_redirect_shows_in_the_next_hook(name: str) -> None:
    ports = [event.packet.dport for event in probe_walk(name) if event.packet]
    assert ports[0] == 8445
    assert ports[-1] == 8443
    assert sum(old != new for old, new in pairwise(ports)) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_legacy_says_the_hook_also_in_user_chains(family: str) -> None:
    hooks = {event.hook for event in traces_of(f"legacy{family}-walk") if event.chain in "UVW"}
    assert hooks == {Hook.INPUT}


def test_legacy_sequence_numbers_have_no_gap() -> None:
    numbers = [
        event.sequence
        for event in events_of("foreign4")
        if isinstance(event, TraceEvent | ForeignLog)
    ]
    assert numbers == list(range(len(numbers)))


def test_a_users_own_log_is_foreign() -> None:
    foreign = [event for event in events_of("foreign4") if isinstance(event, ForeignLog)]
    assert [event.prefix for event in foreign] == ["TRACE: filter:INPUT:rule:1", ""]
    assert [event.packet.dport for event in foreign if event.packet] == [3, 4]


def test_an_imitated_prefix_decodes_and_the_rules_unmask_one_that_cannot_be() -> None:
    ruleset = recordings.read_recording("foreign4").ruleset
    strangers = [event for event in traces_of("foreign4") if ruleset.locate(event) is None]
    assert [(event.table, event.chain) for event in strangers] == [("nowhere", "X")]


def test_an_imitated_prefix_that_can_be_is_a_second_report_of_the_same_rule() -> None:
    twins = [
        event
        for event in traces_of("foreign4")
        if event.packet and event.packet.dport == 1 and event.kind is TraceKind.RULE
    ]
    assert [(event.table, event.chain, event.number) for event in twins] == [
        ("filter", "INPUT", 1)
    ] * 2


def test_chain_names_may_look_like_the_rest_of_a_prefix() -> None:
    points = [(event.chain, event.kind, event.number) for event in traces_of("names4")]
    assert ("a:rule:1", TraceKind.RULE, 1) in points
    assert ("policy:2", TraceKind.RETURN, 1) in points


def test_a_comment_of_two_lines_is_one_rule() -> None:
    traces = traces_of("names4")
    (event,) = [e for e in traces if (e.chain, e.kind, e.number) == ("INPUT", TraceKind.RULE, 3)]
    rule = place("names4", event).rule
    assert rule is not None
    assert rule.text == "-A INPUT -p udp -g policy:2"


@pytest.mark.parametrize("family", FAMILIES)
def test_an_icmp_error_quotes_its_packet(family: str) -> None:
    (sent,) = packets_of(f"legacy{family}-errors", "OUTPUT")[:1]
    if sent.icmp and sent.icmp.type == 143:
        (sent,) = packets_of(f"legacy{family}-errors", "OUTPUT")[1:2]
    assert sent.quoted is not None
    assert (sent.quoted.sport, sent.quoted.dport) == (40001, 9)
    met = [packet for packet in packets_of(f"legacy{family}-errors", "PREROUTING") if packet.quoted]
    assert [packet.quoted.ttl for packet in met if packet.quoted] == [7, 7]


@pytest.mark.parametrize("family", FAMILIES)
def test_nft_cuts_the_quoted_packet_off(family: str) -> None:
    errors = [
        p for p in packets_of(f"nft{family}-errors", "PREROUTING") if p.protocol[:4] == "icmp"
    ]
    assert errors
    assert {packet.quoted for packet in errors} == {None}


def test_ipv4_fragments_keep_their_id_and_only_the_first_has_ports() -> None:
    for name in ("legacy4-headers", "nft4-headers"):
        packets = [p for p in packets_of(name, "PREROUTING") if p.protocol == "udp"]
        shape = [(p.ip_id, p.fragment_offset, p.more_fragments, p.dport) for p in packets]
        assert shape == [(4242, 0, True, 9), (4242, 48, True, None), (4242, 96, False, None)]


def test_ipv6_fragments_keep_their_id_in_legacy() -> None:
    packets = [p for p in packets_of("legacy6-headers", "PREROUTING") if p.ip_id is not None]
    shape = [(p.ip_id, p.fragment_offset, p.more_fragments, p.dport) for p in packets]
    assert shape == [(99, 0, True, 9), (99, 48, False, None)]


def test_trap_nft_reports_no_more_than_20_bytes_of_a_later_ipv6_fragment() -> None:
    first, later = [p for p in packets_of("nft6-headers", "PREROUTING") if p.protocol == "44"]
    assert (first.partial, first.src, first.dst) == (True, "2001:db8::2", "2001:db8::1")
    assert (later.partial, later.src, later.dst) == (True, "2001:db8::/96", "::/0")
    assert (later.length, later.ttl) == (104, 64)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("backend", Backend)
def test_rare_headers(backend: Backend, family: str) -> None:
    packets = packets_of(f"{backend}{family}-headers", "PREROUTING")
    assert any(packet.protocol == "sctp" and packet.dport == 2 for packet in packets)
    assert any(len(packet.tcp_flags) == 8 for packet in packets)


def test_a_cut_tcp_header_is_read_as_far_as_it_goes() -> None:
    for name in ("legacy4-headers", "nft4-headers"):
        (cut,) = [p for p in packets_of(name, "PREROUTING") if p.dport == 6]
        assert (cut.protocol, cut.tcp_seq, cut.tcp_ack, cut.tcp_flags) == ("tcp", 0, None, ())


def flows_of(name: str) -> list[FlowEvent]:
    return [event for event in events_of(name) if isinstance(event, FlowEvent)]


@pytest.mark.parametrize("family", FAMILIES)
def test_conntrack_tells_new_update_and_destroy_apart(family: str) -> None:
    changes = [event.change for event in flows_of(f"flows{family}")]
    assert set(changes) == set(FlowChange)
    assert changes[0] is FlowChange.NEW
    assert changes[-1] is FlowChange.DESTROY


@pytest.mark.parametrize("family", FAMILIES)
def test_conntrack_shows_a_redirect_in_the_reply(family: str) -> None:
    event = flows_of(f"flows{family}")[0]
    assert (event.original.dport, event.reply.sport, event.mark) == (8445, 8443, 1)
    assert event.reply.reversed() != event.original


@pytest.mark.parametrize("family", FAMILIES)
def test_conntrack_names_an_echo_by_its_id(family: str) -> None:
    echoes = [e for e in flows_of(f"flows{family}") if e.original.protocol[:4] == "icmp"]
    assert {(event.original.icmp_id, event.reply.icmp_id) for event in echoes} == {(77, 77)}


def test_inet_and_netdev_tables_see_both_kinds_of_packets() -> None:
    for name, family in (("native4", "ipv4"), ("native6", "ipv6")):
        seen = {
            (event.table_family, event.packet.family.value)
            for event in traces_of(name)
            if event.packet and event.packet.dport == 1
        }
        assert seen == {(TableFamily.INET, family), (TableFamily.NETDEV, family)}


def test_both_backends_come_through_one_socket() -> None:
    assert {event.backend for event in traces_of("both4")} == set(Backend)
