"""What the keys do, and what comes from the feed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.errors import KernelError
from ipttrace_tui.feed import RunState, Snapshot
from ipttrace_tui.messages import SnapshotArrived
from ipttrace_tui.screens.help import HelpScreen
from ipttrace_tui.widgets.chain_pane import ChainPane
from ipttrace_tui.widgets.flow_pane import FlowPane
from ipttrace_tui.widgets.hop_list import HopList
from ipttrace_tui.widgets.packet_list import PacketList
from ipttrace_tui.widgets.packet_pane import PacketPane
from ipttrace_tui.widgets.row_list import RowList
from ipttrace_tui.widgets.why_pane import WhyPane
from tests.builders import mark_drop_path, path
from tests.tui.builders import ListFeed, article, hostile, running
from tests.tui.driving import Stage, play


def test_first_packet_is_selected_at_the_hop_that_changed_it() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        assert stage.main.path == article().paths[0]
        assert stage.main.hop == 2

    play(ListFeed([article()]), act)


@pytest.mark.parametrize(("keys", "packet"), [("j", 2), ("jj", 3), ("jjk", 2), ("kk", 1), ("G", 4)])
def test_keys_select_a_packet(keys: str, packet: int) -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press(*keys)
        assert stage.main.path is not None
        assert stage.main.path.id == packet
        assert stage.seen(RowList.Moved) == len(keys)
        assert f"way of packet {packet} " in stage.text()

    play(ListFeed([article()]), act)


@pytest.mark.parametrize(
    ("keys", "hop"),
    [(["p"], 4), (["left", "left"], 3), (["p", "n"], 5), (["right"], 5), (["tab", "tab", "k"], 4)],
)
def test_keys_step_through_the_hops_of_a_dropped_packet(keys: list[str], hop: int) -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("j")
        assert stage.main.hop == 5
        await stage.press(*keys)
        assert stage.main.hop == hop

    play(ListFeed([article()]), act)


def test_stepping_works_from_every_pane() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("j")
        for pane in (PacketList, FlowPane, HopList, ChainPane, PacketPane, WhyPane):
            stage.main.query_one(pane).focus()
            await stage.press("left")
        assert stage.main.hop == 0

    play(ListFeed([article()]), act)


def test_tab_goes_round_the_panes() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        seen = []
        for _ in range(7):
            seen.append(type(stage.app.focused))
            await stage.press("tab")
        assert seen == [PacketList, FlowPane, HopList, ChainPane, PacketPane, WhyPane, PacketList]

    play(ListFeed([article()]), act)


def test_changed_header_is_shown_at_the_selected_hop() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        assert "8445 → 8443" in stage.text()
        await stage.press("n")
        assert "8445 → 8443" not in stage.text()
        assert "198.51.100.1:8443" in stage.text()

    play(ListFeed([article()]), act)


def test_selected_packet_stays_selected_while_others_arrive() -> None:
    first, late = mark_drop_path(number=7), mark_drop_path(number=3)

    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("p")
        stage.app.post_message(SnapshotArrived(Snapshot(paths=(late, first))))
        await stage.until(lambda: "3 tcp" in stage.text(), "the second packet")
        assert stage.main.path == first
        assert stage.main.hop == 4

    play(ListFeed([Snapshot(paths=(first,))]), act)


def test_fewer_packets_than_before_select_the_first() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("G")
        stage.app.post_message(SnapshotArrived(Snapshot(paths=(mark_drop_path(number=9),))))
        await stage.until(lambda: "packet 9" in stage.text(), "the new packet")
        stage.app.post_message(SnapshotArrived(Snapshot()))
        await stage.until(lambda: "waiting for the first packet" in stage.text(), "nothing")
        await stage.press("j", "n", "tab", "tab", "j")
        assert stage.main.path is None

    play(ListFeed([article()]), act)


def test_only_the_newest_snapshot_of_a_burst_must_be_shown() -> None:
    burst = [
        Snapshot(paths=tuple(mark_drop_path(number=n) for n in range(1, k))) for k in range(60)
    ]

    async def act(stage: Stage) -> None:
        await stage.ended()
        assert stage.main.query_one(PacketList).count() == 58
        await stage.press("G")
        assert stage.main.path is not None
        assert stage.main.path.id == 58
        assert "58 tcp" in stage.text()

    play(ListFeed(burst), act)


def test_run_without_packets_says_so_when_it_is_over() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        assert "no packet was traced" in stage.text()
        assert "✓ finished" in stage.text()

    play(ListFeed(), act)


def test_packet_without_hops_says_so() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        assert "no hop was reported" in stage.text()
        await stage.press("n", "p")
        assert stage.main.hop is None

    play(ListFeed([Snapshot(paths=(path(),))]), act)


def test_running_feed_is_shown_as_tracing() -> None:
    async def act(stage: Stage) -> None:
        await stage.until(lambda: "✗ dropped" in stage.text(), "the packets")
        assert "● tracing" in stage.text()

    play(ListFeed([running(article())], waits=True), act)


def test_r_repeats_a_run_that_is_over() -> None:
    feed = ListFeed([article()])

    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("r")
        await stage.ended(2)
        assert "✓ finished" in stage.text()

    play(feed, act)
    assert (feed.runs, feed.cleaned) == (2, 2)


def test_r_leaves_a_run_alone_that_is_not_over() -> None:
    feed = ListFeed([running(article())], waits=True)

    async def act(stage: Stage) -> None:
        await stage.until(lambda: feed.runs, "the run")
        await stage.press("r")
        await stage.until(lambda: "not over yet" in stage.text(), "the notice")

    play(feed, act)
    assert feed.runs == 1


def test_error_of_the_feed_is_one_clear_line_and_the_result() -> None:
    error = KernelError("cannot read the rules in server: Device or resource busy", "Try again.")

    async def act(stage: Stage) -> None:
        await stage.ended()
        assert f"✗ {error}" in stage.text()
        assert "✗ failed" in stage.text()
        assert "Traceback" not in stage.text()
        await stage.press("q")

    assert play(ListFeed(error=error), act).return_value is error


def test_repeating_after_an_error_takes_the_error_away() -> None:
    feed = ListFeed(error=KernelError("cannot do it: busy"))

    async def act(stage: Stage) -> None:
        await stage.ended()
        feed.error = None
        await stage.press("r")
        await stage.ended(2)
        assert "busy" not in stage.text()
        await stage.press("q")

    assert play(feed, act).return_value is None


def test_warnings_are_shown_and_counted() -> None:
    many = replace(article(), warnings=("reply not traced: no conntrack", "two", "three", "four"))

    async def act(stage: Stage) -> None:
        await stage.ended()
        assert "⚠ reply not traced: no conntrack" in stage.text()
        assert "and 2 more warnings" in stage.text()

    play(ListFeed([many]), act)


def test_text_of_rules_is_neither_markup_nor_terminal_control() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        text = stage.text()
        assert "\x1b" not in text
        assert "[red]\\x1b[31mred[/red]" in text
        assert "[@click=app.quit]" in text
        assert "⚠ [b]\\x1b[2Jcleared" in text
        assert "[bold]ns[/" in text
        assert "e\\x1b]0;x\\x" in text

    play(ListFeed([hostile()]), act, (200, 50))


def test_help_opens_over_the_screen_and_closes() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        for key in ("escape", "q", "question_mark"):
            await stage.press("question_mark")
            assert isinstance(stage.app.screen, HelpScreen)
            await stage.press(key)
            assert len(stage.app.screen_stack) == 1

    play(ListFeed([article()]), act)


def test_snapshot_that_arrives_under_the_help_is_shown_after_it() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("question_mark")
        late = Snapshot(paths=(mark_drop_path(number=9),), state=RunState.FINISHED)
        stage.app.post_message(SnapshotArrived(late))
        await stage.press("escape")
        await stage.until(lambda: "way of packet 9" in stage.text(), "the late packet")

    play(ListFeed([article()]), act)


def test_mouse_selects_a_hop() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.pilot.click(HopList, offset=(5, 2))
        await stage.pilot.pause()
        assert stage.main.hop == 1

    play(ListFeed([article()]), act)


def test_long_list_keeps_its_cursor_in_sight() -> None:
    paths = tuple(mark_drop_path(number=number) for number in range(1, 5001))

    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("G")
        assert "▸ 5000 tcp" in stage.text()
        await stage.press("pageup")
        await stage.press("g")
        assert "▸    1 tcp" in stage.text()

    play(ListFeed([Snapshot(paths=paths)]), act)
