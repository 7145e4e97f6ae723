"""How the kernel's events are tied to packets that wait, that cross a veth, or that others made."""

from __future__ import annotations

import sys
from socket import AF_INET

import pytest

from ipttrace.event import KernelEvent
from ipttrace.netfilter import PacketFamily
from ipttrace.packet import Flow
from ipttrace.path import Strength
from ipttrace.ties import Report, Ties

QUEUE_SOCKET = 0xFFFF888100D87000
PACKET, QUESTION, ERROR, FOREIGN = 0xA1, 0xA2, 0xA3, 0xA4
NEXT_HOST = bytes([203, 0, 113, 99])
THREAD = 77


class Kernel:
    """Writes events, each a microsecond after the one before."""

    def __init__(self) -> None:
        self.ties = Ties(lambda address: f"function_{address:x}")
        self.ties.follow(QUEUE_SOCKET, 0)
        self.time = 1000.0
        self.thread = 0
        """0: the events are of a softirq."""

    def __call__(self, event: str, /, **fields: int | str | bytes) -> None:
        self.time += 1e-6
        softirq = not self.thread
        self.ties.feed([KernelEvent(self.time, 0, self.thread, softirq, event, fields)])

    def receive(self, address: int, name: str) -> None:
        self("netif_receive_skb", skbaddr=address, name=name)

    def report(self) -> None:
        self("sk_data_ready", skaddr=QUEUE_SOCKET)

    def queue(self, address: int, name: str) -> None:
        self("net_dev_queue", skbaddr=address, name=name)

    def free(self, address: int, reason: str) -> None:
        self("kfree_skb", skbaddr=address, reason=reason, location=0x10)

    def wait(self, name: str) -> None:
        self("neigh_event_send_done", family=2, dev=name, primary_key4=NEXT_HOST)


def owners(*paths: int) -> dict[Report, int]:
    """Say of which path each message is a report."""
    return {(0, number): path for number, path in enumerate(paths)}


def forwarded_and_waiting() -> Kernel:
    kernel = Kernel()
    kernel.receive(PACKET, "eth0")
    kernel.report()
    kernel.queue(QUESTION, "eth1")
    kernel.wait("eth1")
    return kernel


def test_the_question_for_a_neighbour_is_not_the_packet_that_waits() -> None:
    trail = forwarded_and_waiting().ties.trails(owners(1))[1]
    assert trail.queued == ()
    assert [(wait.interface, wait.address) for wait in trail.waits] == [("eth1", "203.0.113.99")]


def test_a_question_that_was_dropped_is_not_the_packet_either() -> None:
    kernel = Kernel()
    kernel.receive(PACKET, "eth0")
    kernel.report()
    kernel.free(QUESTION, "TC_EGRESS")
    kernel.wait("eth1")
    trail = kernel.ties.trails(owners(1))[1]
    assert (trail.drops, len(trail.waits)) == ((), 1)


def test_a_packet_that_waited_dies_when_its_own_buffer_is_freed() -> None:
    kernel = forwarded_and_waiting()
    kernel.receive(FOREIGN, "eth0")
    kernel.free(FOREIGN, "NEIGH_FAILED")
    assert kernel.ties.trails(owners(1))[1].drops == ()
    kernel.free(PACKET, "NEIGH_FAILED")
    (drop,) = kernel.ties.trails(owners(1))[1].drops
    assert (drop.reason, drop.basis) == ("NEIGH_FAILED", Strength.REPORTED)


def test_a_packet_that_was_sent_after_all_does_not_die_of_its_buffers_next_use() -> None:
    kernel = forwarded_and_waiting()
    kernel.receive(FOREIGN, "eth0")
    kernel.queue(PACKET, "eth1")
    kernel.free(PACKET, "NEIGH_FAILED")
    trail = kernel.ties.trails(owners(1))[1]
    assert trail.drops == ()
    assert [crossing.interface for crossing in trail.queued] == ["eth1"]


def test_what_was_received_before_is_not_the_packet_that_is_made_here() -> None:
    kernel = Kernel()
    kernel.receive(FOREIGN, "eth0")
    kernel("icmp_send", skbaddr=PACKET, type=3, code=1)
    kernel.report()
    kernel.queue(ERROR, "lo")
    trail = kernel.ties.trails(owners(2), made_here={2})[2]
    assert trail.received == ()
    assert [crossing.interface for crossing in trail.queued] == ["lo"]
    assert kernel.ties.trails(owners(2))[2].received != ()


def test_what_was_freed_before_is_not_the_packet_that_reports() -> None:
    kernel = Kernel()
    kernel.receive(FOREIGN, "eth0")
    kernel.free(FOREIGN, "NO_TX_TARGET")
    kernel.report()
    trail = kernel.ties.trails(owners(2))[2]
    assert (trail.received, trail.drops) == ((), ())


def test_an_unreported_packet_of_ours_is_followed_through_a_veth() -> None:
    kernel = Kernel()
    kernel.ties.expect(threads=[THREAD])
    since = kernel.time
    kernel.thread = THREAD
    kernel.queue(PACKET, "veth7")
    kernel.thread = 0
    kernel.receive(FOREIGN, "eth0")
    kernel.free(FOREIGN, "NO_SOCKET")
    kernel.receive(PACKET, "eth0")
    kernel.free(PACKET, "TC_INGRESS")
    trail = kernel.ties.unreported(None, THREAD, since)
    assert trail is not None
    assert [drop.reason for drop in trail.drops] == ["TC_INGRESS"]
    assert [crossing.interface for crossing in trail.received] == ["eth0"]


def sockaddr(address: bytes, port: int) -> bytes:
    """Return a struct sockaddr_in as the event holds it."""
    return (AF_INET.to_bytes(2, sys.byteorder) + port.to_bytes(2) + address).ljust(28, b"\0")


def gone_to_an_unseen_namespace() -> Kernel:
    """A router forwards; who receives behind eth1 has an interface of a name that is filtered."""
    kernel = Kernel()
    kernel.receive(PACKET, "eth0")
    kernel.report()
    kernel.queue(PACKET, "eth1")
    return kernel


def test_what_befalls_a_packet_in_the_next_namespace_is_not_told_of_this_one() -> None:
    kernel = gone_to_an_unseen_namespace()
    kernel("tcp_send_reset", skbaddr=PACKET, reason="NO_SOCKET")
    kernel("icmp_send", skbaddr=PACKET, type=3, code=3)
    kernel.free(PACKET, "NO_SOCKET")
    trail = kernel.ties.trails(owners(1))[1]
    assert (trail.drops, trail.resets, trail.errors) == ((), (), ())
    assert [crossing.interface for crossing in trail.queued] == ["eth1"]


def test_an_interface_may_drop_what_was_given_to_it() -> None:
    kernel = gone_to_an_unseen_namespace()
    kernel.free(PACKET, "QDISC_DROP")
    assert [drop.reason for drop in kernel.ties.trails(owners(1))[1].drops] == ["QDISC_DROP"]
    kernel = Kernel()
    kernel.ties = Ties(lambda _: "veth_xmit")
    kernel.ties.follow(QUEUE_SOCKET, 0)
    kernel.receive(PACKET, "eth0")
    kernel.report()
    kernel.queue(PACKET, "eth1")
    kernel.free(PACKET, "NOT_SPECIFIED")
    assert [drop.location for drop in kernel.ties.trails(owners(1))[1].drops] == ["veth_xmit"]


def test_a_packet_that_comes_in_again_may_be_answered() -> None:
    kernel = gone_to_an_unseen_namespace()
    kernel.report()
    kernel("tcp_send_reset", skbaddr=PACKET, reason="NO_SOCKET")
    assert len(kernel.ties.trails(owners(1, 1))[1].resets) == 1


OUR_FLOW = Flow(PacketFamily.IPV4, "tcp", "198.51.100.9", "198.51.100.1", 40000, 8443)


@pytest.mark.parametrize(
    ("client", "port", "resets"),
    [
        (bytes([198, 51, 100, 9]), 40000, 1),
        (bytes([192, 0, 2, 1]), 40000, 0),
        (bytes([198, 51, 100, 9]), 40001, 0),
        (bytes(4), 0, 1),
    ],
    ids=["ours", "another host", "another port", "not told"],
)
def test_a_reset_about_a_stranger_is_not_ours(client: bytes, port: int, resets: int) -> None:
    """It was received by an interface that we do not look at, while ours waited for a report."""
    kernel = Kernel()
    kernel.receive(PACKET, "eth0")
    kernel.report()
    kernel(
        "tcp_send_reset",
        skbaddr=FOREIGN,
        reason="NO_SOCKET",
        saddr=sockaddr(bytes(4), 9),
        daddr=sockaddr(client, port),
    )
    trail = kernel.ties.trails(owners(1), flows={1: (OUR_FLOW,)})[1]
    assert len(trail.resets) == resets


@pytest.mark.parametrize("name", ["fl0", "lo"])
def test_the_next_use_of_a_buffer_that_a_socket_took_is_no_death(name: str) -> None:
    """A socket that takes a packet frees it without an event; the next one received is there."""
    kernel = Kernel()
    kernel.ties.expect(interfaces=["eth0", "iptt0", "lo"])
    kernel.receive(PACKET, "iptt0")
    kernel.receive(PACKET, "eth0")
    kernel.report()
    kernel.receive(PACKET, name)
    kernel.free(PACKET, "NO_SOCKET")
    trail = kernel.ties.trails(owners(1))[1]
    assert (trail.drops, [each.interface for each in trail.received]) == ((), ["iptt0", "eth0"])


def test_a_reset_about_the_next_use_of_our_buffer_is_not_ours() -> None:
    kernel = Kernel()
    kernel.receive(PACKET, "eth0")
    kernel.report()
    for last in (9, 7):
        ends = {
            "saddr": sockaddr(bytes([198, 51, 100, 1]), 8443 if last == 9 else 99),
            "daddr": sockaddr(bytes([198, 51, 100, last]), 40000),
        }
        kernel("tcp_send_reset", skbaddr=PACKET, reason="NO_SOCKET", **ends)
    trail = kernel.ties.trails(owners(1), flows={1: (OUR_FLOW,)})[1]
    assert len(trail.resets) == 1


def test_an_icmp_error_about_a_stranger_is_not_ours() -> None:
    kernel = Kernel()
    kernel.receive(PACKET, "eth0")
    kernel.report()
    for last in (7, 9):
        ends = {"saddr": bytes([198, 51, 100, last]), "daddr": bytes([203, 0, 113, last])}
        kernel("icmp_send", skbaddr=FOREIGN, type=3, code=1, sport=0, dport=0, **ends)
    trail = kernel.ties.trails(owners(1), flows={1: (OUR_FLOW,)})[1]
    assert len(trail.errors) == 1


@pytest.mark.parametrize(
    ("function", "reason", "deaths"),
    [
        ("ping_rcv", "NO_SOCKET", 0),
        ("icmp_rcv", "NO_SOCKET", 0),  # this and the next two on Linux 6.1
        ("icmpv6_rcv", "NO_SOCKET", 0),
        ("icmpv6_rcv", "NOT_SPECIFIED", 0),
        ("icmp_rcv", "NOT_SPECIFIED", 1),
        ("icmpv6_rcv", "ICMP_CSUM", 1),
    ],
)
def test_an_echo_reply_that_raw_sockets_had_is_not_refused(
    function: str, reason: str, deaths: int
) -> None:
    kernel = Kernel()
    kernel.ties = Ties({0x10: function}.get)
    kernel.ties.follow(QUEUE_SOCKET, 0)
    kernel.receive(PACKET, "lo")
    kernel.report()
    kernel.free(PACKET, reason)
    assert len(kernel.ties.trails(owners(7))[7].drops) == deaths
