"""How long a user waits: programs timed from their start to their first line and to their end."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.root.kernel import Pair

IPTTRACE = str(Path(sys.executable).with_name("ipttrace"))
PORT = 8443


def seconds_to_end(*command: str) -> float:
    """Run a program with its output to nowhere; return its wall time."""
    begin = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def seconds_to_answer(*command: str) -> float:
    """Run a program; return the wall time to its first line on stdout, then wait for its end."""
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        took = time.perf_counter() - begin
        process.stdout.read()
    assert first, f"{' '.join(command)} said nothing"
    assert process.returncode == 0, f"{' '.join(command)} ended with {process.returncode}"
    return took


def probe_command(pair: Pair) -> list[str]:
    """Return the command that injects one SYN at the server's interface."""
    where = ["--netns", pair.server.netns, "--in", pair.server.interface]
    who = ["--src", f"{pair.client.ipv4}:40000", "--json", "tcp", f"{pair.server.ipv4}:{PORT}"]
    return [IPTTRACE, "probe", *where, *who]
