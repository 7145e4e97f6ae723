"""Asking the machine in a worker thread: the answer comes as a message."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from textual.message import Message
from textual.screen import Screen

from ipttrace.errors import IptTraceError, KernelError

REST = 3.0
"""Times that a question took, before it is asked again by itself."""


class Answered(Message):
    """What came of a question; one of `value` and `error` is None."""

    def __init__(self, question: str, value: Any, error: IptTraceError | None) -> None:
        super().__init__()
        self.question = question
        self.value = value
        self.error = error


class Asking:
    """Lets a screen ask; one question of a kind at a time, the next one after its answer."""

    def __init__(self, screen: Screen[Any]) -> None:
        self._screen = screen
        self._open: set[str] = set()
        self._rest_until = 0.0

    def rested(self) -> bool:
        """Tell whether to ask by itself again: what takes long is asked for seldom.

        Reading thousands of rules takes the processor from the keyboard.
        """
        return time.monotonic() >= self._rest_until

    def ask(self, question: str, function: Callable[[], object]) -> bool:
        """Call `function` in a thread, `Answered` follows; False if such a question is open."""
        if question in self._open:
            return False
        self._open.add(question)

        def work() -> None:
            """Run in the thread: it posts and touches no widget."""
            value, error, began = None, None, time.monotonic()
            try:
                value = function()
            except IptTraceError as raised:
                error = raised
            except OSError as raised:
                error = KernelError(f"cannot read {question}: {raised}")
            now = time.monotonic()
            self._rest_until = now + REST * (now - began)
            self._open.discard(question)
            # The loop is closed where the screen is gone before the answer: nobody is there.
            with contextlib.suppress(RuntimeError):
                self._screen.post_message(Answered(question, value, error))

        self._screen.run_worker(work, thread=True, group=question, name=question)
        return True
