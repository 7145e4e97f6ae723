"""A namespace that traces every packet of a steady stream through iptables-nft chains."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ipttrace.netfilter import Backend, PacketFamily
from tests.root.kernel import Iptables, Pair, in_namespace

PORT = 9000
RULES = (
    "-t raw -A PREROUTING -p udp --dport 9000 -j TRACE",
    "-t mangle -A PREROUTING -p udp --dport 9000 -j MARK --set-mark 1",
    "-t mangle -P INPUT ACCEPT",
    "-t filter -N app",
    "-t filter -A app -m mark --mark 1 -j RETURN",
    "-t filter -A INPUT -p udp --dport 9000 -j app",
    "-t filter -A INPUT -p udp -j ACCEPT",
)
"""Every packet meets the trace rule and a policy in raw, a rule and a policy in mangle/PREROUTING,
a policy in mangle/INPUT, and three rules in filter/INPUT."""


def add_rules(pair: Pair) -> None:
    """Trace the stream in the server's namespace."""
    iptables = Iptables(Backend.NFT)
    for rule in RULES:
        iptables(pair.server.netns, PacketFamily.IPV4, *rule.split())


def send(pair: Pair, rate: int, seconds: float) -> int:
    """Send `rate` packets a second from the client's namespace; return how many went out."""
    with stream(pair, rate, seconds) as sender:
        return ended(sender)[0]


@contextmanager
def stream(pair: Pair, rate: int, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """Send in the background of a block; what is not sent at its end is not sent any more."""
    what = [pair.server.ipv4, str(PORT), str(rate), str(seconds)]
    command = [sys.executable, "-m", "tests.bench.sender", *what]
    with in_namespace(pair.client.netns).run(
        lambda: subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    ) as sender:
        try:
            yield sender
        finally:
            sender.terminate()


def ended(sender: subprocess.Popen[str]) -> tuple[int, float]:
    """Wait for the end of a stream; return how many packets went out, and how many a second."""
    packets, rate = sender.communicate()[0].split()
    return int(packets), float(rate)
