"""What a stranger stumbled over: freezing, following, small windows, notices, orders."""

from __future__ import annotations

from dataclasses import replace

from ipttrace.netfilter import Backend, Hook, TableFamily
from ipttrace.ruleset import Ruleset
from ipttrace_tui.comparison import compare
from ipttrace_tui.header_fields import fields_at
from ipttrace_tui.packet_log import PacketLog
from ipttrace_tui.rule_rows import Level, Readings, rows
from ipttrace_tui.widgets.packet_list import PacketList
from ipttrace_tui.widgets.why_pane import WhyPane
from tests.builders import chain, mark_drop_path, policy_hop, redirect_path
from tests.tui.builders import ListFeed, article, dropped, watch_snapshot, watched
from tests.tui.driving import Stage, play


def test_frozen_list_lets_nothing_of_a_repeated_run_in() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("f", "r")
        await stage.ended(2)
        assert stage.widget(PacketList).count() == 4
        assert stage.main.path is not None
        assert stage.main.path.id == 1
        assert stage.main.table.waiting == len(stage.app.paths) - 4 > 0

    play(ListFeed([article(), replace(article(), message="again")]), act)


def test_last_packet_is_followed_until_the_user_moves_away() -> None:
    log = PacketLog()

    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("G")
        stage.main.show(watch_snapshot(watched(3, log)))
        assert stage.main.path is not None
        assert stage.main.path.id == 8
        await stage.shows("newest")
        await stage.press("up")
        stage.main.show(watch_snapshot(watched(3, log)))
        assert stage.main.path.id == 7

    play(ListFeed([watch_snapshot(watched(5, log))]), act)


def test_verdict_and_hops_are_seen_in_a_small_window_with_a_banner() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("down")
        assert "filter INPUT      1" in stage.text()
        assert stage.widget(WhyPane).size.height >= 3
        assert "it drops mark 0x1, which" in stage.text()
        assert "mangle/PREROUTING 1 had set" in stage.text()

    warned = replace(article(), warnings=("first " * 20, "second " * 20))
    play(ListFeed([warned]), act, size=(60, 20))


def test_list_grows_with_the_window() -> None:
    async def at_120(stage: Stage) -> None:
        await stage.shows("..7 > ..1:8445")

    async def at_200(stage: Stage) -> None:
        await stage.shows("2 tcp 203.0.113.7:40000 > 198.51.100.1:8443")

    play(ListFeed([article()]), at_120)
    play(ListFeed([article()]), at_200, size=(200, 50))


def test_restarted_watch_says_what_left_the_list() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("r")
        await stage.shows("5 packets of before left the list")

    play(ListFeed([watch_snapshot(watched(5))], live=True), act)


def test_the_same_notice_is_up_once() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("c", "c", "c")
        await stage.shows("mark two packets")
        assert stage.text().count("mark two packets") == 1

    play(ListFeed([article()]), act)


def test_policy_of_a_table_that_one_alone_met_is_no_parting() -> None:
    first, second = redirect_path(), mark_drop_path()
    raw = policy_hop("raw", "PREROUTING")
    without = replace(first, hops=tuple(h for h in first.hops if "raw" not in str(h)))
    hops = tuple(h for h in second.hops if "raw" not in str(h))
    found = compare(replace(second, hops=(raw, *hops)), without)
    assert "raw" not in found.verdict
    assert "mangle PREROUTING" in found.verdict
    same = compare(replace(first, hops=(raw, *without.hops)), without)
    assert same.verdict == "their ways are the same, but for policies that let one of them pass"


def test_rules_stand_in_the_order_in_which_a_packet_meets_them() -> None:
    def native(table: str, name: str, hook: Hook, priority: int, family: TableFamily) -> object:
        made = chain(table, name, ["accept"], backend=Backend.NFT, family=family)
        devices = ("eth0",) if hook is Hook.INGRESS else ()
        return replace(made, hook=hook, priority=priority, devices=devices)

    chains = [
        native("pre", "inp", Hook.INPUT, 10, TableFamily.INET),
        native("two", "a", Hook.PREROUTING, -200, TableFamily.INET),
        native("ing", "in", Hook.INGRESS, -500, TableFamily.NETDEV),
    ]
    shown = rows(Readings(Ruleset({each.ref: each for each in chains})), None, frozenset())  # type: ignore[attr-defined, misc]
    assert [row.text.split()[-1] for row in shown if row.level is Level.TABLE] == [
        "ing",
        "two",
        "pre",
    ]
    texts = [row.text for row in shown if row.level is Level.CHAIN]
    assert any("INGRESS of eth0 -500" in text for text in texts)


def test_packet_that_was_never_made_has_no_invented_headers() -> None:
    path = dropped()
    unmade = replace(path, packet=replace(path.packet, length=0, ttl=0), hops=())
    assert not {"mark", "ttl", "length"} & {field.name for field in fields_at(unmade, None)}


def test_packet_that_fared_well_has_no_cause_in_the_list() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("z")
        assert "mark-drop" in stage.text()
        assert "unknown" not in stage.text()

    play(ListFeed([article()]), act)
