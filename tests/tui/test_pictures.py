"""The screen as the user sees it, in each state and size."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ipttrace.errors import NotPermittedError
from ipttrace_tui.feed import Feed
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

CASES: dict[str, tuple[Callable[[], Feed], tuple[int, int], tuple[str, ...]]] = {
    "delivered-80": (lambda: ListFeed([builders.article()]), SMALL, ()),
    "delivered-120": (lambda: ListFeed([builders.article()]), NORMAL, ()),
    "dropped-80": (lambda: ListFeed([builders.article()]), SMALL, ("j",)),
    "dropped-120": (lambda: ListFeed([builders.article()]), NORMAL, ("j",)),
    "loopback-200": (lambda: ListFeed([builders.article()]), WIDE, ("j", "j")),
    "loopback-120": (lambda: ListFeed([builders.article()]), NORMAL, ("j", "j", "p", "p", "p")),
    "forwarded-120": (lambda: ListFeed([builders.forwarded()]), NORMAL, ()),
    "both-backends-120": (lambda: ListFeed([builders.both_backends()]), NORMAL, ("tab", "tab")),
    "both-backends-200": (lambda: ListFeed([builders.both_backends()]), WIDE, ()),
    "lost-events-80": (lambda: ListFeed([builders.lossy()]), SMALL, ("j",)),
    "error-80": (lambda: ListFeed(error=NOT_ROOT), SMALL, ()),
}


@pytest.mark.parametrize("name", CASES)
def test_screen_looks_as_reviewed(name: str, same_picture: Check) -> None:
    feed, size, keys = CASES[name]

    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press(*keys)
        same_picture(stage.app, name)

    play(feed(), act, size)


def test_empty_screen_looks_as_reviewed(same_picture: Check) -> None:
    async def act(stage: Stage) -> None:
        await stage.until(lambda: "waiting for the first packet" in stage.text(), "the lists")
        same_picture(stage.app, "empty-120")

    play(ListFeed(waits=True), act)


def test_help_looks_as_reviewed(same_picture: Check) -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press("question_mark")
        await stage.until(lambda: "inferred" in stage.text(), "the help")
        assert isinstance(stage.app.screen, HelpScreen)
        same_picture(stage.app, "help-80")

    play(ListFeed([builders.article()]), act, SMALL)
