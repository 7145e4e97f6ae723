"""Waiting for a condition, with a deadline instead of a sleep."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

POLL = 0.005
"""Seconds between two looks at the condition."""


SLOW = float(os.environ.get("IPTTRACE_SLOW", "1"))
"""How many times longer things take here than on a real processor, at most."""


def wait_until(condition: Callable[[], object], seconds: float = 5.0, what: str = "") -> None:
    """Return once `condition()` is true; AssertionError if it is not within `seconds` * SLOW."""
    seconds *= SLOW
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        pause.wait(POLL)
