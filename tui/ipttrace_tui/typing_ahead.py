"""Keys in the order in which they were typed, also where the screen is slower than the hands.

Textual hands a key from queue to queue, up from the widget that has the focus: what is typed behind
a Tab would still go to the field before it, on a machine that is busy.
"""

from __future__ import annotations

import asyncio
import contextlib

from textual.app import App
from textual.events import Event, Key
from textual.screen import SystemModalScreen
from textual.widget import Widget
from textual.widgets import Input

from ipttrace.errors import IptTraceError

PATIENCE = 1.0
"""Seconds after which a key is no longer held back for those before it."""


class TypingAhead(App[IptTraceError | None]):
    """Does what a key is bound to before it looks at the next one."""

    async def on_event(self, event: Event) -> None:
        """Do what a key is bound to, as soon as the field has taken what was typed before."""
        if not isinstance(event, Key) or event.is_forwarded or not await self._done(event):
            await super().on_event(event)

    async def _done(self, key: Key) -> bool:
        field = self.focused
        if not self.app_focus or isinstance(self.screen, SystemModalScreen):
            return False
        if isinstance(field, Input) and key.is_printable:
            return False
        if await self._check_bindings(key.key, priority=True):
            return True
        for each in (field or self.screen).ancestors_with_self:
            if isinstance(each, Widget):  # what one sends goes up to the next
                await _idle(each)
        return await self._check_bindings(key.key)


async def _idle(widget: Widget) -> None:
    """Wait until all that was sent to a widget up to now has been done."""
    done = asyncio.Event()
    if widget.call_later(done.set):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), PATIENCE)
