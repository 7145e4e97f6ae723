"""What the screen shows in terminals that are narrow, and in those that are high."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.lab.listing import about_lines
from ipttrace.lab.parts import LabBackend
from ipttrace.lab.scenario import load_scenario
from ipttrace.netfilter import Basis
from ipttrace.path import Decision, RouteHop
from ipttrace_tui.feed import Snapshot
from ipttrace_tui.screens.help import HelpText
from ipttrace_tui.widgets.place_pane import PlacePane
from ipttrace_tui.widgets.text_pane import TextPane
from ipttrace_tui.widgets.why_pane import WhyPane
from ipttrace_tui.workbench import LabEntry
from tests.builders import TIME, mark_drop_path, result
from tests.tui.bench import FakeBench
from tests.tui.builders import MARK_DROP, ListFeed, article
from tests.tui.driving import Stage, play


def lines(pane: TextPane) -> list[str]:
    return [pane.body(n, 200).plain[1:].rstrip() for n in range(pane.count())]


def test_a_route_is_told_where_rules_have_no_room() -> None:
    way = mark_drop_path(diagnosis=MARK_DROP)
    route = RouteHop(TIME, Decision.LOCAL, Basis.INFERRED, table="local")
    way = replace(way, hops=(*way.hops[:-1], route, way.hops[-1]))

    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.shows("local (table local)")

    play(ListFeed([Snapshot.of(result(way))]), act, (60, 20))


@pytest.mark.parametrize("size", [(120, 60), (200, 60), (80, 60)])
def test_a_high_terminal_gives_why_more_lines(size: tuple[int, int]) -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("down")
        shown = stage.widget(WhyPane)
        assert shown.count() <= shown.room.height

    told = replace(MARK_DROP, evidence=MARK_DROP.evidence * 2, remedy=MARK_DROP.remedy)
    play(ListFeed([replace(article(), paths=(mark_drop_path(diagnosis=told),) * 2)]), act, size)


def test_every_screen_is_named_in_60_columns() -> None:
    async def act(stage: Stage) -> None:
        await stage.press("2")
        await stage.shows("[2 rules] 3 places  4 doctor  5 journey")

    play(None, act, (60, 20), bench=FakeBench())


def test_what_a_key_does_goes_on_below_itself() -> None:
    async def act(stage: Stage) -> None:
        await stage.press("question_mark")
        await stage.shows("everywhere")
        said = lines(stage.app.screen.query_one(HelpText))
        wrapped = next(n for n, line in enumerate(said) if line.startswith("  s   ")) + 1
        assert said[wrapped].startswith(" " * 18)
        assert said[wrapped].strip() == "packet"

    play(None, act, (60, 20))


def test_a_lab_is_described_in_lines_as_wide_as_the_pane() -> None:
    known = load_scenario("article-complete")

    async def act(stage: Stage) -> None:
        await stage.press("3")
        await stage.shows("port-redirect")
        pane = stage.app.screen.query_one(PlacePane)
        pane.show_lab(LabEntry("article-complete", known), LabBackend.NFT, None)
        await stage.shows("All four rules")
        told = list(about_lines(known.about.strip(), width=pane.room.width - 1))
        said = lines(pane)
        start = said.index(told[0])
        assert said[start : start + len(told)] == told

    play(None, act, bench=FakeBench())
