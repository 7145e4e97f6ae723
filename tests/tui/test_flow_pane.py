"""The pane with the flow picture: what is in sight of a way that is longer than it is high."""

from __future__ import annotations

from dataclasses import replace

from ipttrace.netfilter import Backend, Hook, TableFamily
from ipttrace.path import Outcome, PacketPath
from ipttrace_tui.feed import Snapshot
from ipttrace_tui.widgets.flow_pane import FlowPane
from tests.builders import chain_ref, mark_drop_path, path, result, rule_hop
from tests.tui.builders import ListFeed, article
from tests.tui.driving import Stage, play


def long_way() -> PacketPath:
    """Return a way that is longer than the pane of a small screen is high."""
    hooks = (Hook.PREROUTING, Hook.FORWARD, Hook.POSTROUTING)
    return path(
        *(
            replace(
                rule_hop("filter", "INPUT", 1, "-j LOG"),
                hook=hook,
                priority=priority,
                chain=chain_ref(f"table{priority}", "c", Backend.NFT, TableFamily.INET),
            )
            for hook in hooks
            for priority in range(12)
        ),
        outcome=Outcome.FORWARDED,
    )


def test_the_picture_follows_the_hop_and_shows_that_there_is_more() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        pane = stage.widget(FlowPane)
        assert pane.count() > pane.room.height
        await stage.press(*["left"] * 40)
        assert pane.top == 0
        for number in range(36):
            shown = "\n".join(
                pane.body(row, 80).plain for row in range(pane.top, pane.top + pane.room.height)
            )
            assert f"[table{number % 12}/c 1]" in shown, number
            assert "▐" in "".join(strip.text for strip in map(pane.render_line, range(1, 6)))
            await stage.press("right")
        assert pane.top == pane.count() - pane.room.height

    play(ListFeed([Snapshot.of(result(long_way()))]), act, (80, 24))


def test_a_picture_that_fits_has_no_bar() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        assert not stage.widget(FlowPane).scrolls
        await stage.press("j")
        assert stage.widget(FlowPane).scrolls
        await stage.press("k")
        assert not stage.widget(FlowPane).scrolls

    ways = mark_drop_path(number=1), replace(long_way(), id=2)
    play(ListFeed([Snapshot.of(result(*ways))]), act, (80, 24))


def test_the_help_tells_the_signs_of_the_picture() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("question_mark", "G")
        for sign in ("● ○", "(raw)", "┌┐", "fw/in 1"):
            assert sign in stage.text()

    play(ListFeed([article()]), act, (120, 40))
