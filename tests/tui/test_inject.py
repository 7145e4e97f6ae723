"""The inject form: what it sends, what it refuses, what it offers, what it remembers."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipttrace.errors import KernelError
from ipttrace.probe import ProbeSpec
from ipttrace.request import Trigger
from ipttrace_tui.probe_form import INJECTED, FormValues
from ipttrace_tui.screens.inject import InjectScreen
from ipttrace_tui.screens.main import MainScreen
from ipttrace_tui.settings import Settings
from ipttrace_tui.widgets.choice import Choice
from ipttrace_tui.widgets.form_field import FormField
from ipttrace_tui.widgets.history_list import HistoryList
from tests.tui.bench import FakeBench, history_file, one_packet
from tests.tui.builders import ListFeed, article, running
from tests.tui.driving import TITLE, Stage, play


def field(stage: Stage, name: str) -> FormField:
    assert isinstance(stage.app.screen, InjectScreen)
    return stage.app.screen.query_one(f"#field-{name}", FormField)


async def open_form(stage: Stage) -> None:
    await stage.press("i")
    await stage.shows("send a probe")
    await stage.until(lambda: isinstance(stage.app.focused, object), "the focus")


def test_form_sends_what_was_typed_and_shows_its_packet() -> None:
    bench = FakeBench(one_packet(article(), 1))

    async def act(stage: Stage) -> None:
        await stage.ended()
        await open_form(stage)
        await stage.press("ctrl+u", *"198.51.100.1:8443", "enter")
        await stage.ended(2)
        assert isinstance(stage.app.screen, MainScreen)
        assert stage.main.path is not None
        assert stage.main.path.id == 6, "packet 2 of a run after four packets"
        assert "tcp 198.51.100.1:8443" in stage.text()

    play(ListFeed([article()]), act, bench=bench)
    assert bench.specs == [ProbeSpec("tcp", "198.51.100.1", 8443, netns=("server",))]
    assert bench.closed == 0, "run() closes the bench, not the screen"


def test_every_field_comes_into_the_probe() -> None:
    bench = FakeBench()

    async def act(stage: Stage) -> None:
        await open_form(stage)
        await stage.press(*"198.51.100.1", "tab", *"8443", "tab", *"203.0.113.7:40000", "tab")
        await stage.press("right", "tab", *"eth0", "tab", "ctrl+u", *"server", "space", *"router")
        await stage.press("tab", *"syn,ack", "tab", *"60", "tab", *"2", "tab", "right", "right")
        await stage.press("tab", "space", "enter")
        await stage.until(lambda: bench.specs, "the probe")

    play(None, act, bench=bench)
    assert bench.specs == [
        ProbeSpec(
            "tcp",
            "198.51.100.1",
            8443,
            "203.0.113.7",
            40000,
            in_interface="eth0",
            netns=("server", "router"),
            tcp_flags=("SYN", "ACK"),
            size=60,
            count=2,
            trigger=Trigger.OWNER,
            let_out=True,
        )
    ]


def test_client_elsewhere_and_other_protocols_have_fields_of_their_own() -> None:
    bench = FakeBench()

    async def act(stage: Stage) -> None:
        await open_form(stage)
        await stage.press("shift+tab", "right", "right")
        assert field(stage, "protocol").value == "icmp"
        assert not field(stage, "port").display
        await stage.press("tab", *"198.51.100.1", "tab", "tab", "left")
        assert field(stage, "client").display
        assert not field(stage, "interface").display
        await stage.press("tab", *"cli", "enter")
        await stage.until(lambda: bench.specs, "the probe")

    play(None, act, bench=bench)
    assert bench.specs == [ProbeSpec("icmp", "198.51.100.1", from_netns="cli")]


def test_errors_stand_at_their_fields_and_go_as_they_are_mended() -> None:
    bench = FakeBench()

    async def act(stage: Stage) -> None:
        await open_form(stage)
        await stage.press(*"nowhere", "tab", *"70000", "enter")
        await stage.shows("cannot read address 'nowhere'")
        await stage.shows("cannot read port '70000'")
        assert stage.app.focused is field(stage, "to").control
        assert field(stage, "to").has_class("-wrong")
        await stage.press("ctrl+u", *"198.51.100.1")
        assert "nowhere" not in stage.text()
        assert not field(stage, "to").has_class("-wrong")
        await stage.press("enter")
        await stage.until(lambda: "cannot read address" not in stage.text(), "the mended field")
        assert stage.app.focused is field(stage, "port").control
        await stage.press("ctrl+u", *"80", "enter")
        await stage.until(lambda: bench.specs, "the probe")

    play(None, act, bench=bench)


@pytest.mark.parametrize(
    ("keys", "name", "words"),
    [
        (["enter"], "to", "the destination is missing"),
        ([*"198.51.100.1", "enter"], "port", "the port is missing"),
        ([*"198.51.100.1:1", "tab", "tab", "tab", "right", "enter"], "interface", "is missing"),
        ([*"198.51.100.1:1", "tab", "tab", *"::1", "enter"], "source", "one is IPv4"),
        ([*"fe80::1", "tab", *"1", "enter"], "to", "Choose inject and name the interface"),
    ],
)
def test_probe_that_does_not_fit_together_is_refused(
    keys: list[str], name: str, words: str
) -> None:
    bench = FakeBench()

    async def act(stage: Stage) -> None:
        await open_form(stage)
        await stage.press(*keys)
        await stage.until(lambda: field(stage, name).has_class("-wrong"), "the error")
        line = " ".join(stage.text().split())
        assert words.rsplit(maxsplit=1)[-1] in line
        assert "--" not in field(stage, name).query_one(".error").render().__str__()

    play(None, act, bench=bench)
    assert bench.specs == []


def test_what_exists_completes_a_field() -> None:
    async def act(stage: Stage) -> None:
        await open_form(stage)
        await stage.shows("there are: 127.0.0.1")
        await stage.press(*"192")
        await stage.shows("192.0.2.2")
        await stage.press("right")
        assert field(stage, "to").value == "192.0.2.2"
        await stage.press("tab", "tab", "tab", "right", "tab")
        await stage.shows("there are: eth0  eth1")
        await stage.press("ctrl+n")
        assert field(stage, "interface").value == "eth0"
        await stage.press("ctrl+n")
        assert field(stage, "interface").value == "eth1"
        await stage.press("ctrl+n")
        assert field(stage, "interface").value == "eth0"
        await stage.press("tab", *"server ", "ctrl+n", "ctrl+n")
        assert field(stage, "netns").value == "server 5c6f1d2e9a0b"
        await stage.press("shift+tab", "ctrl+u", "ctrl+n")
        await stage.press("down", "up")
        assert stage.app.focused is field(stage, "interface").control

    play(None, act, bench=FakeBench())


def test_what_cannot_be_read_is_said_and_the_form_works_on() -> None:
    bench = FakeBench(error=KernelError("cannot list interfaces: busy"))

    async def act(stage: Stage) -> None:
        await open_form(stage)
        await stage.shows("cannot list interfaces: busy")
        await stage.press(*"198.51.100.1:1", "enter")
        await stage.until(lambda: bench.specs, "the probe")

    play(None, act, bench=bench)


def test_form_does_not_wait_for_the_machine() -> None:
    bench = FakeBench()
    bench.may_read.clear()

    async def act(stage: Stage) -> None:
        await open_form(stage)
        await stage.press(*"198.51.100.1:1")
        assert field(stage, "to").value == "198.51.100.1:1"
        await stage.press("escape")
        await stage.until(lambda: isinstance(stage.app.screen, MainScreen), "the trace")
        bench.may_read.set()

    play(None, act, bench=bench)


def test_history_fills_the_form_and_outlives_the_screen(home: Path) -> None:
    async def send(stage: Stage) -> None:
        await open_form(stage)
        await stage.press(*"198.51.100.1:1", "enter")
        await stage.ended()
        await open_form(stage)
        await stage.press("ctrl+u", *"198.51.100.2:2", "enter")
        await stage.ended(2)
        file = history_file(home / "state")
        await stage.until(lambda: file.exists() and "100.2" in file.read_text(), "the file")

    async def recall(stage: Stage) -> None:
        await open_form(stage)
        assert field(stage, "to").value == "", "another session's probe is not ours"
        await stage.press("pageup")
        assert field(stage, "to").value == "198.51.100.2"
        await stage.press("pageup")
        assert (field(stage, "to").value, field(stage, "port").value) == ("198.51.100.1", "1")
        await stage.press("pagedown")
        assert field(stage, "to").value == "198.51.100.2"
        stage.app.screen.query_one(HistoryList).focus()
        await stage.press("down", "enter")
        await stage.ended()

    play(None, send, bench=FakeBench())
    bench = FakeBench()
    play(None, recall, bench=bench)
    assert [spec.dst for spec in bench.specs] == ["198.51.100.1"]
    assert history_file(home / "state").stat().st_mode & 0o777 == 0o600


def test_history_that_cannot_be_written_is_said(home: Path) -> None:
    (home / "state").write_text("a file where the directory should be")

    async def act(stage: Stage) -> None:
        await open_form(stage)
        await stage.press(*"198.51.100.1:1", "enter")
        await stage.ended()
        await stage.shows("cannot write")

    play(None, act, bench=FakeBench())


def test_mouse_chooses_a_word() -> None:
    async def act(stage: Stage) -> None:
        await open_form(stage)
        choice = field(stage, "protocol").control
        assert isinstance(choice, Choice)
        await stage.pilot.click(choice, offset=(10, 0))
        await stage.pilot.pause()
        assert choice.value == "udp"

    play(None, act, bench=FakeBench())


def test_trigger_of_the_settings_stands_in_the_form() -> None:
    async def act(stage: Stage) -> None:
        await open_form(stage)
        assert field(stage, "trigger").value == "owner"

    play(None, act, bench=FakeBench(), settings=Settings(trigger="owner"))


def test_r_repeats_the_probe_that_was_sent() -> None:
    feed = one_packet(article(), 1)

    async def act(stage: Stage) -> None:
        await open_form(stage)
        await stage.press(*"198.51.100.1:1", "enter")
        await stage.ended()
        await stage.press("r")
        await stage.ended(2)
        assert [path.id for path in stage.app.paths] == [2, 4]
        assert stage.main.path is not None
        assert stage.main.path.id == 4
        await stage.press("X")
        assert [path.id for path in stage.app.paths] == [2]

    play(None, act, bench=FakeBench(feed))
    assert feed.runs == 2


def test_r_opens_the_form_where_nothing_was_sent_yet() -> None:
    async def act(stage: Stage) -> None:
        await stage.shows("i sends a probe")
        assert "○ idle" in stage.text()
        await stage.press("r")
        await stage.shows("send a probe")

    play(None, act, bench=FakeBench())


def test_probe_ends_the_run_that_is_under_way_first() -> None:
    watch, bench = ListFeed([running(article())], waits=True), FakeBench()

    async def act(stage: Stage) -> None:
        await stage.until(lambda: watch.runs, "the run")
        await open_form(stage)
        await stage.press("ctrl+u", *"198.51.100.1:1", "enter")
        await stage.ended(2)
        assert watch.cleaned == 1

    play(watch, act, bench=bench)
    assert len(bench.specs) == 1


def test_x_ends_the_run() -> None:
    watch = ListFeed([running(article())], waits=True)

    async def act(stage: Stage) -> None:
        await stage.until(lambda: watch.runs, "the run")
        await stage.press("x")
        await stage.ended()
        assert "✓ finished" in stage.text()
        assert stage.app.is_running

    play(watch, act)


def test_error_of_a_probe_is_shown_and_the_screen_goes_on() -> None:
    bench = FakeBench(ListFeed(error=KernelError("cannot inject on eth9: no such device")))

    async def act(stage: Stage) -> None:
        await open_form(stage)
        await stage.press(*"198.51.100.1:1", "enter")
        await stage.shows("cannot inject on eth9: no such device")
        assert stage.app.is_running

    play(None, act, bench=bench)


def test_history_line_is_a_probe() -> None:
    values = FormValues(to="::1", port="80", way=INJECTED, interface="eth0", count="3")
    assert values.title == "tcp [::1]:80 in eth0 x3"


def test_form_begins_where_the_user_looks_and_says_where_it_sends_from() -> None:
    bench = FakeBench()

    async def act(stage: Stage) -> None:
        await stage.until(lambda: watch.runs, "the run")
        await open_form(stage)
        assert field(stage, "netns").value == "sb-web"
        await stage.shows("the screen shows namespace sb-web")
        await stage.shows("sent from namespace sb-web")
        assert "ctrl+u clear" in stage.text()
        field(stage, "netns").control.focus()
        await stage.press("ctrl+u")
        await stage.shows("sent from this host (trace in is empty)")

    watch = ListFeed(waits=True, netns=("sb-web",))
    play(watch, act, bench=bench)


def test_last_probe_comes_again_but_not_its_namespace_once_that_is_gone() -> None:
    bench = FakeBench(ListFeed())

    async def act(stage: Stage) -> None:
        await stage.ended()
        await open_form(stage)
        await stage.press(*"198.51.100.1:1")
        field(stage, "netns").control.focus()
        await stage.press(*"gone", "enter")
        await stage.ended(2)
        await stage.press("i")
        await stage.until(lambda: field(stage, "netns").value == "server", "a place that is there")
        assert field(stage, "to").value == "198.51.100.1"
        await stage.press(*"::1")
        assert field(stage, "to").value == "::1", "what is typed replaces what was there"

    play(ListFeed([article()]), act, bench=bench)


def test_probe_that_ends_a_watch_says_so_and_w_starts_the_watch_again() -> None:
    watch = ListFeed([running(article())], waits=True, live=True)
    bench = FakeBench(one_packet(article(), 1))

    async def act(stage: Stage) -> None:
        await stage.until(lambda: watch.runs, "the run")
        assert "w watch" not in stage.text()
        await open_form(stage)
        await stage.shows("ends the watch (w starts it again)")
        await stage.press(*"198.51.100.1:1", "enter")
        await stage.ended(2)
        await stage.shows("the watch was ended; w starts it again")
        assert "w watch" in stage.text()
        await stage.press("w")
        await stage.until(lambda: watch.runs == 2, "the watch")
        await stage.shows(TITLE)

    play(watch, act, bench=bench)
