"""The machine's own clock."""

from __future__ import annotations

import select
import time
from collections.abc import Sequence


class SystemClock:
    """Real time (a `ports.Clock`)."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        return time.monotonic()

    def wait(self, descriptors: Sequence[int], seconds: float) -> None:
        """Return when one of the descriptors can be read, or after `seconds`."""
        poller = select.poll()
        for descriptor in descriptors:
            poller.register(descriptor, select.POLLIN | select.POLLERR)
        poller.poll(max(0.0, seconds) * 1000)
