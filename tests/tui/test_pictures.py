"""The screen as the user sees it, in each state and size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from ipttrace.errors import NotPermittedError
from ipttrace_tui.feed import Feed
from ipttrace_tui.messages import SnapshotArrived
from ipttrace_tui.screens.help import HelpScreen
from tests.tui import builders
from tests.tui.builders import ListFeed
from tests.tui.conftest import Check
from tests.tui.driving import Stage, play

NOT_ROOT = NotPermittedError(
    "cannot add TRACE rule to raw/PREROUTING in namespace server: Operation not permitted",
    "Run as root, or grant CAP_NET_ADMIN and CAP_NET_RAW.",
)

SMALL, NORMAL, WIDE = (80, 24), (120, 40), (200, 50)

Case = tuple[Callable[[], Feed], tuple[int, int], tuple[str, ...]]
MARKED = ("m", "j", "m", "c")


def ruled() -> Feed:
    return ListFeed([builders.ruled_article()])


CASES: dict[str, Case] = {
    "delivered-80": (ruled, SMALL, ()),
    "delivered-120": (ruled, NORMAL, ()),
    "dropped-80": (ruled, SMALL, ("j",)),
    "dropped-120": (ruled, NORMAL, ("j",)),
    "dropped-200": (ruled, WIDE, ("j",)),
    "dropped-80-light": (ruled, SMALL, ("j", "t")),
    "dropped-120-light": (ruled, NORMAL, ("j", "t")),
    "dropped-120-safe": (ruled, NORMAL, ("j", "t", "t")),
    "loopback-120": (ruled, NORMAL, ("j", "j", "p", "p", "p")),
    "forwarded-120": (lambda: ListFeed([builders.forwarded()]), NORMAL, ()),
    "both-backends-200": (lambda: ListFeed([builders.both_backends()]), WIDE, ()),
    "lost-events-80": (lambda: ListFeed([builders.lossy()]), SMALL, ("j",)),
    "error-80": (lambda: ListFeed(error=NOT_ROOT), SMALL, ()),
    "filter-120": (ruled, NORMAL, ("slash", *"dropped :8443", "enter")),
    "filter-error-80": (ruled, SMALL, ("slash", *"dropt", "enter")),
    "zoom-120": (ruled, NORMAL, ("j", "z")),
    "compare-80": (ruled, SMALL, MARKED),
    "compare-120": (ruled, NORMAL, MARKED),
    "compare-200-safe": (ruled, WIDE, ("t", "t", *MARKED)),
}


@pytest.mark.parametrize("name", CASES)
def test_screen_looks_as_reviewed(name: str, same_picture: Check) -> None:
    feed, size, keys = CASES[name]

    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press(*keys)
        same_picture(stage.app, name)

    play(feed(), act, size)


@pytest.mark.parametrize("size", [SMALL, NORMAL])
def test_frozen_watch_looks_as_reviewed(size: tuple[int, int], same_picture: Check) -> None:
    log = builders.watched(40)
    now = partial(builders.watch_snapshot, log)

    async def act(stage: Stage) -> None:
        stage.app.post_message(SnapshotArrived(now()))
        await stage.until(lambda: "40" in stage.text(), "the packets")
        await stage.press("f", *["j"] * 5)
        builders.watched(12, log)
        stage.app.post_message(SnapshotArrived(now()))
        await stage.until(lambda: stage.main.table.waiting == 12, "the count")
        same_picture(stage.app, f"frozen-{size[0]}")

    play(ListFeed(waits=True), act, size)


def test_empty_screen_looks_as_reviewed(same_picture: Check) -> None:
    async def act(stage: Stage) -> None:
        await stage.until(lambda: "waiting for the first packet" in stage.text(), "the lists")
        same_picture(stage.app, "empty-120")

    play(ListFeed(waits=True), act)


def test_help_looks_as_reviewed(same_picture: Check) -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("question_mark")
        await stage.until(lambda: "everywhere" in stage.text(), "the help")
        assert isinstance(stage.app.screen, HelpScreen)
        same_picture(stage.app, "help-80")

    play(ListFeed([builders.article()]), act, SMALL)
