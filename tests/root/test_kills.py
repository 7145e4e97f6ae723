"""The whole command killed at any moment: no rule, table or setting of it stays."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from ipttrace.netfilter import Backend, PacketFamily
from tests.root.kernel import Iptables, Pair, run
from tests.waiting import SLOW, wait_until

IPTTRACE = str(Path(sys.executable).with_name("ipttrace"))
MOMENTS = (0.25, 0.4, 0.55, 0.7, 0.9, 1.2)
"""Seconds after the start: while it loads, arms, sends, waits and takes back."""
COUNTERS = re.compile(r"\[\d+:\d+\]|packets \d+ bytes \d+|^#.*$", re.MULTILINE)


def rules(netns: str) -> list[str]:
    """Return all rules of a namespace, without counters and comments."""
    saved = [Iptables(each).save(netns, family) for each in Backend for family in PacketFamily]
    return [COUNTERS.sub("", text) for text in (*saved, run("nft", "list", "ruleset", netns=netns))]


@pytest.mark.parametrize("command", ["probe", "watch"])
def test_nothing_stays_of_a_command_that_is_killed(
    pair: Pair, backend: Backend, command: str
) -> None:
    netns = pair.server.netns
    for table, chain in (("mangle", "PREROUTING"), ("filter", "INPUT"), ("raw", "PREROUTING")):
        Iptables(backend)(netns, PacketFamily.IPV4, "-t", table, "-A", chain, "-j", "ACCEPT")
    target = ("--in", pair.server.interface, "tcp", f"{pair.server.ipv4}:81", "--count", "3")
    words = target if command == "probe" else ("--for", "1m")
    before = rules(netns)
    for moment in MOMENTS:
        with subprocess.Popen(
            [IPTTRACE, command, "--netns", netns, *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(moment * SLOW)
            process.kill()
        wait_until(lambda: rules(netns) == before, 10, what=f"all is back, killed at {moment} s")
