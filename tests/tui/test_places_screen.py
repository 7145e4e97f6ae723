"""Namespaces, labs, the check-up and a journey: what is shown, and where it leads."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from ipttrace.errors import KernelError
from ipttrace.lab.parts import LabBackend
from ipttrace_tui.screens.doctor import DoctorScreen
from ipttrace_tui.screens.journey import JourneyScreen
from ipttrace_tui.screens.main import MainScreen
from ipttrace_tui.screens.places import PlacesScreen
from ipttrace_tui.screens.rules import RulesScreen
from ipttrace_tui.widgets.journey_pane import LegList
from ipttrace_tui.widgets.key_bar import KeyBar
from ipttrace_tui.widgets.place_lists import LabList, PlaceList
from ipttrace_tui.widgets.tab_bar import TabBar
from ipttrace_tui.workbench import LabUp
from tests.tui.bench import FakeBench
from tests.tui.builders import ListFeed, article, running, travelled
from tests.tui.driving import Stage, play


async def open_places(stage: Stage) -> None:
    await stage.press("3")
    await stage.shows("port-redirect")
    await stage.shows("172.17.0.2")


# ---------------------------------------------------------------- places


def test_namespaces_and_labs_are_listed() -> None:
    async def act(stage: Stage) -> None:
        await open_places(stage)
        for words in ("this namespace", "named     server", "container", "198.51.100.1",
                      "eth1  down  no address", "✗ cannot use lab"):  # fmt: skip
            assert words in stage.text()
        await stage.press("j")
        await stage.shows("a namespace of ip netns: python3")
        await stage.shows("eth0 (veth)")

    play(None, act, bench=FakeBench())


def test_enter_on_a_namespace_shows_its_rules() -> None:
    bench = FakeBench()

    async def act(stage: Stage) -> None:
        await open_places(stage)
        await stage.press("j", "enter")
        assert isinstance(stage.app.screen, RulesScreen)
        await stage.shows("REDIRECT")
        await stage.shows("namespace server")
        await stage.press("escape")
        assert isinstance(stage.app.screen, MainScreen)

    play(None, act, bench=bench)
    assert bench.asked == ["server"]


def test_lab_is_shown_with_its_topology_and_probes() -> None:
    async def act(stage: Stage) -> None:
        await open_places(stage)
        await stage.press("tab")
        for words in ("A port is redirected", "REDIRECT rewrites the port", "topology", "router",
                      "outside 8443: tcp 198.51.100.1:8443"):  # fmt: skip
            await stage.shows(words)
        await stage.press("j")
        await stage.shows("missing required field")

    play(None, act, bench=FakeBench())


def test_enter_on_a_lab_starts_it_and_its_packets_come_to_the_trace() -> None:
    bench = FakeBench()

    async def act(stage: Stage) -> None:
        await open_places(stage)
        await stage.press("tab", "b", "enter")
        await stage.ended()
        assert isinstance(stage.app.screen, MainScreen)
        assert "lab port-redirect, nft" in stage.text()
        assert "✗ dropped" in stage.text()
        await open_places(stage)
        await stage.shows("● up, nft")
        await stage.shows("lab port-redirect is up")
        await stage.press("x")
        await stage.shows("one namespace was busy")
        await stage.until(lambda: "● up" not in stage.text(), "the lab down")
        await stage.press("x")
        await stage.shows("no lab is up")

    play(None, act, bench=bench)
    assert bench.started == [("port-redirect", LabBackend.NFT)]


def test_lab_that_cannot_be_read_cannot_be_started() -> None:
    bench = FakeBench()

    async def act(stage: Stage) -> None:
        await open_places(stage)
        await stage.press("tab", "j", "enter", "b")
        assert isinstance(stage.app.screen, PlacesScreen)

    play(None, act, bench=bench)
    assert bench.started == []


def test_lab_does_not_go_down_under_a_run() -> None:
    feed = ListFeed([running(article())], waits=True)
    bench = FakeBench(up=LabUp("port-redirect", LabBackend.LEGACY))

    async def act(stage: Stage) -> None:
        await stage.until(lambda: feed.runs, "the run")
        await open_places(stage)
        await stage.press("x")
        await stage.shows("the run is not over yet")
        assert bench.up is not None

    play(feed, act, bench=bench)


def test_what_cannot_be_listed_is_said() -> None:
    bench = FakeBench(error=KernelError("cannot list namespaces: busy"))

    async def act(stage: Stage) -> None:
        await stage.press("3")
        await stage.shows("cannot list namespaces: busy")
        bench.error = None
        await stage.press("u")
        await stage.shows("172.17.0.2")

    play(None, act, bench=bench)


def test_mouse_selects_and_opens() -> None:
    bench = FakeBench()

    async def act(stage: Stage) -> None:
        await open_places(stage)
        await stage.pilot.click(PlaceList, offset=(5, 2))
        await stage.shows("a namespace of ip netns: python3")
        await stage.pilot.click(LabList, offset=(5, 1), times=2)
        await stage.ended()

    play(None, act, bench=bench)
    assert bench.started == [("port-redirect", LabBackend.LEGACY)]


def test_labs_are_found_by_a_word() -> None:
    async def act(stage: Stage) -> None:
        await open_places(stage)
        await stage.press("slash", *"REWRITES")
        await stage.until(lambda: "broken" not in stage.text(), "the labs with that word")
        await stage.shows("A port is redirected, and the old one closed")
        await stage.press("enter")
        assert isinstance(stage.app.focused, LabList)
        await stage.press("slash", *"zz")
        await stage.shows("no lab has that word")
        await stage.press("escape")
        await stage.shows("broken")
        await stage.press("escape")
        assert isinstance(stage.app.screen, MainScreen)

    play(None, act, bench=FakeBench())


def test_what_cannot_be_listed_is_said_once() -> None:
    bench = FakeBench(error=KernelError("cannot list namespaces: busy"))

    async def act(stage: Stage) -> None:
        await stage.press("3")
        await stage.shows("cannot list namespaces: busy")
        await stage.press("u", "u", "u")
        await stage.pilot.pause()
        assert stage.text().count("cannot list namespaces: busy") == 1

    play(None, act, bench=bench)


# ---------------------------------------------------------------- doctor


def test_doctor_shows_the_findings_and_what_to_do() -> None:
    bench = FakeBench()

    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("4")
        await stage.shows("✓ ok")
        await stage.shows("! note")
        assert isinstance(stage.app.screen, DoctorScreen)
        await stage.press("G")
        await stage.shows("sysctl -w net.netfilter.nf_log_all_netns=1")
        await stage.press("u")
        await stage.until(lambda: len(bench.asked) == 2, "the second look")

    play(ListFeed([article()]), act, bench=bench)
    assert bench.asked == ["server", "server"]


def test_doctor_that_fails_says_so() -> None:
    async def act(stage: Stage) -> None:
        await stage.press("4")
        await stage.shows("cannot look: no")

    play(None, act, bench=FakeBench(error=KernelError("cannot look: no")))


# ---------------------------------------------------------------- journey


def test_journey_joins_the_legs_in_one_picture() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("5")
        text = stage.text()
        for words in ("leg 1", "leg 2", "leg 3", "client", "router", "server", "↗ sent by eth0",
                      "→ forwarded by eth1", "✗ dropped", "┃ eth0 → eth0",
                      "┃ eth1 → eth0"):  # fmt: skip
            assert words in text
        await stage.press("down", "down", "enter")
        assert isinstance(stage.app.screen, MainScreen)
        assert stage.main.path is not None
        assert stage.main.path.netns == "server"

    play(ListFeed([travelled()]), act, bench=FakeBench())


def test_journey_shows_the_answer_too() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("G", "5")
        await stage.shows("answer 1")
        await stage.shows("leg 1")

    one, *_, answer = article().paths
    ways = one, replace(answer, journey=2, request=one.id)
    play(ListFeed([replace(article(), paths=ways)]), act, bench=FakeBench())


def test_journey_without_a_packet_says_so() -> None:
    async def act(stage: Stage) -> None:
        await stage.press("5")
        await stage.shows("no packet is selected")
        await stage.press("enter")
        assert isinstance(stage.app.screen, JourneyScreen)

    play(None, act, bench=FakeBench())


# ---------------------------------------------------------------- from screen to screen


def test_number_keys_lead_from_every_screen_to_every_other() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        names = {"1": "MainScreen", "2": "RulesScreen", "3": "PlacesScreen", "4": "DoctorScreen",
                 "5": "JourneyScreen"}  # fmt: skip
        for first, (second, name) in itertools.product(names, names.items()):
            await stage.press(first, second)
            assert type(stage.app.screen).__name__ == name
            assert len(stage.app.screen_stack) == (1 if second == "1" else 2)

    play(ListFeed([travelled()]), act, bench=FakeBench())


def test_tab_bar_and_key_bar_take_the_mouse() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("4")
        await stage.pilot.click(TabBar, offset=(41, 0))
        await stage.pilot.pause()
        assert isinstance(stage.app.screen, DoctorScreen)
        await stage.pilot.click(TabBar, offset=(52, 0))
        await stage.until(lambda: isinstance(stage.app.screen, JourneyScreen), "the journey")
        assert isinstance(stage.app.focused, LegList)
        line = stage.text().splitlines()[-1]
        await stage.pilot.click(KeyBar, offset=(line.index("? help"), 0))
        await stage.until(lambda: "everywhere" in stage.text(), "the help")

    play(ListFeed([travelled()]), act, bench=FakeBench())


@pytest.mark.parametrize("key", ["2", "3", "4", "5"])
def test_a_run_goes_on_below_every_screen(key: str) -> None:
    feed = ListFeed([running(article())], waits=True)

    async def act(stage: Stage) -> None:
        await stage.until(lambda: feed.runs, "the run")
        await stage.press(key, "q")
        await stage.until(lambda: not stage.app.is_running, "the end")

    play(feed, act, bench=FakeBench())
    assert feed.cleaned == 1
