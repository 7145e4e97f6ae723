"""What this host says no to is no delivery, though no rule stood in its way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.packet import PacketSummary
from ipttrace.path import Outcome, PacketPath, Role
from ipttrace.refusals import refused_by
from tests import builders as b

SYN = b.tcp(dport=81, tcp_seq=0xFFFFFFFF, tcp_ack=0)
RESET = b.tcp(b.SERVER, b.CLIENT, sport=81, dport=40000, flags=("RST", "ACK"), tcp_ack=0)
DATAGRAM = b.udp(dport=53)


def came_in(packet: PacketSummary, number: int = 1, **fields: object) -> PacketPath:
    hop = b.policy_hop("filter", "INPUT")
    return replace(b.path(hop, packet=packet, number=number, role=Role.OBSERVED), **fields)  # type: ignore[arg-type]


def made_here(packet: PacketSummary, number: int = 9, later: float = 0.001) -> PacketPath:
    hop = b.policy_hop("filter", "OUTPUT")
    path = b.path(hop, packet=packet, number=number, outcome=Outcome.SENT, role=Role.OBSERVED)
    return replace(path, time=path.time + later)


def unreachable(quoted: PacketSummary | None, to: str = b.CLIENT) -> PacketSummary:
    return b.icmp(b.SERVER, to, kind=3, code=3, quoted=quoted)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (SYN, RESET),
        (DATAGRAM, unreachable(DATAGRAM)),
        (DATAGRAM, unreachable(None)),
        (b.icmp(), unreachable(None)),
    ],
    ids=["reset", "icmp", "cut off by nft", "protocol"],
)
def test_a_packet_is_refused_by_the_answer_to_it(
    asked: PacketSummary, answer: PacketSummary
) -> None:
    refusal = made_here(answer)
    assert refused_by([came_in(asked), refusal]) == {1: refusal}


def test_the_address_after_nat_counts() -> None:
    before = came_in(b.tcp(dport=8445, tcp_seq=1), last_packet=b.tcp(dport=8443))
    reset = made_here(b.tcp(b.SERVER, b.CLIENT, sport=8443, dport=40000, flags=("RST", "ACK")))
    assert refused_by([before, reset]) == {1: reset}


@pytest.mark.parametrize(
    ("asked", "answer", "later"),
    [
        (SYN, replace(RESET, tcp_ack=7), 0.001),
        (b.tcp(dport=81, flags=("ACK",), tcp_seq=5), RESET, 0.001),
        (SYN, RESET, 1.0),
        (SYN, RESET, -0.001),
        (SYN, replace(RESET, tcp_flags=("SYN", "ACK")), 0.001),
        (replace(DATAGRAM, ip_id=7), unreachable(DATAGRAM), 0.001),
        (DATAGRAM, b.icmp(b.SERVER, b.CLIENT, kind=11, quoted=DATAGRAM), 0.001),
        (DATAGRAM, unreachable(None, "203.0.113.99"), 0.001),
        (SYN, unreachable(None), 0.001),
    ],
)
def test_other_answers_refuse_nothing(
    asked: PacketSummary, answer: PacketSummary, later: float
) -> None:
    assert refused_by([came_in(asked), made_here(answer, later=later)]) == {}


def test_an_error_that_may_be_about_two_flows_is_about_none() -> None:
    both = [came_in(DATAGRAM), came_in(b.udp(dport=54), 2)]
    assert refused_by([*both, made_here(unreachable(None))]) == {}


def test_what_is_forwarded_or_of_another_namespace_is_not_refused() -> None:
    answer = made_here(RESET)
    assert refused_by([came_in(SYN, outcome=Outcome.FORWARDED), answer]) == {}
    assert refused_by([came_in(SYN, netns="other"), answer]) == {}
    assert refused_by([came_in(SYN), replace(answer, in_interface="eth1")]) == {}


LOST = came_in(DATAGRAM, outcome=Outcome.LOST)
EXCEEDED = b.icmp(b.SERVER, b.CLIENT, kind=11, quoted=DATAGRAM)


@pytest.mark.parametrize("kind", [3, 4, 5, 11, 12])
def test_what_vanished_is_explained_by_any_error_about_it(kind: int) -> None:
    error = made_here(b.icmp(b.SERVER, b.CLIENT, kind=kind, quoted=DATAGRAM))
    assert refused_by([LOST, error]) == {1: error}
    syn = replace(LOST, packet=SYN)
    about_syn = made_here(b.icmp(b.SERVER, b.CLIENT, kind=kind, quoted=SYN))
    assert refused_by([syn, about_syn]) == {1: about_syn}


def test_what_is_no_error_of_this_host_explains_no_loss() -> None:
    echo = made_here(b.icmp(b.SERVER, b.CLIENT, kind=0))
    assert refused_by([LOST, echo, made_here(RESET, 8)]) == {}
    assert refused_by([LOST, replace(made_here(EXCEEDED), in_interface="eth1")]) == {}
    assert refused_by([replace(LOST, in_interface=None), made_here(EXCEEDED)]) == {}


def test_the_id_that_is_left_of_a_quotation_tells_which_of_several_it_is() -> None:
    """Nft shows 20 bytes behind the network header: of a quoted header no addresses."""
    both = [
        replace(LOST, packet=replace(b.udp(dport=port), ip_id=port), id=port) for port in (53, 54)
    ]
    head = bytes((0x45, *bytes(19))) + bytes((11, 0, *bytes(6))) + bytes((0x45, 0, 0, 0, 0, 54))
    error = made_here(replace(EXCEEDED, quoted=None, head=head))
    assert refused_by([*both, error]) == {54: error}
