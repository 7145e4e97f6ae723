"""The list of packets of several namespaces: what belongs together is joined."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.path import Role
from ipttrace_tui.packet_log import PacketLog
from ipttrace_tui.view_model import entry_row
from ipttrace_tui.widgets.packet_list import PacketList
from tests.builders import mark_drop_path, redirect_path
from tests.tui.builders import ListFeed, watch_snapshot
from tests.tui.driving import Stage, play


def through(log: PacketLog, *legs: tuple[int, int, str]) -> PacketLog:
    """Add packets of which number, journey and namespace are given."""
    for number, journey, netns in legs:
        kind = redirect_path() if netns == "client" else mark_drop_path()
        log.append(replace(kind, id=number, journey=journey, netns=netns, role=Role.OBSERVED))
    return log


def strokes(stage: Stage) -> str:
    shown = stage.widget(PacketList)
    return "".join(shown.line(row, 60).plain[0] for row in range(shown.count()))


def test_legs_of_a_journey_are_joined_and_named_by_their_namespace() -> None:
    log = through(
        PacketLog(), (3, 1, "client"), (1, 1, "router"), (2, 1, "server"), (4, 2, "client")
    )

    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.shows("packets by journey")
        assert strokes(stage) == "┌├└ "
        assert "router" in stage.widget(PacketList).line(1, 78).plain
        stage.main.show(watch_snapshot(through(log, (5, 2, "server"))))
        await stage.shows("└ 5")
        assert strokes(stage) == "┌├└┌└", "the last row was alone before"
        assert "┌ 4" in stage.text()
        await stage.press("/", *"netns:client", "enter")
        await stage.until(lambda: stage.widget(PacketList).count() == 2, "the filter")
        assert strokes(stage) == "  "

    play(ListFeed([watch_snapshot(log)]), act)


def test_packets_of_one_namespace_have_no_legs() -> None:
    log = through(PacketLog(), (1, 1, "server"), (2, 1, "server"))

    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.shows("packets ")
        assert "by journey" not in stage.text()
        assert strokes(stage) == "12"

    play(ListFeed([watch_snapshot(log)]), act)


@pytest.mark.parametrize("room", range(6, 40))
def test_where_a_packet_goes_is_never_cut_while_it_fits(room: int) -> None:
    log = through(PacketLog(), (1, 1, "client"))
    row = entry_row(log.view().entries[0])
    way = next((way for way in row.ways if len(way) <= room), row.ways[-1])
    assert way.endswith(":8445")
    assert len(way) <= room


def test_what_a_frozen_list_holds_back_is_said_in_the_narrowest_list() -> None:
    legs = [(number, number // 2, ("client", "server")[number % 2]) for number in range(2, 1200)]
    log = through(PacketLog(), *legs)

    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("f")
        await stage.press("/", *"netns:client", "enter")
        stage.main.show(watch_snapshot(through(log, (1200, 600, "client"))))
        await stage.shows("━ frozen +1   599 ━")

    play(ListFeed([watch_snapshot(log)]), act)
