"""What is read of connection tracking and of NFQUEUE, in private namespaces."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path

import pytest

from ipttrace.netfilter import Backend, PacketFamily
from ipttrace.packet import Flow, PacketSummary
from ipttrace.question import Question
from ipttrace.system.connections import read_connections, read_queues
from ipttrace.system.scene import NamespaceScene
from tests.root.kernel import Iptables, Listeners, Pair, in_namespace
from tests.root.queue_listener import QueueListener

pytestmark = pytest.mark.root

PORT, SPORT = 8443, 40000
COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")


def send(pair: Pair, family: PacketFamily) -> Flow:
    """Send a datagram from the client to the server; return its flow."""
    client, server = pair.client.address(family), pair.server.address(family)
    kind = socket.AF_INET if family is PacketFamily.IPV4 else socket.AF_INET6
    with pair.client.socket(kind, socket.SOCK_DGRAM) as sender:
        sender.bind((client, SPORT))
        sender.sendto(b"x", (server, PORT))
    return Flow(family, "udp", client, server, SPORT, PORT)


def count(pair: Pair) -> int:
    """Return how many entries the server has."""
    return int(in_namespace(pair.server.netns).run(COUNT.read_text))


def test_an_entry_is_found_in_both_directions(
    pair: Pair, family: PacketFamily, listen: Listeners
) -> None:
    service = listen(pair.server.netns, pair.server.address(family), PORT, "udp")
    service.settimeout(5)
    words = "-A INPUT -m conntrack --ctstate NEW"
    Iptables(Backend.NFT)(pair.server.netns, family, *words.split())
    flow = send(pair, family)
    service.recv(16)  # it may have waited for the neighbour's address
    server = in_namespace(pair.server.netns)
    for asked in (flow, flow.reversed()):
        (entry,) = server.run(partial(read_connections, [asked]))
        assert (entry.original, entry.reply) == (flow, flow.reversed())
        assert not entry.replied
    assert server.run(lambda: read_connections([Flow(family, "udp", flow.src, flow.dst)])) == ()


def test_asking_does_not_switch_tracking_on(pair: Pair, family: PacketFamily) -> None:
    flow = send(pair, family)
    packet = PacketSummary(family, "udp", flow.src, flow.dst, flow.sport, flow.dport)
    scene = NamespaceScene(in_namespace(pair.server.netns))
    scene.before([flow])
    seen = scene.look(Question(packet, packet, packet, (flow,)))
    assert (seen.connections, seen.before, seen.missing) == ((), (), ())
    send(pair, family)
    assert count(pair) == 0


def test_queues_are_those_that_programs_listen_on(pair: Pair) -> None:
    server = in_namespace(pair.server.netns)
    assert server.run(read_queues) == frozenset()
    with QueueListener(pair.server.netns, 7), QueueListener(pair.server.netns, 500):
        assert server.run(read_queues) == {7, 500}
    assert server.run(read_queues) == frozenset()
