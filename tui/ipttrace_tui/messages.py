"""What the feed's thread tells the screen."""

from __future__ import annotations

from textual.message import Message

from ipttrace.errors import IptTraceError
from ipttrace.ruleset import Ruleset
from ipttrace_tui.feed import Snapshot


class SnapshotArrived(Message):
    """The feed published; only the newest of a burst is shown."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self.snapshot = snapshot

    def can_replace(self, message: Message) -> bool:
        """Return whether this message makes an earlier, waiting one useless."""
        return isinstance(message, SnapshotArrived)


class FeedEnded(Message):
    """The feed has returned and cleaned up."""

    def __init__(self, error: IptTraceError | None) -> None:
        super().__init__()
        self.error = error


class RulesRead(Message):
    """The rules of a namespace were read again."""

    def __init__(self, netns: str | None, rules: Ruleset | None, reason: str) -> None:
        super().__init__()
        self.netns = netns
        self.rules = rules
        """None where they cannot be read."""
        self.reason = reason
        """Why they cannot."""
