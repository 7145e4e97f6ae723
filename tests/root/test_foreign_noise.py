"""Beside a second pair of namespaces with the same names, addresses and ports, nothing is mixed up.

Drops, resets, refusals and waits of the same and of other kinds happen there all the time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ipttrace.netfilter import PacketFamily
from ipttrace.path import DropHop, Outcome, ResetHop, WireHop
from ipttrace.probe import ProbeSpec
from ipttrace.system.counters import read_counters
from tests.root.causes import Probed, probe
from tests.root.kernel import (
    Iptables,
    Listeners,
    Namespaces,
    Pair,
    build_pair,
    in_namespace,
    run,
    set_sysctl,
)
from tests.waiting import wait_until

V4 = PacketFamily.IPV4
CLOSED, DROPPED, OPEN = 80, 81, 82
LOST_NET, LOST = "192.0.2.0/24", "192.0.2.1"
SILENT = "198.51.100.99"
HOLE, HOLED = "203.0.113.0/24", "203.0.113.1"
EARLY, WAIT = 6.0, 8.0
"""Seconds."""
EVENTFUL = 100
"""Foreign packets a probe at least."""


def _prepare(pair: Pair, iptables: Iptables) -> None:
    """Give the server what refuses each of the destinations, each in its way."""
    server, client = pair.server, pair.client
    run("ip", "-n", server.netns, "route", "add", "blackhole", HOLE)
    for line in (f"route add {LOST_NET} via {server.ipv4}", f"route add {HOLE} via {server.ipv4}"):
        run("ip", "-n", client.netns, *line.split())
    set_sysctl(server.netns, "net/ipv4/ip_forward", "1")
    set_sysctl(server.netns, "net/ipv4/conf/eth0/send_redirects", "0")
    for netns in (client.netns, server.netns):
        set_sysctl(netns, "net/ipv4/neigh/eth0/retrans_time_ms", "150")
        set_sysctl(netns, "net/ipv4/icmp_ratelimit", "0")
    iptables(server.netns, V4, *f"-A INPUT -p tcp --dport {DROPPED} -j DROP".split())


SENDER = """
import contextlib, json, socket, sys, threading
targets, pause = json.loads(sys.argv[1]), threading.Event()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    for target in map(tuple, targets):
        with contextlib.suppress(OSError):
            udp.sendto(b"noise", target)
        with socket.socket() as tcp, contextlib.suppress(OSError):
            tcp.setblocking(False)
            tcp.connect(target)
    pause.wait(0.005)
"""
"""Sends about two thousand packets a second."""


@contextmanager
def noise(pair: Pair) -> Iterator[Callable[[], int]]:
    """Send all kinds of doomed packets; gives how many of them the server has received."""
    server = pair.server.ipv4
    targets = [(server, CLOSED), (server, DROPPED), (server, OPEN)]
    targets += [(LOST, CLOSED), (HOLED, CLOSED), (SILENT, CLOSED)]
    command = [sys.executable, "-c", SENDER, json.dumps(targets)]
    sender = in_namespace(pair.client.netns).run(lambda: subprocess.Popen(command))
    try:
        yield lambda: in_namespace(pair.server.netns).run(read_counters)["Ip.InReceives"]
    finally:
        sender.kill()
        sender.wait()


@pytest.fixture
def beside(
    namespaces: Namespaces, iptables: Iptables, listen: Listeners
) -> Iterator[tuple[Pair, Callable[[], int]]]:
    """Return the pair under test, beside a noisy one that is its very image."""
    pair, other = build_pair(namespaces), build_pair(namespaces)
    for each in (pair, other):
        _prepare(each, iptables)
        listen(each.server.netns, each.server.ipv4, OPEN)
    with noise(other) as count:
        wait_until(lambda: count() > EVENTFUL, what="noise")
        yield pair, count


def send(pair: Pair, dst: str, port: int, *, inject: bool) -> Probed:
    """Send a SYN to or through the server."""
    spec = ProbeSpec("tcp", dst, port, wait=WAIT)
    if inject:
        return probe(spec, pair.server.netns, in_interface="eth0", src=pair.client.ipv4)
    return probe(spec, pair.server.netns, from_netns=pair.client.netns)


CASES = [
    ("rule-drop", Outcome.DROPPED, "server", DROPPED, "NETFILTER_DROP"),
    ("no-route", Outcome.DROPPED, LOST, CLOSED, "IP_INNOROUTES"),
    ("blackhole-route", Outcome.DROPPED, HOLED, CLOSED, "NOT_SPECIFIED"),
    (None, Outcome.REFUSED, "server", CLOSED, "NO_SOCKET"),
    ("delivered", Outcome.DELIVERED, "server", OPEN, None),
]


@pytest.mark.parametrize(
    "inject",
    [pytest.param(True, id="inject", marks=pytest.mark.full), pytest.param(False, id="real")],
)
def test_causes_stay_right_beside_the_same_packets_of_others(
    beside: tuple[Pair, Callable[[], int]], inject: bool
) -> None:
    pair, count = beside
    for cause, outcome, where, port, reason in CASES:
        before = count()
        dst = pair.server.ipv4 if where == "server" else where
        probed = send(pair, dst, port, inject=inject)
        assert count() - before > EVENTFUL, "too quiet to prove anything"
        assert probed.path.outcome is outcome, probed.text
        assert cause in (None, probed.cause), probed.text
        drops = [hop.reason for hop in probed.hops(DropHop) if isinstance(hop, DropHop)]
        assert drops == ([] if reason is None else [reason]), probed.text
        resets = [hop for hop in probed.hops(ResetHop) if isinstance(hop, ResetHop)]
        assert len(resets) == (outcome is Outcome.REFUSED), probed.text
        crossings = [hop.interface for hop in probed.hops(WireHop) if isinstance(hop, WireHop)]
        assert crossings == ["eth0"], probed.text
        assert probed.seconds < EARLY, probed.text


def test_a_silent_neighbour_is_this_namespaces_own(
    beside: tuple[Pair, Callable[[], int]],
) -> None:
    pair, _ = beside
    spec = ProbeSpec("tcp", SILENT, CLOSED, wait=WAIT)
    probed = probe(spec, pair.client.netns)
    probed.check("neighbour-failed", Outcome.DROPPED, within=EARLY)
    spec = ProbeSpec("tcp", pair.server.ipv4, OPEN, wait=WAIT)
    probed = probe(spec, pair.client.netns)
    assert (probed.path.outcome, probed.result.client) == (Outcome.SENT, ("CONNECTED",))
    assert probed.hops(DropHop) == []


@pytest.mark.full
def test_what_nobody_here_did_is_nobodys_evidence(
    beside: tuple[Pair, Callable[[], int]], listen: Listeners
) -> None:
    """A packet that arrives well has no drop, wait or reset, however many others do."""
    pair, count = beside
    for _ in range(3):
        before = count()
        probed = send(pair, pair.server.ipv4, OPEN, inject=True)
        assert count() - before > EVENTFUL
        assert probed.path.outcome is Outcome.DELIVERED
        assert probed.hops(DropHop) == probed.hops(ResetHop) == []
        assert "drop" not in probed.evidence()
