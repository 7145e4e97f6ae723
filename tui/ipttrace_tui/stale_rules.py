"""Whether the rules that a packet met still stand: asked in a worker, told in the status line."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from ipttrace.errors import IptTraceError
from ipttrace.path import PacketPath
from ipttrace.ruleset import Ruleset
from ipttrace_tui.chain_view import changed_since
from ipttrace_tui.messages import RulesRead

if TYPE_CHECKING:
    from textual.screen import Screen

ReadRules = Callable[[str | None], Ruleset]

CHANGED = "rules changed since"
UNREADABLE = "rules not readable now"


class StaleRules:
    """Reads the rules of one namespace at a time."""

    def __init__(self, screen: Screen[None]) -> None:
        self._screen = screen
        self._busy = False
        self._now: dict[str | None, RulesRead] = {}
        self._judged: tuple[PacketPath, RulesRead, str] | None = None

    def ask(self, netns: str | None) -> None:
        """Read the rules in a thread, if the feed knows how; `RulesRead` follows."""
        read: ReadRules | None = getattr(self._screen.app, "read_rules", None)
        if read is None or self._busy:
            return
        self._busy = True

        def work() -> None:
            """Run in the thread: it posts and touches no widget."""
            rules, reason = None, ""
            try:
                rules = read(netns)
            except (IptTraceError, OSError) as error:
                reason = str(error)
            with contextlib.suppress(RuntimeError):
                self._screen.post_message(RulesRead(netns, rules, reason))

        self._screen.run_worker(work, thread=True, name="rules", group="rules")

    def take(self, event: RulesRead) -> None:
        """Take what was read."""
        self._busy = False
        self._now[event.netns] = event

    def doubt(self, path: PacketPath | None) -> str:
        """Return what is to be said of the rules that `path` met; empty if they still stand."""
        event = self._now.get(path.netns) if path is not None else None
        if path is None or event is None:
            return ""
        judged = self._judged
        if judged is None or judged[0] is not path or judged[1] is not event:
            self._judged = judged = (path, event, _doubt(path, event))
        return judged[2]


def _doubt(path: PacketPath, event: RulesRead) -> str:
    if event.rules is None:
        return UNREADABLE
    return CHANGED if changed_since(path, event.rules) else ""
