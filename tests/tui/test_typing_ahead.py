"""Keys that come faster than the screen can follow."""

from __future__ import annotations

from textual.events import Key

from ipttrace.probe import ProbeSpec
from tests.tui.bench import FakeBench
from tests.tui.driving import Stage, play


def type_at_once(stage: Stage, *keys: str) -> None:
    """Give the screen all keys before it has looked at the first one, as a paste does."""
    for key in keys:
        stage.app.post_message(Key(key, key if len(key) == 1 else None))


def test_what_is_typed_behind_a_tab_goes_to_the_next_field_however_fast() -> None:
    bench = FakeBench()

    async def act(stage: Stage) -> None:
        await stage.press("i")
        await stage.shows("send a probe")
        type_at_once(stage, *"198.51.100.1", "tab", *"8443", "tab", *"203.0.113.7:4000", "enter")
        await stage.until(lambda: bench.specs, "the probe")

    play(None, act, bench=bench)
    assert bench.specs == [ProbeSpec("tcp", "198.51.100.1", 8443, "203.0.113.7", 4000)]


def test_fields_that_a_choice_brings_take_what_is_typed_behind_it() -> None:
    bench = FakeBench()

    async def act(stage: Stage) -> None:
        await stage.press("i")
        await stage.shows("send a probe")
        type_at_once(stage, *"::1", "tab", *"80", "tab", "tab", "right", "tab", *"eth0")
        type_at_once(stage, "tab", *"web", "enter")
        await stage.until(lambda: bench.specs, "the probe")

    play(None, act, bench=bench)
    assert bench.specs == [ProbeSpec("tcp", "::1", 80, in_interface="eth0", netns=("web",))]


def test_a_form_takes_what_is_typed_behind_the_key_that_opens_it() -> None:
    bench = FakeBench()

    async def act(stage: Stage) -> None:
        type_at_once(stage, "i", *"198.51.100.1:8443", "enter")
        await stage.until(lambda: bench.specs, "the probe")

    play(None, act, bench=bench)
    assert bench.specs == [ProbeSpec("tcp", "198.51.100.1", 8443)]


def test_ctrl_c_in_a_field_leaves_and_arrows_go_from_field_to_field() -> None:
    async def act(stage: Stage) -> None:
        await stage.press("i")
        await stage.shows("send a probe")
        type_at_once(stage, *"::1", "down", *"80")
        await stage.shows("port           80")
        type_at_once(stage, "ctrl+c")
        await stage.until(lambda: not stage.app.is_running, "the end")

    play(None, act)
