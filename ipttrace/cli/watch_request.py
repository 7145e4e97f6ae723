"""What is to be watched."""

from __future__ import annotations

from dataclasses import dataclass

from ipttrace.request import Trigger


@dataclass(frozen=True, slots=True)
class Watch:
    """What the user asks to watch."""

    filter_text: str
    """A pcap filter; empty for all packets."""
    netns: tuple[str, ...]
    trigger: Trigger
    limit: int | None
    """Packets a second that the kernel traces at most."""
    packets: int | None
    seconds: float | None
    """None: until it is ended."""
