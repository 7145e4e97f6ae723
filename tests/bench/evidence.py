"""What the kernel's evidence costs: probes with all of it and with none, alone and beside drops."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ipttrace.netfilter import Backend, PacketFamily
from tests.bench.load import PORT as STREAM_PORT
from tests.bench.load import stream
from tests.bench.waiting_time import IPTTRACE
from tests.root.kernel import Iptables, Pair, in_namespace
from tests.waiting import wait_until

RATE = 5_000
"""Packets a second of others, each of which the kernel frees."""
CLOSED, SILENT = 8444, 8445
WAIT = 3.0
"""Seconds that a probe waits for an answer that does not come: so long it reads events."""
WITHOUT = ("--evidence", "none")
TICKS = os.sysconf("SC_CLK_TCK")


def refused_command(pair: Pair, *more: str) -> list[str]:
    """Return the command that injects a SYN to a port that nobody listens on."""
    where = ["--netns", pair.server.netns, "--in", pair.server.interface]
    who = ["--src", f"{pair.client.ipv4}:40000", "--json", "tcp", f"{pair.server.ipv4}:{CLOSED}"]
    return [IPTTRACE, "probe", *more, *where, *who]


def waiting_command(pair: Pair, *more: str) -> list[str]:
    """Return the command that asks a service which never answers."""
    where = ["--netns", pair.server.netns, "--from", pair.client.netns, "--wait", f"{WAIT:g}"]
    return [IPTTRACE, "probe", *more, *where, "--json", "udp", f"{pair.server.ipv4}:{SILENT}"]


@contextmanager
def foreign_drops(pair: Pair, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """Let the kernel drop a steady stream in another pair of namespaces."""
    rule = f"-I INPUT -p udp --dport {STREAM_PORT} -j DROP"
    Iptables(Backend.NFT)(pair.server.netns, PacketFamily.IPV4, *rule.split())
    with stream(pair, RATE, seconds) as sender:
        wait_until(lambda: dropped(pair) > RATE / 10, 20, "foreign packets dropped")
        yield sender


def dropped(pair: Pair) -> int:
    """Return how many packets the other pair's rule has dropped."""
    command = ["iptables-nft-save", "-c", "-t", "filter"]
    saved = in_namespace(pair.server.netns).run(
        lambda: subprocess.run(command, capture_output=True, text=True, check=True).stdout
    )
    counted = [line for line in saved.splitlines() if line.endswith("-j DROP")]
    return int(counted[0][1:].partition(":")[0])


def share_of_core(command: Sequence[str], noisy: Pair, sender: subprocess.Popen[str]) -> float:
    """Return what a probe and the sender of the foreign packets use, in percent of one core.

    The kernel writes its events in the time of whoever causes them: the sender's, too.
    Fails if the stream was slower than it shall be, or a foreign event got into the evidence.
    """
    with tempfile.TemporaryFile("w+") as output:
        before, count, begin = _cpu(sender.pid), dropped(noisy), time.monotonic()
        process = subprocess.Popen(command, stdout=output, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        took = time.monotonic() - begin
        rate = (dropped(noisy) - count) / took
        spent = usage.ru_utime + usage.ru_stime + _cpu(sender.pid) - before
        output.seek(0)
        _check(output.read(), process.returncode, rate)
    return 100 * spent / took


def _check(output: str, status: int, rate: float) -> None:
    assert status == 0, f"the probe ended with {status}"
    assert rate > 0.9 * RATE, f"only {rate:.0f} foreign drops/s: the machine is too busy"
    records = [json.loads(line) for line in output.splitlines()]
    (path,) = [each for each in records if each.get("role") == "probe"]
    assert path["outcome"] == "delivered", path
    assert not [hop for hop in path["hops"] if hop["kind"] in ("drop", "reset")], path
    told = " ".join(each["text"] for each in path["diagnosis"]["evidence"])
    assert "NETFILTER_DROP" not in told, told


def _cpu(pid: int) -> float:
    """Return the seconds that a process used (proc(5): fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:13]) / TICKS
