"""The screen never closes before the feed has cleaned up."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from ipttrace_tui.feed import FeedRunner, Snapshot
from tests.tui.builders import ListFeed, article, running
from tests.tui.driving import Stage, play
from tests.waiting import wait_until


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
def test_leaving_waits_for_the_feed_however_often_it_is_asked(key: str) -> None:
    feed = ListFeed([running(article())], waits=True)
    feed.may_clean.clear()

    async def act(stage: Stage) -> None:
        await stage.until(lambda: feed.runs, "the run")
        await stage.press(key)
        await stage.press("ctrl+c", "ctrl+c", "q")
        await stage.until(lambda: "taking the trace rules back" in stage.text(), "the notice")
        assert stage.app.is_running
        assert not feed.cleaned
        feed.may_clean.set()
        await stage.until(lambda: not stage.app.is_running, "the end")

    play(feed, act)
    assert feed.cleaned == 1


def test_leaving_at_once_when_the_run_is_over() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("q")
        await stage.until(lambda: not stage.app.is_running, "the end")

    play(ListFeed([article()]), act)


@pytest.mark.parametrize("key", ["s", "i", "2", "question_mark"])
def test_a_key_that_was_typed_behind_opens_nothing(key: str) -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("q", key)
        await stage.until(lambda: not stage.app.is_running, "the end")

    play(ListFeed([article()]), act)


@pytest.mark.parametrize("place", ["2", "s", "i", "question_mark"])
def test_what_is_waited_for_is_said_wherever_the_user_was(place: str) -> None:
    feed = ListFeed([running(article())], waits=True)
    feed.may_clean.clear()

    async def act(stage: Stage) -> None:
        await stage.until(lambda: feed.runs, "the run")
        await stage.press(place, "ctrl+c")
        await stage.until(lambda: "taking the trace rules back" in stage.text(), "the notice")
        feed.may_clean.set()
        await stage.until(lambda: not stage.app.is_running, "the end")

    play(feed, act)


def test_ctrl_c_leaves_from_the_help() -> None:
    feed = ListFeed(waits=True)

    async def act(stage: Stage) -> None:
        await stage.until(lambda: feed.runs, "the run")
        await stage.press("question_mark", "ctrl+c")
        await stage.until(lambda: not stage.app.is_running, "the end")

    play(feed, act)
    assert feed.cleaned == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_leave_in_good_order(number: signal.Signals) -> None:
    feed = ListFeed(waits=True)

    async def act(stage: Stage) -> None:
        await stage.until(lambda: feed.runs, "the run")
        os.kill(os.getpid(), number)
        await stage.until(lambda: not stage.app.is_running, "the end")

    play(feed, act)
    assert feed.cleaned == 1


def test_failing_screen_cancels_the_feed() -> None:
    feed = ListFeed(waits=True)

    async def act(stage: Stage) -> None:
        await stage.until(lambda: feed.runs, "the run")
        stage.app.call_later(lambda: 1 / 0)
        await stage.until(lambda: not stage.app.is_running, "the end")

    with pytest.raises(ZeroDivisionError):
        play(feed, act)
    assert feed.cleaned == 1


def test_runner_that_was_stopped_runs_nothing() -> None:
    feed = ListFeed([Snapshot()])
    runner = FeedRunner(feed)
    runner.stop_and_wait()
    assert runner.run(lambda _: None) is None
    assert feed.runs == 0


def test_cancelling_ends_one_run_and_no_later_one() -> None:
    feed = ListFeed([Snapshot()])
    runner = FeedRunner(feed)
    runner.cancel()
    assert runner.run(lambda _: None) is None
    feed.waits = True
    tracing = threading.Thread(target=runner.run, args=(lambda _: None,))
    tracing.start()
    wait_until(lambda: feed.runs == 2, what="the run")
    runner.cancel()
    tracing.join(5)
    assert not tracing.is_alive()
    feed.waits = False
    assert runner.run(lambda _: None) is None
    assert (feed.runs, feed.cleaned) == (3, 3)


def test_stop_and_wait_returns_only_after_the_clean_up() -> None:
    feed = ListFeed(waits=True)
    feed.may_clean.clear()
    runner = FeedRunner(feed)
    tracing = threading.Thread(target=runner.run, args=(lambda _: None,))
    waiting = threading.Thread(target=runner.stop_and_wait)
    tracing.start()
    wait_until(lambda: feed.runs, what="the run")
    waiting.start()
    wait_until(runner._stop.is_set, what="the cancel")
    waiting.join(0.05)
    assert waiting.is_alive()
    feed.may_clean.set()
    waiting.join(5)
    tracing.join(5)
    assert not waiting.is_alive()
    assert feed.cleaned == 1


PROGRAM = """
import sys, threading
from pathlib import Path
from ipttrace_tui.app import IptTraceApp
class Slow:
    live, netns = False, ()
    def run(self, publish, cancelled):
        pause = threading.Event()
        try:
            while not cancelled():
                pause.wait(0.01)
        finally:
            Path(sys.argv[1], "cleaning").touch()
            while not Path(sys.argv[1], "go").exists():
                pause.wait(0.01)
            Path(sys.argv[1], "cleaned").touch()
IptTraceApp(Slow(), "slow").run()
"""


def test_ctrl_c_on_a_real_terminal_leaves_nothing_behind(tmp_path: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", PROGRAM, str(tmp_path)])
    _read_until(terminal, b"waiting for")
    os.write(terminal, b"\x03")
    _read_until(terminal, b"taking the trace rules back")
    wait_until((tmp_path / "cleaning").exists, 10, "the clean-up")
    os.write(terminal, b"\x03\x03")
    os.kill(child, signal.SIGINT)
    os.kill(child, signal.SIGTERM)
    (tmp_path / "go").touch()
    _read_until(terminal, None)
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert (tmp_path / "cleaned").exists()
    assert os.waitstatus_to_exitcode(status) == 0


def _read_until(terminal: int, word: bytes | None) -> None:
    """Read until `word` was shown, or (None) to the end."""
    seen, deadline = b"", time.monotonic() + 20
    while word is None or word not in seen:
        assert time.monotonic() < deadline, f"never came: {word!r}"
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:
            data = b""
        if not data:
            assert word is None, seen
            return
        seen += data
