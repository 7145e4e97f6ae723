"""What a watch costs on a busy host: packets that it does not show must not cost it anything.

The watch takes every packet of a fast stream, of which the kernel lets it have 20 a second.
tcpdump, which looks at all of them, is measured beside it.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ipttrace.netfilter import Backend, PacketFamily
from tests.bench.load import ended, stream
from tests.bench.waiting_time import IPTTRACE
from tests.root.kernel import Iptables, Pair, in_namespace
from tests.waiting import wait_until

RATE = 20_000
"""Packets a second."""

SHOWN = 15
"""Packets a second that a watch at the default limit of 20 must at least show to be measured."""

RULES = (
    "-t mangle -A PREROUTING -p udp --dport 9000 -j MARK --set-mark 1",
    "-t filter -A INPUT -m conntrack --ctstate ESTABLISHED -m mark --mark 2 -j DROP",
    "-t filter -A INPUT -p udp -j ACCEPT",
)
"""Connections are tracked, so that the watch follows them, too."""

WATCH = (IPTTRACE, "watch", "--for", "1h", "--json")
TCPDUMP = ("tcpdump", "-n", "-i", "eth0", "-U", "-w", "-")
"""Neither has a filter: they take every packet."""

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a program and its children used."""

    core: float
    """Percent of one core while the packets came."""
    memory: float
    """MiB, the most that each of them held; pages that they share count twice."""


def add_watched_rules(pair: Pair, backend: Backend) -> None:
    """Give the stream some rules to meet."""
    for rule in RULES:
        Iptables(backend)(pair.server.netns, PacketFamily.IPV4, *rule.split())


def cost(program: Sequence[str], pair: Pair, seconds: float) -> Cost:
    """Run `program` in the server's namespace; measure it from the first packet it shows on."""
    with tempfile.TemporaryFile() as output, _running(program, pair, output) as process:
        with stream(pair, RATE, seconds) as sender:
            wait_until(
                lambda: os.fstat(output.fileno()).st_size, 20, f"{program[0]} shows a packet"
            )
            pids = _with_children(process.pid)
            begin, before = time.monotonic(), _cpu(pids)
            rate = ended(sender)[1]
            took, spent = time.monotonic() - begin, _cpu(pids) - before
        memory = sum(_most_memory(pid) for pid in pids)
        process.terminate()
        process.wait(20)
        _check(program, output, rate, took)
    return Cost(100 * spent / took, memory)


def _check(program: Sequence[str], output: BinaryIO, rate: float, seconds: float) -> None:
    """Fail if what was measured is not what is to be measured."""
    assert rate > 0.9 * RATE, f"only {rate:.0f} packets/s: the machine is too busy"
    if program == WATCH:
        output.seek(0)
        shown = output.read().count(b'"record":"path"')
        assert shown > SHOWN * seconds, f"only {shown} packets shown in {seconds:.1f} s"


@contextmanager
def _running(
    program: Sequence[str], pair: Pair, output: BinaryIO
) -> Iterator[subprocess.Popen[bytes]]:
    process = in_namespace(pair.server.netns).run(
        lambda: subprocess.Popen(program, stdout=output, stderr=subprocess.DEVNULL)
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def _with_children(pid: int) -> Sequence[int]:
    """Return the process and its children (proc(5): the fourth field of stat is the parent)."""
    running = [int(each.name) for each in Path("/proc").glob("[0-9]*")]
    return [pid, *(each for each in running if _stat(each)[1:2] == [str(pid)])]


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on; none if the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu(pids: Sequence[int]) -> float:
    """Return the seconds of the processes and of their ended children: fields 14 to 17."""
    return sum(int(ticks) for pid in pids for ticks in _stat(pid)[11:15]) / TICKS


def _most_memory(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
