"""The rules screen: the tree, its counters, and the way to a hop and back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.errors import UsageError
from ipttrace_tui.feed import Snapshot
from ipttrace_tui.screens.main import MainScreen
from ipttrace_tui.screens.rules import RulesScreen
from ipttrace_tui.widgets.hop_list import HopList
from ipttrace_tui.widgets.rule_tree import RuleTree
from tests.tui.bench import FakeBench
from tests.tui.builders import ListFeed, article
from tests.tui.driving import Stage, play


def in_server(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, paths=tuple(replace(p, netns="server") for p in snapshot.paths))


def tree(stage: Stage) -> RuleTree:
    assert isinstance(stage.app.screen, RulesScreen)
    return stage.app.screen.query_one(RuleTree)


def selected(stage: Stage) -> str:
    row = tree(stage).row
    return row.text if row is not None else ""


async def open_rules(stage: Stage, packet: str = "j") -> None:
    await stage.ended()
    await stage.press(packet, "2")
    await stage.shows("REDIRECT")


def test_tree_shows_backends_tables_chains_and_rules() -> None:
    bench = FakeBench()

    async def act(stage: Stage) -> None:
        await open_rules(stage)
        text = stage.text()
        for words in ("legacy: ip_tables", "ip mangle", "PREROUTING  policy ACCEPT",
                      "1 -p tcp -m tcp --dport 8443 -j MARK", "ALLOWED  user chain",
                      "FORWARD  policy DROP  no rules", "nft: nf_tables", "inet fw"):  # fmt: skip
            assert words in text

    play(ListFeed([in_server(article())]), act, bench=bench)
    assert bench.asked == ["server"], "the namespace of the selected packet"


def test_rules_that_the_packet_met_are_marked_with_a_word() -> None:
    async def act(stage: Stage) -> None:
        await open_rules(stage)
        marked = [line for line in stage.text().splitlines() if "hop " in line]
        assert any("-j MARK" in line and "◆ hop 2" in line for line in marked)
        assert any("-j DROP" in line and "✗ hop 6" in line for line in marked)
        assert not any("REDIRECT" in line for line in marked)

    play(ListFeed([in_server(article())]), act, bench=FakeBench())


def test_counters_come_again_and_give_rates() -> None:
    async def act(stage: Stage) -> None:
        await open_rules(stage)
        await stage.press("u")
        await stage.shows("7.0/s")
        await stage.shows("1.23M/s")
        await stage.shows("2.47M")

    play(ListFeed([in_server(article())]), act, bench=FakeBench())


@pytest.mark.parametrize("key", ["enter", "g"])
def test_hop_leads_to_its_rule_and_the_rule_back_to_its_hop(key: str) -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("j")
        stage.widget(HopList).focus()
        await stage.press("up", "up", "up", "up", key)
        await stage.until(lambda: "-j MARK" in selected(stage), "the rule")
        await stage.press("M", "m", "enter")
        assert isinstance(stage.app.screen, MainScreen)
        assert stage.main.hop == 1

    play(ListFeed([in_server(article())]), act, bench=FakeBench())


def test_hop_of_no_chain_has_no_rule() -> None:
    from tests.tui.builders import forwarded

    async def act(stage: Stage) -> None:
        await stage.ended()
        stage.widget(HopList).focus()
        await stage.press("G", "end", "enter")
        await stage.shows("this hop is of no chain")

    play(ListFeed([forwarded()]), act, bench=FakeBench())


def test_rule_that_the_packet_did_not_meet_leads_nowhere() -> None:
    async def act(stage: Stage) -> None:
        await open_rules(stage)
        await stage.press("slash", *"REDIRECT", "enter", "enter")
        await stage.shows("did not meet this rule")
        assert isinstance(stage.app.screen, RulesScreen)

    play(ListFeed([in_server(article())]), act, bench=FakeBench())


def test_m_goes_through_the_rules_that_were_met() -> None:
    async def act(stage: Stage) -> None:
        await open_rules(stage)
        seen = []
        for _ in range(7):
            await stage.press("m")
            row = tree(stage).row
            assert row is not None
            assert row.met is not None
            seen.append(row.met.hop)
        assert set(seen[:6]) == set(range(6))
        assert seen[6] == seen[0], "and round"
        await stage.press("M")
        assert tree(stage).row is not None

    play(ListFeed([in_server(article())]), act, bench=FakeBench())


def test_search_finds_lines_and_goes_through_them() -> None:
    async def act(stage: Stage) -> None:
        await open_rules(stage)
        await stage.press("slash", *"-j d")
        await stage.shows("» -m mark")
        await stage.press("enter")
        assert "-j DROP" in selected(stage)
        await stage.press("slash", "ctrl+u", *"policy", "enter")
        first = tree(stage).cursor
        await stage.press("n")
        second = tree(stage).cursor
        assert second != first
        await stage.press("N")
        assert tree(stage).cursor == first
        await stage.press("slash", "ctrl+u", *"zzz", "enter")
        await stage.shows("nothing found")
        await stage.press("slash", "ctrl+u", "enter")
        assert not stage.app.screen.query_one("#search").display

    play(ListFeed([in_server(article())]), act, bench=FakeBench())


def test_space_folds_and_a_wanted_rule_unfolds() -> None:
    async def act(stage: Stage) -> None:
        await open_rules(stage)
        await stage.press("home", "space")
        assert "-j MARK" not in stage.text()
        assert "▹ legacy" in stage.text()
        await stage.press("enter")
        assert "-j MARK" in stage.text()
        await stage.press("space", "escape")
        stage.widget(HopList).focus()
        await stage.press("enter")
        await stage.until(lambda: "-j DROP" in selected(stage), "the rule")

    play(ListFeed([in_server(article())]), act, bench=FakeBench())


def test_rules_that_cannot_be_read_say_why() -> None:
    bench = FakeBench(error=UsageError("no namespace 'server': there are no named ones"))

    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("2")
        await stage.shows("✗ no namespace 'server'")
        bench.error = None
        await stage.press("u")
        await stage.shows("REDIRECT")
        assert "no namespace" not in stage.text()

    play(ListFeed([in_server(article())]), act, bench=bench)


def test_keys_work_while_the_rules_are_read() -> None:
    bench = FakeBench()
    bench.may_read.clear()

    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("2")
        await stage.shows("reading the rules")
        await stage.press("1", "j", "n")
        assert stage.main.path is not None
        assert stage.main.path.id == 2
        bench.may_read.set()
        await stage.press("2")
        await stage.shows("REDIRECT")

    play(ListFeed([in_server(article())]), act, bench=bench)


def test_leaving_does_not_wait_for_what_is_read() -> None:
    bench = FakeBench()
    bench.may_read.clear()

    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("2", "q")
        await stage.until(lambda: not stage.app.is_running, "the end")
        bench.may_read.set()

    play(ListFeed([in_server(article())]), act, bench=bench)


def test_mouse_opens_a_line() -> None:
    async def act(stage: Stage) -> None:
        await open_rules(stage)
        await stage.pilot.click(RuleTree, offset=(10, 1), times=2)
        await stage.pilot.pause()
        assert "▹ legacy" in stage.text()

    play(ListFeed([in_server(article())]), act, bench=FakeBench())


def test_escape_ends_the_search_and_then_the_screen() -> None:
    async def act(stage: Stage) -> None:
        await open_rules(stage)
        await stage.press("slash", *"MARK", "escape")
        assert isinstance(stage.app.screen, RulesScreen)
        assert "»" not in stage.text()
        await stage.press("escape")
        assert isinstance(stage.app.screen, MainScreen)

    play(ListFeed([in_server(article())]), act, bench=FakeBench())


def test_number_key_follows_the_selected_packet_again() -> None:
    bench = FakeBench()

    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("3")
        await stage.shows("172.17.0.2")
        await stage.press("G", "enter")
        await stage.shows("namespace 5c6f1d2e9a0b")
        await stage.press("4", "2")
        await stage.shows("what packet 1 met is marked")

    play(ListFeed([in_server(article())]), act, bench=bench)
    assert next(each for each in bench.asked if each) == "5c6f1d2e9a0b"
    assert bench.asked[-1] == "server"
