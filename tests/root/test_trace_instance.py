"""The tracefs instance of a session: there while it traces, gone however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ipttrace.system import own_traces
from tests.root.kernel import Pair
from tests.waiting import wait_until

pytestmark = pytest.mark.root


@contextmanager
def silent_probe(pair: Pair) -> Iterator[subprocess.Popen[bytes]]:
    """A probe that waits for an answer that never comes; its own session's instance is new."""
    words = ["--netns", pair.server.netns, "--from", pair.client.netns, "--wait", "60"]
    command = [sys.executable, "-m", "ipttrace.cli.main", "probe", *words, "udp"]
    process = subprocess.Popen(
        [*command, f"{pair.server.ipv4}:9"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def made_since(before: list[str]) -> list[str]:
    return sorted(set(own_traces.sessions()) - set(before))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_instance_outlives_its_session(pair: Pair, number: signal.Signals) -> None:
    pair.server.run("iptables-nft", "-A", "INPUT", "-p", "udp", "-j", "ACCEPT")
    with pair.server.socket(2, 2) as service:
        service.bind((pair.server.ipv4, 9))
        before = own_traces.sessions()
        with silent_probe(pair) as process:
            wait_until(lambda: readers(process.pid), seconds=20, what="an instance that is read")
            own = [name for name in made_since(before) if name in readers(process.pid)]
            assert own
            process.send_signal(number)
            process.wait(20)
            wait_until(lambda: not set(own) & set(own_traces.sessions()), seconds=20, what=str(own))


def readers(pid: int) -> str:
    """Return the files that a process has open in tracefs, as text."""
    found = subprocess.run(
        ["ls", "-l", f"/proc/{pid}/fd"], capture_output=True, text=True, check=False
    )
    lines = [line for line in found.stdout.splitlines() if "trace_pipe_raw" in line]
    return "\n".join(lines)
