"""Saving, copying, the help, the command palette and the settings, from the keyboard."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from textual.binding import Binding
from textual.command import CommandPalette
from textual.dom import DOMNode

import ipttrace_tui
from ipttrace_tui.feed import Snapshot
from ipttrace_tui.key_words import bindings_of, key_words
from ipttrace_tui.saving import KINDS
from ipttrace_tui.screens.help import HelpScreen, HelpText, key_rows, sections
from ipttrace_tui.screens.main import MainScreen
from ipttrace_tui.screens.save import SaveScreen
from ipttrace_tui.settings import Settings
from ipttrace_tui.widgets.why_pane import WhyPane
from tests.builders import mark_drop_path, result
from tests.tui.bench import FakeBench
from tests.tui.builders import MARK_DROP, ListFeed, article
from tests.tui.driving import Stage, play

# ---------------------------------------------------------------- saving


@pytest.mark.parametrize("suffix", KINDS)
def test_every_kind_is_saved_and_can_be_read(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"trace{suffix}"

    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("j", "s")
        await stage.shows("save as")
        await stage.press("ctrl+u", *str(file), "enter")
        await stage.until(lambda: isinstance(stage.app.screen, MainScreen), "the trace again")
        await stage.shows("saved")

    play(ListFeed([article()]), act, (200, 50), bench=FakeBench())
    data = file.read_bytes()
    match suffix:
        case ".jsonl":
            records = [json.loads(line) for line in data.splitlines()]
            assert [each["record"] for each in records] == ["path"] * 4 + ["summary"]
        case ".pcapng":
            assert data[:4] == b"\x0a\x0d\x0d\x0a"
        case ".svg":
            assert b"<svg" in data
        case _:
            assert b"filter" in data
    assert file.stat().st_mode & 0o077 == 0


def test_existing_file_is_replaced_only_when_that_is_said(tmp_path: Path) -> None:
    file = tmp_path / "kept.txt"
    file.write_text("kept")

    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("s", "ctrl+u", *str(file), "enter")
        await stage.shows("ctrl+o replaces it")
        assert file.read_text() == "kept"
        await stage.press("enter")
        await stage.shows("ctrl+o replaces it")
        assert file.read_text() == "kept"
        await stage.press("ctrl+o")
        await stage.until(lambda: isinstance(stage.app.screen, MainScreen), "the trace again")

    play(ListFeed([article()]), act, (200, 50), bench=FakeBench())
    assert "PREROUTING" in file.read_text()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "a name is missing"),
        ("trace", "no known ending"),
        ("/nowhere/there/trace.txt", "no directory"),
        ("/proc/trace.txt", "cannot write"),
    ],
)
def test_what_cannot_be_saved_says_why(name: str, words: str) -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("s", "ctrl+u", *name, "enter")
        await stage.shows(words)
        await stage.press(*"x")
        assert words not in stage.text()
        await stage.press("escape")
        assert isinstance(stage.app.screen, MainScreen)

    play(ListFeed([article()]), act, (200, 50), bench=FakeBench())


def test_packet_cannot_be_saved_where_there_is_none(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        await stage.press("s", "ctrl+u", *str(tmp_path / "t.svg"), "enter")
        await stage.shows("none is selected")

    play(None, act, (200, 50), bench=FakeBench())


def test_tab_goes_through_the_kinds() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("s")
        await stage.shows("ipttrace-1.jsonl")
        for suffix in [*list(KINDS)[1:], ".jsonl"]:
            await stage.press("tab")
            await stage.shows(f"ipttrace-1{suffix}")
        assert isinstance(stage.app.screen, SaveScreen)

    play(ListFeed([article()]), act, bench=FakeBench())


def test_y_gives_the_hop_list_to_the_terminal() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("j", "y")
        await stage.shows("the 6 hops of packet 2")
        assert "-m mark --mark 0x1 -j DROP" in stage.app.clipboard
        assert "\x1b" not in stage.app.clipboard

    play(ListFeed([article()]), act, bench=FakeBench())


def test_y_without_a_packet_says_so() -> None:
    async def act(stage: Stage) -> None:
        await stage.press("y")
        await stage.shows("no packet is selected")

    play(None, act, bench=FakeBench())


# ---------------------------------------------------------------- help


def declaring() -> list[type[DOMNode]]:
    """Return the classes of the screen that declare bindings."""
    found: list[type[DOMNode]] = []
    waiting: list[type[DOMNode]] = [DOMNode]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.startswith(ipttrace_tui.__name__) and bindings_of(kind):
            found.append(kind)
    return found


def test_help_lacks_no_binding_of_any_screen() -> None:
    explained = {kind for _, kinds in sections() for kind in kinds}
    missing = {kind.__name__ for kind in declaring()} - {kind.__name__ for kind in explained}
    assert missing == set()


@pytest.mark.parametrize("kind", declaring(), ids=lambda kind: kind.__name__)
def test_every_binding_says_what_it_does(kind: type[DOMNode]) -> None:
    assert all(isinstance(each, Binding) for each in kind.__dict__["BINDINGS"])
    for binding in bindings_of(kind):
        words = key_words(binding)
        assert words.title, f"{binding.key} says nothing"
        rows = [row for row in key_rows((kind,)) if row.title == words.title]
        assert rows
        assert set(words.keys.split()) <= set(rows[0].keys.split())


def test_help_shows_all_keys_on_a_long_screen() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("question_mark")
        await stage.shows("everywhere")
        for title, kinds in sections():
            assert title in stage.text()
            for row in key_rows(kinds):
                assert row.title in stage.text()

    play(ListFeed([article()]), act, (100, 160), bench=FakeBench())


@pytest.mark.parametrize("place", "12345")
def test_help_opens_from_every_screen_and_scrolls(place: str) -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press(place, "question_mark")
        assert isinstance(stage.app.screen, HelpScreen)
        assert isinstance(stage.app.focused, HelpText)
        await stage.press("end")
        await stage.shows("inferred")
        await stage.press("escape")
        assert not isinstance(stage.app.screen, HelpScreen)

    play(ListFeed([article()]), act, (80, 24), bench=FakeBench())


# ---------------------------------------------------------------- palette


@pytest.mark.parametrize("key", ["colon", "ctrl+p"])
def test_command_palette_does_what_the_keys_do(key: str) -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press(key)
        await stage.until(lambda: isinstance(stage.app.screen, CommandPalette), "the palette")
        await stage.press(*"rules screen")
        await stage.shows("key 2")
        await stage.press("down", "enter")
        await stage.until(lambda: type(stage.app.screen).__name__ == "RulesScreen", "the rules")

    play(ListFeed([article()]), act, bench=FakeBench())


# ---------------------------------------------------------------- settings


def test_settings_choose_theme_and_layout() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        assert stage.app.theme == "ipttrace-light"
        assert stage.main.has_class("-narrow")

    play(ListFeed([article()]), act, settings=Settings(theme="ipttrace-light", layout="narrow"))


def test_notices_and_unknown_themes_are_said() -> None:
    async def act(stage: Stage) -> None:
        await stage.shows("config.toml: unknown key colour")
        await stage.shows("there is no theme 'pink'")

    notices = ("config.toml: unknown key colour",)
    play(ListFeed([article()]), act, settings=Settings(theme="pink"), notices=notices)


def test_why_gives_one_command_at_a_time_and_nothing_but_that() -> None:
    remedies = ("to let it in: first -A", "or wait", "or delete it: second -D")

    async def act(stage: Stage) -> None:
        await stage.ended()
        stage.main.set_focus(stage.widget(WhyPane))
        await stage.press("y")
        assert stage.app.clipboard == "first -A"
        await stage.shows("command 1 of 2 was given")
        await stage.press("y")
        assert stage.app.clipboard == "second -D"
        await stage.press("y")
        assert stage.app.clipboard == "first -A"

    told = replace(MARK_DROP, remedy=remedies)
    play(ListFeed([Snapshot.of(result(mark_drop_path(diagnosis=told)))]), act)


def test_why_without_a_command_gives_the_hops() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        stage.main.set_focus(stage.widget(WhyPane))
        await stage.press("y")
        assert "-m mark --mark 0x1 -j DROP" in stage.app.clipboard

    told = replace(MARK_DROP, remedy=("or wait",))
    play(ListFeed([Snapshot.of(result(mark_drop_path(diagnosis=told)))]), act)
