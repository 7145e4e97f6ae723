"""Rows, fields and sentences, without a screen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.netfilter import Backend, Basis, Hook, TableFamily, Verdict
from ipttrace.path import Change, NatHop, Outcome, PacketPath, WireHop
from ipttrace_tui.explanation import hop_sentences, why
from ipttrace_tui.header_fields import Field, fields_at
from ipttrace_tui.packet_log import entry_of
from ipttrace_tui.view_model import (
    OUTCOMES,
    PacketRow,
    Tone,
    cut_rule,
    entry_row,
    hop_rows,
    packet_title,
    telling_hop,
)
from ipttrace_tui.widgets.hop_list import columns_for
from tests.builders import (
    CLIENT6,
    SERVER6,
    TIME,
    forward_path,
    icmp,
    mark_drop_path,
    path,
    policy_hop,
    redirect_path,
    rule_hop,
    tcp,
)
from tests.tui.builders import MARK_DROP, dropped, hostile


def packet_row(packet: PacketPath) -> PacketRow:
    return entry_row(entry_of(packet, ()))


def test_every_outcome_has_its_own_words_beside_its_colour() -> None:
    assert set(OUTCOMES) == set(Outcome)
    rows = [packet_row(path(outcome=outcome)) for outcome in Outcome]
    assert len({(row.glyph, row.outcome) for row in rows}) == len(Outcome)


def test_endpoints_are_shortened_step_by_step() -> None:
    row = packet_row(mark_drop_path())
    assert row.ways == (
        "203.0.113.7:40000 > 198.51.100.1:8443",
        "..7:40000 > ..1:8443",
        "..7 > ..1:8443",
        ":40000 > :8443",
        ":40000>:8443",
        "> ..1:8443",
        ">:8443",
    )


def test_ipv6_endpoints_are_bracketed() -> None:
    row = packet_row(path(packet=tcp(CLIENT6, SERVER6)))
    assert row.ways[:2] == (
        "[2001:db8:7::7]:40000 > [2001:db8:1::1]:8443",
        "[..:7]:40000 > [..:1]:8443",
    )


def test_an_extension_header_that_hides_the_protocol_is_named() -> None:
    hidden = replace(tcp(CLIENT6, SERVER6), protocol="0", sport=None, dport=None, partial=True)
    packet = path(packet=replace(hidden, tcp_flags=()))
    assert packet_row(packet).protocol == "hbh"
    assert packet_title(packet).startswith("hop-by-hop options  2001:db8:7::7 > ")


def test_packets_without_ports_keep_their_addresses() -> None:
    assert packet_row(path(packet=icmp())).ways[-1] == "..7 > ..1"


def test_rule_row_says_what_the_rule_does() -> None:
    row = hop_rows(mark_drop_path())[1]
    assert (row.table, row.chain, row.place) == ("mangle", "PREROUTING", "1")
    assert row.text == "-p tcp -m tcp --dport 8443 -j MARK --set-xmark 0x1/0xffffffff"
    assert (row.target, row.verdict, row.changes, row.counter) == (
        "MARK",
        "CONTINUE",
        "mark 0→1",
        "+1",
    )


def test_policy_row_has_no_number_and_no_counter() -> None:
    row = hop_rows(mark_drop_path())[0]
    assert (row.place, row.text, row.counter, row.tone) == ("policy", "", "", Tone.MUTED)


def test_backends_are_named_only_where_there_are_two() -> None:
    legacy, nft = (
        policy_hop("raw", "PREROUTING"),
        policy_hop("raw", "PREROUTING", backend=Backend.NFT),
    )
    assert [row.table for row in hop_rows(path(legacy))] == ["raw"]
    assert [row.table for row in hop_rows(path(legacy, nft))] == ["raw·leg", "raw·nft"]


def test_rule_without_a_number_is_named_by_its_handle() -> None:
    hop = rule_hop(
        "fw", "in", 1, "accept", hook=Hook.INPUT, backend=Backend.NFT, family=TableFamily.INET
    )
    unread = type(hop)(hop.time, hop.chain, hop.hook, 0, hop.event, None, Basis.UNKNOWN, handle=7)
    row = hop_rows(path(unread))[0]
    assert (row.table, row.place, row.verdict) == ("inet fw", "#7", "?")


def test_unknown_verdict_is_marked() -> None:
    hop = rule_hop("filter", "INPUT", 1, "-j NEW", basis=Basis.UNKNOWN, verdict=Verdict.CONTINUE)
    assert hop_rows(path(hop))[0].verdict == "CONTINUE?"


def test_contained_packets_are_said_to_be_kept_inside() -> None:
    row = hop_rows(forward_path(WireHop(TIME, "contained", "eth1")))[-1]
    assert (row.table, row.chain, row.text) == ("wire", "eth1", "kept inside by ipttrace")


RULE = "-d 198.51.100.1/32 -p tcp -m tcp --dport 8445 -j REDIRECT --to-ports 8443"


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (73, RULE),
        (72, "-d 198.51.100.1 -p tcp --dport 8445 -j REDIRECT --to-ports 8443"),
        (60, "-d 198.51.100.1 -p tcp --dport 8445 -j REDIRECT …"),
        (48, "… -p tcp --dport 8445 -j REDIRECT …"),
        (30, "… --dport 8445 -j REDIRECT …"),
        (27, "… --dport 8445 -j REDIRECT"),
        (24, "-d 198.51… -j REDIRECT …"),
        (20, "-d 198.51.100.1 -p …"),
        (1, "…"),
    ],
)
def test_cut_rule_keeps_its_target(width: int, text: str) -> None:
    assert cut_rule(RULE, width) == text


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (72, '-p udp --dport 1001 -m comment --comment "of \\"old\\" kept" -j ACCEPT'),
        (60, "-p udp --dport 1001 … -j ACCEPT"),
        (30, "-p udp --dport 1001 -j ACCEPT"),
        (26, "… --dport 1001 -j ACCEPT"),
    ],
)
def test_a_comment_goes_before_what_a_rule_asks_for(width: int, text: str) -> None:
    rule = '-p udp -m udp --dport 1001 -m comment --comment "of \\"old\\" kept" -j ACCEPT'
    assert cut_rule(rule, width) == text


@pytest.mark.parametrize("width", range(1, 90))
def test_cut_rule_never_takes_more_room(width: int) -> None:
    assert len(cut_rule(RULE, width)) <= width


@pytest.mark.parametrize("width", [34, 52, 76, 110])
def test_columns_fill_the_width_and_no_more(width: int) -> None:
    columns = columns_for(hop_rows(mark_drop_path()), width)
    parts = [columns.table, columns.chain, columns.place, columns.verdict, columns.counter]
    parts += [part for part in (columns.text, columns.changes) if part]
    assert sum(parts) + len(parts) - 1 <= width or columns.changes == 0


def test_headers_follow_the_changes_up_to_the_hop() -> None:
    way = redirect_path()
    before = {field.name: field for field in fields_at(way, 1)}
    at = {field.name: field for field in fields_at(way, 2)}
    after = {field.name: field for field in fields_at(way, 3)}
    assert before["dport"] == Field("dport", "8445")
    assert at["dport"] == Field("dport", "8443", "8445")
    assert after["dport"] == Field("dport", "8443")


def test_rewritten_source_is_a_change_of_the_header() -> None:
    way = forward_path(WireHop(TIME, "sent", "eth1"))
    fields = {field.name: field for field in fields_at(way, 2)}
    assert fields["src"] == Field("src", "203.0.113.1", "203.0.113.7")
    assert fields["sport"] == Field("sport", "40000")


def test_rewritten_ipv6_source_loses_its_brackets() -> None:
    nat = NatHop(TIME, Basis.REPORTED, source=(f"[{CLIENT6}]:40000", f"[{SERVER6}]:1024"))
    fields = {field.name: field for field in fields_at(path(nat, packet=tcp(CLIENT6, SERVER6)), 0)}
    assert fields["src"] == Field("src", SERVER6, CLIENT6)
    assert fields["sport"] == Field("sport", "1024", "40000")


def test_marks_are_hexadecimal() -> None:
    hop = rule_hop("mangle", "PREROUTING", 1, "-j MARK", Change("mark", 16, 255))
    fields = {field.name: field for field in fields_at(path(hop, mark=16), 0)}
    assert fields["mark"] == Field("mark", "0xff", "0x10")
    assert hop_rows(path(hop))[0].changes == "mark 0x10→0xff"


def test_hop_sentences_give_rule_verdict_and_basis() -> None:
    assert [each.text for each in hop_sentences(dropped(), 5)] == [
        "filter INPUT 1",
        "-m mark --mark 0x1 -j DROP",
        "DROP, inferred; iptables-legacy",
    ]
    assert hop_sentences(dropped(), None) == ()


def test_why_gives_the_whole_diagnosis() -> None:
    sentences = why(dropped())
    assert sentences[0].text == f"✗ {MARK_DROP.summary}"
    assert [(each.label, each.text) for each in sentences[1:]] == [
        ("evidence", "the client sees a timeout (inferred)"),
        ("evidence", "kernel: NETFILTER_DROP (reported)"),
        ("not matched", "nat/PREROUTING 1 wants --dport 8445, the packet has 8443"),
        ("remedy", "iptables-legacy -D INPUT 1"),
        ("remedy", "or exempt it before mangle/PREROUTING 1"),
    ]


def test_the_command_of_a_remedy_stands_apart_from_what_it_is_good_for() -> None:
    told = replace(MARK_DROP, remedy=("or delete it: nft delete rule a b c handle 1", "or wait"))
    remedies = [each for each in why(mark_drop_path(diagnosis=told)) if each.label == "remedy"]
    assert [(each.text, each.command) for each in remedies] == [
        ("or delete it:", "nft delete rule a b c handle 1"),
        ("or wait", ""),
    ]


def test_why_without_a_diagnosis_says_the_place() -> None:
    assert why(mark_drop_path())[0].text == "✗ dropped at filter/INPUT 1"
    policy = path(policy_hop("filter", "INPUT", Verdict.DROP), outcome=Outcome.DROPPED)
    assert why(policy)[0].text == "✗ dropped at filter/INPUT by its policy"
    lost = path(policy_hop("raw", "PREROUTING"), outcome=Outcome.LOST)
    assert why(lost)[0].text == "? lost after raw/PREROUTING: no proof of why"


def test_first_look_goes_to_the_death_else_to_the_change_else_to_the_start() -> None:
    assert telling_hop(mark_drop_path()) == 5
    assert telling_hop(redirect_path()) == 2
    assert telling_hop(path(policy_hop("raw", "PREROUTING"), policy_hop("filter", "INPUT"))) == 0
    assert telling_hop(path()) is None


def test_nothing_that_comes_from_rules_keeps_a_control_character() -> None:
    way = hostile().paths[0]
    said = [
        str(packet_row(way)),
        str(hop_rows(way)),
        *(each.text for each in hop_sentences(way, 0)),
    ]
    assert not any("\x1b" in text or "\x07" in text for text in said)
