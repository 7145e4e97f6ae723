"""Filter, freeze, zoom, comparison, the rule's chain and stale rules, driven by keys."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from textual.events import Key

from ipttrace.errors import KernelError
from ipttrace.path import PacketPath
from ipttrace.ruleset import Ruleset
from ipttrace_tui.feed import RunState, Snapshot
from ipttrace_tui.messages import SnapshotArrived
from ipttrace_tui.packet_log import PacketLog
from ipttrace_tui.screens.compare import CompareScreen, DifferencePane, EndPane
from ipttrace_tui.widgets.chain_pane import ChainPane
from ipttrace_tui.widgets.comparing_pane import ComparingPane
from ipttrace_tui.widgets.filter_line import FilterInput
from ipttrace_tui.widgets.flow_pane import FlowPane
from ipttrace_tui.widgets.hop_list import HopList
from ipttrace_tui.widgets.packet_list import PacketList
from ipttrace_tui.widgets.packet_pane import PacketPane
from ipttrace_tui.widgets.why_pane import WhyPane
from tests.builders import (
    DROP_MARKED,
    article_rules,
    chain,
    mark_drop_path,
    redirect_path,
    rule_hop,
    ruleset,
)
from tests.tui.builders import ListFeed, article, running
from tests.tui.driving import Stage, play

WITH_RULES = replace(article(), rulesets={"server": article_rules()})


def packet(number: int) -> PacketPath:
    return redirect_path(number=number) if number % 2 == 0 else mark_drop_path(number=number)


def log_of(*numbers: int) -> PacketLog:
    log = PacketLog()
    for number in numbers:
        log.append(packet(number))
    return log


async def send(stage: Stage, snapshot: Snapshot) -> None:
    """Let a snapshot arrive, and wait until it is shown."""
    before = stage.seen(SnapshotArrived)
    stage.app.post_message(SnapshotArrived(snapshot))
    await stage.until(lambda: stage.seen(SnapshotArrived) > before, "the snapshot")
    await stage.pilot.pause()


# ---------------------------------------------------------------- filter


def test_a_filter_is_tried_while_it_is_written_and_kept_by_enter() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("slash", *"dropped")
        await stage.until(lambda: stage.main.table.filter, "the filter")
        assert stage.widget(PacketList).count() == 2
        assert isinstance(stage.app.focused, FilterInput)
        await stage.press("enter")
        assert isinstance(stage.app.focused, PacketList)
        assert "filter  dropped" in stage.text()
        assert "2 of 4 pass" in stage.text()
        assert stage.main.path is not None
        assert stage.main.path.id == 2

    play(ListFeed([article()]), act)


def test_escape_ends_the_filter_from_the_line_and_from_the_list() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("slash", *":8443", "enter")
        assert stage.widget(PacketList).count() == 2
        await stage.press("escape")
        assert stage.widget(PacketList).count() == 4
        await stage.press("slash", *"icmp", "enter")
        assert "no packet passes the filter" in stage.text()
        await stage.press("slash", "escape")
        assert stage.widget(PacketList).count() == 4
        assert not stage.main.query(FilterInput)

    play(ListFeed([article()]), act)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_a_bad_word_is_told_and_the_list_stays(size: tuple[int, int]) -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("slash", *"dropt", "enter")
        assert "✗ 'dropt' means nothing here. Did you mean dropped?" in stage.text()
        assert isinstance(stage.app.focused, FilterInput)
        assert stage.widget(PacketList).count() == 4
        await stage.press("backspace", *"ped", "enter")
        assert "means nothing" not in stage.text()
        assert stage.widget(PacketList).count() == 2

    play(ListFeed([article()]), act, size)


def test_the_filter_line_is_opened_again_with_its_words() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("slash", *"tcp", "enter", "slash")
        assert stage.main.query_one(FilterInput).value == "tcp"
        await stage.press(*" !dropped", "enter")
        assert stage.widget(PacketList).count() == 2

    play(ListFeed([article()]), act)


def test_keys_of_the_screen_are_letters_in_the_filter_line() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("slash", *"fmczqt")
        assert stage.app.is_running
        assert stage.main.query_one(FilterInput).value == "fmczqt"
        assert not stage.main.table.frozen

    play(ListFeed([article()]), act)


def test_words_typed_at_once_go_into_the_filter_line() -> None:
    """A pasted or a fast `/dropped` is no d, r, o, p, p, e and d of the screen."""
    feed = ListFeed([article()])

    async def act(stage: Stage) -> None:
        await stage.ended()
        for key in ("slash", *"dropped", "enter"):
            character = "/" if key == "slash" else key if len(key) == 1 else "\r"
            stage.app.post_message(Key(key, character))
        await stage.until(lambda: "filter  dropped" in stage.text(), "the filter")
        assert stage.widget(PacketList).count() == 2

    play(feed, act)
    assert feed.runs == 1


def test_packets_that_arrive_are_filtered() -> None:
    log = log_of(1, 2, 3)

    async def act(stage: Stage) -> None:
        await send(stage, Snapshot(log.view()))
        await stage.press("slash", *"delivered", "enter")
        for number in (4, 5, 6):
            log.append(packet(number))
        await send(stage, Snapshot(log.view()))
        assert stage.widget(PacketList).count() == 3
        assert "3 of 6" in stage.text()

    play(ListFeed([], waits=True), act)


def test_a_long_list_is_filtered_in_strides_with_the_screen_in_between() -> None:
    log = PacketLog()
    one, other = packet(1), packet(2)
    for number in range(1, 50_001):
        log.append(replace(one if number % 1000 else other, id=number))

    async def act(stage: Stage) -> None:
        await send(stage, Snapshot(log.view(), state=RunState.FINISHED))
        await stage.press("slash", *"delivered", "enter")
        await stage.until(lambda: stage.main.table.done, "the whole list")
        assert stage.widget(PacketList).count() == 50
        await stage.until(lambda: "50 of 50,000 pass" in stage.text(), "the count")

    play(ListFeed([Snapshot()]), act)


# ---------------------------------------------------------------- freeze


def test_a_frozen_list_stands_still_and_counts_what_comes() -> None:
    log = log_of(1, 2, 3)

    async def act(stage: Stage) -> None:
        await send(stage, Snapshot(log.view()))
        await stage.press("f")
        for number in range(4, 14):
            log.append(packet(number))
        await send(stage, Snapshot(log.view()))
        assert stage.widget(PacketList).count() == 3
        assert "frozen +10" in stage.text()
        assert "list frozen" in stage.text()
        assert "● tracing" in stage.text()
        await stage.press("f")
        assert stage.widget(PacketList).count() == 13
        assert "frozen" not in stage.text()

    play(ListFeed([running(Snapshot())], waits=True), act)


# ---------------------------------------------------------------- arrivals


def test_arrivals_leave_selection_and_hop_alone() -> None:
    log = log_of(*range(1, 100))

    async def act(stage: Stage) -> None:
        await send(stage, Snapshot(log.view()))
        await stage.press("j", "j", "left")
        path, hop = stage.main.path, stage.main.hop
        for number in range(100, 200):
            log.append(packet(number))
        await send(stage, Snapshot(log.view()))
        assert (stage.main.path, stage.main.hop) == (path, hop)
        assert stage.widget(PacketList).count() == 199

    play(ListFeed([], waits=True), act)


def test_packets_that_were_let_go_are_counted_in_the_status_line() -> None:
    log = PacketLog(capacity=10, slack=10)
    for number in range(1, 10):
        log.append(packet(number))

    async def act(stage: Stage) -> None:
        await send(stage, Snapshot(log.view()))
        for number in range(10, 32):
            log.append(packet(number))
        await send(stage, Snapshot(log.view()))
        assert "⚠ oldest 20 let go" in stage.text()
        assert stage.main.path == packet(1)
        await stage.press("j")
        assert stage.main.path == packet(21)

    play(ListFeed([], waits=True), act)


# ---------------------------------------------------------------- hops, chain, picture


def test_picture_headers_and_rule_move_together() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("j")
        text = stage.text()
        assert "chain filter INPUT" in text
        assert "rule 1 of 1" in text
        assert "packet at hop 6 of 6" in text
        assert "╣filter 1 ✗║" in text
        await stage.press("left", "left", "left", "left")
        text = stage.text()
        assert "chain mangle PREROUTING" in text
        assert "packet at hop 2 of 6" in text
        assert "mark   0x0 → 0x1  changed here" in text
        assert "╣mangle 1╠" in text
        assert stage.widget(HopList).cursor == 1

    play(ListFeed([WITH_RULES]), act)


def test_tables_without_rules_stand_back() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        assert "━┤raw├━" in stage.text()
        assert "╣nat 1╠" in stage.text()
        assert "┏━━━━━━┓" in stage.text()

    play(ListFeed([WITH_RULES]), act)


def test_a_long_chain_is_scrolled_to_the_rule() -> None:
    rules = [f"-p tcp -m tcp --dport {port} -j ACCEPT" for port in range(1, 301)]
    rules[199] = "-m mark --mark 0x1 -j DROP"
    whole = mark_drop_path()
    last = rule_hop("filter", "INPUT", 200, DROP_MARKED)
    path = replace(whole, hops=(*whole.hops[:-1], last))
    snapshot = Snapshot((path,), rulesets={"server": ruleset(chain("filter", "INPUT", rules))})

    async def act(stage: Stage) -> None:
        await stage.ended()
        assert "▸ 200 -m mark --mark 0x1 -j DROP" in stage.text()
        assert "--dport 199 -j ACCEPT" in stage.text()
        assert "--dport 201 -j ACCEPT" in stage.text()
        stage.widget(ChainPane).focus()
        await stage.press("pageup", "k")
        assert "--dport 188 -j ACCEPT" in stage.text()
        await stage.press("pagedown", "j")
        assert "▸ 200" in stage.text()

    play(ListFeed([snapshot]), act)


# ---------------------------------------------------------------- compare


def test_two_marked_packets_are_compared() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("m", "j", "m")
        assert "A 1 tcp" in stage.text()
        assert "B 2 tcp" in stage.text()
        await stage.press("c")
        await stage.until(lambda: "their ways part" in stage.text(), "the comparison")
        assert isinstance(stage.app.screen, CompareScreen)
        assert "only B meets rule 1 (CONTINUE mark 0→1) in mangle PREROUTING" in stage.text()
        assert "dport    A 8445   ≠   B 8443" in stage.text()
        pane = stage.app.screen.query_one(ComparingPane)
        assert pane.cursor == 1
        await stage.press("j", "j", "d")
        assert pane.cursor == 1
        await stage.press("escape")
        assert len(stage.app.screen_stack) == 1

    play(ListFeed([article()]), act)


def test_one_marked_packet_is_compared_with_the_selected_one() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("m", "j", "c")
        assert isinstance(stage.app.screen, CompareScreen)
        await stage.press("x")
        await stage.until(lambda: "only A meets rule 1" in stage.text(), "the sides changed")
        await stage.press("c")
        assert len(stage.app.screen_stack) == 1

    play(ListFeed([article()]), act)


def test_keys_that_come_at_once_act_on_what_the_ones_before_selected() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        for key in "mjmkjjpmc":
            stage.app.post_message(Key(key, key))
        await stage.until(lambda: isinstance(stage.app.screen, CompareScreen), "the comparison")
        ends = [each._path.id for each in stage.app.screen.query(EndPane)]
        assert ends == [2, 3]
        await stage.press("escape")
        assert stage.main.path is not None
        assert (stage.main.path.id, stage.main.hop) == (3, 9)

    play(ListFeed([article()]), act)


def test_a_third_mark_drives_the_first_out_and_a_second_takes_one_away() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("m", "j", "m", "j", "m")
        assert "A 2 tcp" in stage.text()
        assert "B 3 tcp" in stage.text()
        await stage.press("m", "k", "m")
        assert "A 2 tcp" not in stage.text()

    play(ListFeed([article()]), act)


def test_without_marks_the_comparison_says_what_to_do() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("c")
        await stage.until(lambda: "mark two packets with m" in stage.text(), "the notice")
        assert len(stage.app.screen_stack) == 1

    play(ListFeed([article()]), act)


def test_equal_ways_say_so() -> None:
    same = Snapshot((mark_drop_path(number=1), mark_drop_path(number=2)))

    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("m", "j", "m", "c")
        await stage.until(lambda: "hop by hop" in stage.text(), "the verdict")
        await stage.press("d")
        await stage.until(lambda: "do not part" in stage.text(), "the notice")
        seen = []
        for _ in range(4):
            await stage.press("tab")
            seen.append(type(stage.app.focused))
        assert seen == [DifferencePane, EndPane, EndPane, ComparingPane]

    play(ListFeed([same]), act)


def test_ctrl_c_leaves_from_the_comparison() -> None:
    feed = ListFeed([running(article())], waits=True)

    async def act(stage: Stage) -> None:
        await stage.until(lambda: "✗ dropped" in stage.text(), "the packets")
        await stage.press("m", "j", "m", "c", "ctrl+c")
        await stage.until(lambda: not stage.app.is_running, "the end")

    play(feed, act)
    assert feed.cleaned == 1


# ---------------------------------------------------------------- zoom


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 50)])
def test_each_pane_fills_the_screen_and_gives_it_back(size: tuple[int, int]) -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("j")
        for kind in (PacketList, FlowPane, HopList, ChainPane, PacketPane, WhyPane):
            before = stage.text()
            pane = stage.widget(kind)
            pane.focus()
            await stage.press("z")
            assert pane.size.width == size[0]
            assert pane.size.height >= size[1] - 5
            await stage.press("left", "right")
            await stage.press("escape" if kind is FlowPane else "z")
            assert pane.size.height < size[1] - 5
            stage.widget(PacketList).focus()
            await stage.pilot.pause()
            assert stage.text() == before

    play(ListFeed([WITH_RULES]), act, size)


def test_the_zoomed_list_shows_times_and_causes() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("z")
        assert "mark-drop" in stage.text()
        assert "198.51.100.1:8443" in stage.text()
        assert ":40.123456 1 tcp" in stage.text()

    play(ListFeed([article()]), act)


# ---------------------------------------------------------------- honesty


def test_limit_and_missing_evidence_are_always_said() -> None:
    snapshot = replace(article(), limit=20, missing="no kernel evidence")

    async def act(stage: Stage) -> None:
        await stage.ended()
        assert "limit 20/s" in stage.text()
        assert "no kernel evidence" in stage.text()

    play(ListFeed([snapshot]), act, (80, 24))


class ReadingFeed(ListFeed):
    """Reads rules, too, in whatever thread asks."""

    rules: Ruleset | None = article_rules()

    def read_rules(self, netns: str | None) -> Ruleset:
        assert threading.current_thread() is not threading.main_thread()
        assert netns == "server"
        if self.rules is None:
            raise KernelError("cannot read the rules in server: it is gone")
        return self.rules


def test_rules_that_changed_since_are_told_in_the_status_line() -> None:
    feed = ReadingFeed([WITH_RULES])

    async def act(stage: Stage) -> None:
        await stage.ended()
        stage.main.look_at_rules()
        await stage.pilot.pause()
        assert "rules changed" not in stage.text()
        feed.rules = ruleset()
        stage.main.look_at_rules()
        await stage.until(lambda: "⚠ rules changed since" in stage.text(), "the doubt")
        feed.rules = None
        stage.main.look_at_rules()
        await stage.until(lambda: "⚠ rules not readable now" in stage.text(), "the doubt")
        feed.rules = article_rules()
        stage.main.look_at_rules()
        await stage.until(lambda: "⚠ rules" not in stage.text(), "no doubt")

    play(feed, act)


def test_a_feed_that_reads_no_rules_is_not_asked() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        stage.main.look_at_rules()
        await stage.pilot.pause()
        assert "rules not readable" not in stage.text()

    play(ListFeed([WITH_RULES]), act)


# ---------------------------------------------------------------- mouse


def test_mouse_scrolls_a_list_and_selects_in_it() -> None:
    log = log_of(*range(1, 200))

    async def act(stage: Stage) -> None:
        await send(stage, Snapshot(log.view()))
        packets = stage.widget(PacketList)
        packets.scroll_body(50)
        await stage.pilot.click(PacketList, offset=(5, 3))
        await stage.pilot.pause()
        assert stage.main.path == packet(53)

    play(ListFeed([], waits=True), act)
