"""The form, the history, the settings and the rows of the rules as values."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttrace.event import TraceKind
from ipttrace.netfilter import Backend, RuleRef
from ipttrace.probe import ProbeSpec
from ipttrace.request import Trigger
from ipttrace.result import TraceTotals
from ipttrace.ruleset import Counter, Ruleset
from ipttrace_tui import own_files
from ipttrace_tui.feed import Snapshot
from ipttrace_tui.history import MOST, History
from ipttrace_tui.journey_rows import NEAR, around, legs
from ipttrace_tui.past_runs import PastRuns, past_of
from ipttrace_tui.probe_form import (
    FIELDS,
    INJECTED,
    LET_OUT,
    OTHER_CLIENT,
    FormValues,
    candidates,
    check,
    completed,
    shown_fields,
    split_target,
)
from ipttrace_tui.rule_rows import (
    Level,
    Readings,
    count_text,
    key_of,
    matching,
    met_by,
    rate_text,
    rows,
)
from ipttrace_tui.saving import MOST as MOST_SAVED
from ipttrace_tui.saving import Shown
from ipttrace_tui.settings import Settings, load_settings, parse_settings
from tests.builders import chain, mark_drop_path, path, policy_hop, rule_hop
from tests.tui.bench import PLACES, rules_of_article
from tests.tui.builders import article

# ---------------------------------------------------------------- form


@pytest.mark.parametrize(
    ("values", "spec"),
    [
        (FormValues(to="198.51.100.1", port="80"), ProbeSpec("tcp", "198.51.100.1", 80)),
        (
            FormValues(protocol="icmp", to="198.51.100.1", count="3"),
            ProbeSpec("icmp", "198.51.100.1", count=3),
        ),
        (
            FormValues(
                protocol="udp",
                to="2001:db8::1",
                port="53",
                source="[2001:db8::2]:40000",
                way=OTHER_CLIENT,
                client="client",
            ),
            ProbeSpec("udp", "2001:db8::1", 53, "2001:db8::2", 40000, from_netns="client"),
        ),
        (
            FormValues(
                to="::1",
                port="80",
                source="::2",
                way=INJECTED,
                interface="eth0",
                netns="a b",
                size="80",
            ),
            ProbeSpec("tcp", "::1", 80, "::2", in_interface="eth0", netns=("a", "b"), size=80),
        ),
        (
            FormValues(
                to="10.0.0.1",
                port="1",
                way=INJECTED,
                interface="eth0",
                flags="ACK",
                containment=LET_OUT,
            ),
            ProbeSpec("tcp", "10.0.0.1", 1, in_interface="eth0", tcp_flags=("ACK",), let_out=True),
        ),
        (
            FormValues(to="10.0.0.1", port="1", trigger="owner"),
            ProbeSpec("tcp", "10.0.0.1", 1, trigger=Trigger.OWNER),
        ),
    ],
)
def test_the_fields_of_the_form_are_a_probe(values: FormValues, spec: ProbeSpec) -> None:
    checked = check(values)
    assert checked.errors == {}
    assert checked.spec == spec


@given(st.fixed_dictionaries({name: st.text(max_size=12) for name in FIELDS}))
def test_no_text_in_the_fields_is_more_than_an_error_at_one_of_them(texts: dict[str, str]) -> None:
    checked = check(replace(FormValues(**texts), trigger="auto"))
    assert (checked.spec is None) == bool(checked.errors)
    assert set(checked.errors) <= set(FIELDS)


def test_fields_that_mean_nothing_for_a_probe_are_not_looked_at() -> None:
    values = FormValues(protocol="icmp", to="10.0.0.1", port="x", interface="y", flags="Z")
    assert check(values).spec == ProbeSpec("icmp", "10.0.0.1")
    assert "port" not in shown_fields(values)
    assert "flags" in shown_fields(replace(values, protocol="tcp", way=INJECTED))
    assert "client" in shown_fields(replace(values, way=OTHER_CLIENT))
    assert check(replace(values, containment=LET_OUT)).spec == ProbeSpec("icmp", "10.0.0.1")


@pytest.mark.parametrize(
    ("text", "to", "port"),
    [
        ("198.51.100.1:80", "198.51.100.1", "80"),
        ("[::1]:80", "::1", "80"),
        ("2001:DB8::1", "2001:db8::1", ""),
        ("nonsense", "nonsense", ""),
    ],
)
def test_target_is_parted(text: str, to: str, port: str) -> None:
    parted = split_target(FormValues(), text)
    assert (parted.to, parted.port) == (to, port)


def test_candidates_are_of_the_namespace_that_is_traced() -> None:
    here, server = FormValues(way=INJECTED), FormValues(netns="server", way=INJECTED)
    assert candidates("interface", here, PLACES) == ("eth0", "eth1")
    assert candidates("to", server, PLACES) == ("127.0.0.1", "198.51.100.1")
    assert candidates("netns", here, PLACES) == ("server", "5c6f1d2e9a0b")
    assert candidates("size", here, PLACES) == ()


def test_completion_goes_on_from_the_last_word() -> None:
    found = ("server", "router")
    assert completed("ser", found) == "server"
    assert completed("client ro", found) == "client router"
    assert completed("server", found) is None
    assert completed("", found) is None


# ---------------------------------------------------------------- history


def test_history_is_bounded_and_has_each_probe_once(home: Path) -> None:
    history = History()
    for number in range(MOST + 20):
        history.add(FormValues(to=f"10.0.0.{number % 256}", port=str(number)))
    history.add(FormValues(to="10.0.0.20", port="20"))
    history.add(FormValues(to="10.0.0.20", port="20"))
    history.save()
    again = History()
    again.load()
    assert history.notice == again.notice == ""
    assert len(again.entries) == MOST
    assert again.entries[0] == FormValues(to="10.0.0.20", port="20")
    assert len(set(again.entries)) == MOST


def test_two_screens_keep_each_others_probes(home: Path) -> None:
    one, other = History(), History()
    one.load()
    other.load()
    one.add(FormValues(to="10.0.0.1"))
    one.save()
    other.add(FormValues(to="10.0.0.2"))
    other.save()
    again = History()
    again.load()
    assert [each.to for each in again.entries] == ["10.0.0.2", "10.0.0.1"]


def test_broken_lines_of_the_history_are_passed_over(home: Path) -> None:
    good = json.dumps(asdict(FormValues(to="10.0.0.1")))
    lines = [
        "", "{", "[]", "null", '{"to": 7}', '{"colour": "red"}', '{"way": "magic"}', "[" * 100_000,
        '{"protocol": "gre"}', '{"to": "' + "x" * 500 + '"}', "\udcff", good, "\x00\x1b[2J",
    ]  # fmt: skip
    file = home / "state" / "ipttrace" / "history.jsonl"
    file.parent.mkdir(parents=True)
    file.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    history = History()
    history.load()
    assert [each.to for each in history.entries] == ["10.0.0.1"]


@given(st.binary(max_size=200))
def test_no_bytes_in_the_history_raise(data: bytes) -> None:
    from ipttrace_tui.history import _read

    assert isinstance(list(_read(data.decode("utf-8", "replace").splitlines())), list)


# ---------------------------------------------------------------- files of ours


def test_file_of_ours_is_private_and_whole(home: Path) -> None:
    file = home / "state" / "ipttrace" / "kept"
    own_files.write_own(file, "one")
    own_files.write_own(file, "two")
    assert own_files.read_own(file) == "two"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert [each.name for each in file.parent.iterdir()] == ["kept"]


def test_files_that_others_may_have_written_are_not_read(home: Path) -> None:
    file = home / "file"
    file.write_text("x")
    file.chmod(0o666)
    with pytest.raises(own_files.Unusable, match="others may write"):
        own_files.read_own(file)
    file.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(file, 12345, 0)
        with pytest.raises(own_files.Unusable, match="belongs to user 12345"):
            own_files.read_own(file)
    fifo = home / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(own_files.Unusable, match="no regular file"):
        own_files.read_own(fifo)
    with pytest.raises(own_files.Unusable, match="no regular file"):
        own_files.read_own(home)
    large = home / "large"
    large.write_bytes(b"x" * (own_files.MOST_BYTES + 1))
    with pytest.raises(own_files.Unusable, match="larger"):
        own_files.read_own(large)
    assert own_files.read_own(home / "nowhere") is None
    assert own_files.read_own(large / "below") is None


def test_relative_homes_are_not_used(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert own_files.config_home() == home / ".config" / "ipttrace"
    monkeypatch.setenv("HOME", "")
    assert own_files.config_home() == Path("/root/.config/ipttrace")


# ---------------------------------------------------------------- settings


def test_settings_are_read(home: Path) -> None:
    file = home / "config" / "ipttrace" / "config.toml"
    file.parent.mkdir(parents=True)
    text = 'theme = "nord"\nlayout = "wide"\ntrigger = "owner"\nlimit = "50/s"\n'
    file.write_text(text)
    assert load_settings() == (Settings("nord", "wide", "owner", 50), ())
    file.chmod(0o622)
    settings, notices = load_settings()
    assert settings == Settings()
    assert "others may write" in notices[0]


def test_no_settings_are_no_notice(home: Path) -> None:
    assert load_settings() == (Settings(), ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("theme = 3", "theme is ignored: it must be a text"),
        ('layout = "huge"', "layout is ignored: it must be one of auto"),
        ("layout = []", "layout is ignored"),
        ('trigger = "raw2"', "trigger is ignored"),
        ("limit = 0", "limit is ignored"),
        ("limit = true", "limit is ignored"),
        ('limit = "fast"', "limit is ignored"),
        ('colour = "red"', "unknown key colour; known are layout, limit, theme, trigger"),
        ('"a\\u001b[2J" = 1', "unknown key a\\x1b[2J"),
        ("theme =", "not TOML"),
        ("a = " + "[" * 100_000, "is ignored"),
    ],
)
def test_what_cannot_be_used_is_said_and_the_rest_counts(text: str, words: str) -> None:
    settings, notices = parse_settings(text, "config.toml")
    assert settings == Settings()
    assert len(notices) == 1
    assert words in notices[0]


def test_limits_are_read_in_all_their_forms() -> None:
    assert parse_settings("limit = 7", "f")[0].limit == 7
    assert parse_settings('limit = "7"', "f")[0].limit == 7
    assert parse_settings('limit = "none"', "f")[0].limit is None


# ---------------------------------------------------------------- rows of the rules


def test_tables_stand_in_the_order_in_which_a_packet_meets_them() -> None:
    shown = rows(Readings(rules_of_article(), 1.0), None, frozenset())
    tables = [row.text for row in shown if row.level is Level.TABLE]
    assert tables == ["ip raw", "ip mangle", "ip nat", "ip filter", "inet fw"]
    assert all(row.met is None for row in shown)


def test_folded_lines_hide_what_is_below_them() -> None:
    everything = rows(Readings(rules_of_article(), 1.0), None, frozenset())
    key = next(row.key for row in everything if row.text == "ip mangle")
    shown = rows(Readings(rules_of_article(), 1.0), None, frozenset({key}))
    assert {row.key for row in everything} - {row.key for row in shown} == {
        row.key for row in everything if row.key[: len(key)] == key and row.key != key
    }


def test_policies_and_rules_are_met_by_their_names() -> None:
    dropped = mark_drop_path()
    met = met_by(dropped)
    fatal = [ref for ref, each in met.items() if each.fatal]
    assert [(ref.chain.table, ref.number) for ref in fatal] == [("filter", 1)]
    policies = [hop for hop in dropped.chain_hops if hop.event is TraceKind.POLICY]
    assert all(met[RuleRef(hop.chain, None)].words.startswith("◆ hop") for hop in policies)


def test_hop_is_found_by_its_number_or_by_its_handle() -> None:
    ruleset = rules_of_article()
    hop = rule_hop("mangle", "PREROUTING", 1, "-j MARK")
    assert key_of(hop, ruleset) == ("legacy", "ip mangle", "PREROUTING", "1")
    unread = replace(hop, chain=replace(hop.chain, table="gone"))
    assert key_of(unread, ruleset) is None
    assert key_of(policy_hop("mangle", "INPUT"), ruleset) == ("legacy", "ip mangle", "INPUT")
    native = next(ref for ref in ruleset.chains if ref.backend is Backend.NFT)
    by_handle = replace(hop, chain=native, number=None, handle=11)
    assert key_of(by_handle, ruleset) == ("nft", "inet fw", "input", "1")
    assert met_by(path(by_handle))


def test_rates_come_from_two_readings_and_from_no_fewer() -> None:
    first = Readings().then(rules_of_article(1), 10.0)
    assert first.rates == {}
    second = first.then(rules_of_article(3), 12.0)
    mangle = next(ref for ref in second.rates if ref.chain.table == "mangle" and ref.number == 1)
    assert second.rates[mangle] == 7.0
    assert second.then(rules_of_article(3), 12.0).rates == {}, "no time has passed"
    assert Readings(Ruleset(), 1.0).then(rules_of_article(), 2.0).rates == {}


def test_rules_are_searched_without_capitals() -> None:
    shown = rows(Readings(rules_of_article(), 1.0), None, frozenset())
    assert [shown[index].number for index in matching(shown, "redirect")] == ["1"]
    assert matching(shown, "") == []
    assert len(matching(shown, "PREROUTING")) >= 3


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0"), (999_999, "999,999"), (1_234_567, "1.23M"), (4_500_000_000, "4.5G"),
     (10**16, "10P"), (999_999_999, "1G")],
)  # fmt: skip
def test_counts_take_seven_columns(number: int, words: str) -> None:
    assert len(words) <= 7
    assert count_text(number) == words


def test_rates_are_written_with_their_unit() -> None:
    assert [rate_text(rate) for rate in (None, 0.0, 0.5, 9.99, 1_500.0)] == [
        "", "·", "0.5/s", "10/s", "1,500/s",
    ]  # fmt: skip


def test_hostile_rules_reach_no_terminal() -> None:
    hostile = chain("filter", "INPUT", ['-m comment --comment "\x1b[2J\u202e" -j DROP'])
    shown = rows(Readings(Ruleset({hostile.ref: hostile}), 1.0), None, frozenset())
    assert all(row.text.isprintable() and row.full.isprintable() for row in shown)


# ---------------------------------------------------------------- past runs


def test_earlier_runs_stay_and_ids_count_on() -> None:
    first = article()
    joined = past_of(first).join(first)
    assert [path.id for path in joined.paths] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert len({path.journey for path in joined.paths}) == 2 * len(
        {path.journey for path in first.paths}
    )
    assert joined.paths[7].request in (None, 5)
    assert joined.totals.packets == 2 * first.totals.packets


def test_loss_of_earlier_runs_is_not_forgotten() -> None:
    lossy = replace(Snapshot(), totals=TraceTotals(5, 5, 4, 3, 1))
    joined = past_of(lossy).join(Snapshot())
    assert joined.totals.lost_events == 3
    assert PastRuns().join(lossy) is lossy


def test_counters_of_rules_are_those_of_the_last_reading() -> None:
    shown = rows(Readings(rules_of_article(2), 1.0), None, frozenset())
    assert any(row.counter == Counter(14, 840) for row in shown)


# ---------------------------------------------------------------- journey


def test_legs_are_looked_for_near_the_packet() -> None:
    many = tuple(replace(mark_drop_path(number=n), journey=n // 2) for n in range(1, 5001))
    selected = many[3000]
    near = around(many, selected)
    assert len(near) == 2 * NEAR
    assert [row.path.id for row in legs(near, selected)] == [
        path.id for path in many if path.journey == selected.journey
    ]
    assert around(many[:100], selected) == many[:100]
    assert around(many, None) == many
    assert legs(many, None) == []


def test_long_trace_is_saved_with_its_newest_packets() -> None:
    many = tuple(mark_drop_path(number=n) for n in range(1, MOST_SAVED + 6))
    shown = Shown("watch", Snapshot(paths=many), None, None)
    saved = shown.result(whole=True)
    assert len(saved.paths) == MOST_SAVED
    assert saved.paths[-1].id == many[-1].id
    assert saved.warnings == ("the 5 oldest packets are not in this file: it holds 20000 at most",)
