"""How the kernel's events are tied to packets that wait, that cross a veth, or that others made."""

from __future__ import annotations

from ipttrace.event import KernelEvent
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


def test_an_echo_reply_that_raw_sockets_had_is_not_refused() -> None:
    kernel = Kernel()
    kernel.ties = Ties({0x10: "ping_rcv"}.get)
    kernel.ties.follow(QUEUE_SOCKET, 0)
    kernel.receive(PACKET, "lo")
    kernel.report()
    kernel.free(PACKET, "NO_SOCKET")
    assert kernel.ties.trails(owners(7))[7].drops == ()
