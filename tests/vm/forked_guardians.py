"""A pytest plugin that forks guardian processes instead of starting Python for each.

An emulated processor takes three seconds to import what a guardian needs, and most tests have one
or more of them.  A fork has it all.  What it does afterwards is the same: `guardian_process.main`
in a session of its own, with no file open but those that it was given.  Tests that run `ipttrace`
as a command, or kill a process that has a guardian, start real ones.
"""

from __future__ import annotations

import gc
import inspect
import os
import signal
import subprocess
import sys
import traceback
from types import SimpleNamespace
from typing import Any

import pytest

import ipttrace.system.leftovers  # noqa: F401 - it is imported when it is needed
from ipttrace.system import guardian, guardian_process, legacy_rules

REAL = frozenset({"test_half_failed_arming_leaves_nothing"})
"""Tests whose guardian is to be started with another environment."""

HIGHEST = os.sysconf("SC_OPEN_MAX")
_SIGNATURE = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]


class ForkedGuardian(subprocess.Popen[bytes]):
    """A guardian process that was forked; in all else a Popen."""

    def _execute_child(self, *arguments: Any, **named: Any) -> None:
        """Do what Popen does to run a program, in a fork of this process."""
        given = _SIGNATURE.bind(self, *arguments, **named).arguments
        self.pid = os.fork()
        if self.pid == 0:
            _become_guardian(given["args"], given["pass_fds"], given["errwrite"])
        self._child_created = True


def _become_guardian(words: list[str], kept: tuple[int, ...], complaints: int) -> None:
    status = 1
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor, source in enumerate((nothing, nothing, complaints)):
            os.dup2(source, descriptor)
        _close_all_but(kept)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        sys.argv = [words[-2], words[-1]]
        guardian_process.main()
        status = 0
    except BaseException:  # noqa: BLE001 - its last words, as the interpreter would print them
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def _close_all_but(kept: tuple[int, ...]) -> None:
    start = 3
    for descriptor in sorted(kept):
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, HIGHEST)


def pytest_configure() -> None:
    """Import what guardians use, once for all of them."""
    legacy_rules.preload()
    gc.freeze()


@pytest.fixture(autouse=True)
def forked_guardians(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the guardians of this test."""
    if request.function.__name__ in REAL:
        return
    names = {"Popen": ForkedGuardian}
    names |= {name: getattr(subprocess, name) for name in ("DEVNULL", "TimeoutExpired")}
    monkeypatch.setattr(guardian, "subprocess", SimpleNamespace(**names))
