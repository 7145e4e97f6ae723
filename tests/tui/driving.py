"""Runs the screen without a terminal, and waits for what it shows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from textual.message import Message
from textual.pilot import Pilot
from textual.widget import Widget

from ipttrace.errors import IptTraceError
from ipttrace_tui.app import IptTraceApp
from ipttrace_tui.feed import Feed
from ipttrace_tui.messages import FeedEnded
from ipttrace_tui.screens.main import MainScreen
from ipttrace_tui.settings import Settings
from ipttrace_tui.workbench import Workbench

TITLE = "probe tcp 198.51.100.1:8443 in server"
DEADLINE = 10.0
NEVER = 3600.0
"""Seconds; in tests nothing is looked at again unless it is asked for."""

W = TypeVar("W", bound=Widget)


@dataclass
class Stage:
    """A running screen, its keyboard, and the messages seen so far."""

    app: IptTraceApp
    pilot: Pilot[IptTraceError | None]
    messages: list[Message] = field(default_factory=list)

    @property
    def main(self) -> MainScreen:
        return next(each for each in self.app.screen_stack if isinstance(each, MainScreen))

    def widget(self, kind: type[W]) -> W:
        return self.main.query_one(kind)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, f"never came: {what}"
            await self.pilot.pause()
        await self.pilot.pause()

    async def ended(self, runs: int = 1) -> None:
        await self.until(lambda: self.seen(FeedEnded) >= runs, f"the end of run {runs}")

    def seen(self, kind: type[Message]) -> int:
        """Return how many messages came; one that bubbles up comes to several widgets."""
        return len({id(each) for each in self.messages if isinstance(each, kind)})

    async def shows(self, words: str) -> None:
        """Wait until the words are on the screen."""
        try:
            await self.until(lambda: words in self.text(), words)
        except AssertionError as error:
            raise AssertionError(f"never shown: {words!r} on\n{self.text()}") from error

    def text(self) -> str:
        """Return the characters on the screen."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join(strip.text.rstrip() for strip in strips)


def play(
    feed: Feed | None,
    act: Callable[[Stage], Awaitable[None]],
    size: tuple[int, int] = (120, 40),
    bench: Workbench | None = None,
    settings: Settings | None = None,
    notices: Sequence[str] = (),
) -> IptTraceApp:
    """Run the screen on `feed` while `act` drives it; return the app when it has closed."""

    async def run() -> IptTraceApp:
        app = IptTraceApp(feed, TITLE, bench, settings, notices)
        app.pace = NEVER
        messages: list[Message] = []
        async with app.run_test(
            size=size, message_hook=messages.append, notifications=True
        ) as pilot:
            await act(Stage(app, pilot, messages))
        return app

    return asyncio.run(run())
