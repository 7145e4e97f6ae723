"""Which packet is the probe, which answers it, and what an answer says of its fate."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from ipttrace.netfilter import PacketFamily
from ipttrace.packet import IcmpHeader, PacketSummary
from ipttrace.path import Outcome, PacketPath, Role
from ipttrace.roles import Sent, assign_roles, fits

SYN = PacketSummary(
    PacketFamily.IPV4,
    "tcp",
    "203.0.113.7",
    "198.51.100.1",
    40000,
    8443,
    ip_id=7,
    length=60,
    tcp_flags=("SYN",),
    tcp_seq=100,
)
RST = PacketSummary(
    PacketFamily.IPV4,
    "tcp",
    "198.51.100.1",
    "203.0.113.7",
    8443,
    40000,
    length=40,
    tcp_flags=("RST", "ACK"),
    tcp_seq=0,
    tcp_ack=101,
)
UNREACHABLE = PacketSummary(
    PacketFamily.IPV4,
    "icmp",
    "198.51.100.1",
    "203.0.113.7",
    icmp=IcmpHeader(3, 3),
    quoted=SYN,
)


SYN_ACK = replace(RST, tcp_flags=("SYN", "ACK"))


def path(number: int, packet: PacketSummary, **fields: object) -> PacketPath:
    known = {"netns": None, "role": Role.OBSERVED, "time": float(number)} | fields
    return PacketPath(number, packet=packet, **known)  # type: ignore[arg-type]


def assigned(
    *paths: PacketPath, sent: tuple[PacketSummary, ...] = (SYN,), results: tuple[str, ...] = ()
) -> tuple[PacketPath, ...]:
    flows = {each.id: (each.packet.flow,) for each in paths}
    return assign_roles(paths, flows, Sent(sent, results, None, 9.0), count(100))


def test_only_the_first_packet_that_fits_is_the_probe() -> None:
    resent = replace(SYN, ip_id=8)
    roles = [each.role for each in assigned(path(1, SYN), path(2, resent))]
    assert roles == [Role.PROBE, Role.OBSERVED]


def test_two_probes_of_one_flow_are_told_apart_by_their_sequence_numbers() -> None:
    other = replace(SYN, tcp_seq=999, ip_id=8)
    first, second = assigned(path(1, other), path(2, SYN), sent=(SYN, other))
    assert (first.role, second.role) == (Role.PROBE, Role.PROBE)


def test_a_packet_of_somebody_else_is_left_out() -> None:
    (unseen,) = assigned(path(1, replace(SYN, sport=41000)))
    assert unseen.role is Role.PROBE
    assert (unseen.id, unseen.hops, unseen.outcome) == (100, (), Outcome.LOST)


def test_other_packets_of_the_probes_flow_and_client_are_observed() -> None:
    again = replace(SYN, ip_id=8)
    elsewhere = replace(SYN, dst="198.51.100.9", ip_id=9)
    late = replace(RST, src="198.51.100.9")
    found = assigned(path(1, SYN), path(2, again), path(3, elsewhere), path(4, late))
    assert [(each.id, each.role) for each in found] == [
        (1, Role.PROBE),
        (2, Role.OBSERVED),
        (3, Role.OBSERVED),
    ]


def test_the_answer_to_another_client_of_the_service_is_left_out() -> None:
    other = replace(RST, dport=41000)
    found = assigned(path(1, SYN), path(2, RST), path(3, other))
    assert [each.id for each in found] == [1, 2]


def test_a_copy_whose_destination_was_rewritten_is_observed() -> None:
    copy = replace(SYN, dst="203.0.113.9", ip_id=8)
    flows = {1: (SYN.flow,), 2: (copy.flow, replace(SYN.flow, dport=1))}
    sent = Sent((SYN,), (), None, 9.0)
    found = assign_roles((path(1, SYN), path(2, copy)), flows, sent, count(100))
    assert [each.role for each in found] == [Role.PROBE, Role.OBSERVED]


@pytest.mark.parametrize("answer", [RST, UNREACHABLE])
def test_a_refusal_made_here_makes_a_delivered_probe_refused(answer: PacketSummary) -> None:
    probe, reply = assigned(path(1, SYN, outcome=Outcome.DELIVERED), path(2, answer))
    assert probe.outcome is Outcome.REFUSED
    assert (reply.role, reply.request) == (Role.REPLY, 1)


def test_a_reset_from_outside_says_nothing_about_this_host() -> None:
    probe, reply = assigned(
        path(1, SYN, outcome=Outcome.FORWARDED), path(2, RST, in_interface="eth1")
    )
    assert (probe.outcome, reply.role) == (Outcome.FORWARDED, Role.REPLY)


def test_the_clients_refusal_counts_where_no_answer_was_traced() -> None:
    (probe,) = assigned(path(1, SYN, outcome=Outcome.DELIVERED), results=("ECONNREFUSED",))
    assert probe.outcome is Outcome.REFUSED


def test_an_answer_to_the_flow_after_nat_is_an_answer() -> None:
    redirected = replace(SYN, dport=8445)
    paths = (path(1, redirected), path(2, RST))
    flows = {1: (redirected.flow, SYN.flow), 2: (RST.flow,)}
    reply = assign_roles(paths, flows, Sent((redirected,)), count(100))[1]
    assert (reply.role, reply.request) == (Role.REPLY, 1)


def test_an_error_about_another_packet_is_left_out() -> None:
    other = replace(UNREACHABLE, quoted=replace(SYN, sport=41000))
    assert [each.id for each in assigned(path(1, SYN), path(2, other))] == [1]


def test_an_answer_is_not_older_than_its_request() -> None:
    assert assigned(path(1, SYN, time=5.0), path(2, RST, time=4.0))[1].role is Role.OBSERVED


def test_one_packet_in_two_namespaces_is_one_journey() -> None:
    first, second, reply = assigned(
        path(1, SYN, netns="router"), path(2, SYN, netns="server"), path(3, RST, netns="server")
    )
    assert [(each.journey, each.leg) for each in (first, second, reply)] == [(1, 1), (1, 2), (2, 1)]


@pytest.mark.parametrize(
    "other",
    [
        replace(SYN, dst="198.51.100.9"),
        replace(SYN, dport=1),
        replace(SYN, tcp_seq=5),
        replace(SYN, ip_id=5),
        replace(SYN, tcp_flags=("ACK",)),
    ],
)
def test_each_known_field_tells_a_probe_from_another_packet(other: PacketSummary) -> None:
    assert fits(SYN, SYN)
    assert not fits(SYN, other)


def test_a_payload_is_compared_as_far_as_it_was_captured() -> None:
    sent = replace(SYN, protocol="udp", tcp_flags=(), tcp_seq=None, payload=b"0123456789abcdef")
    assert fits(sent, replace(sent, payload=b"0123456789ab"))
    assert not fits(sent, replace(sent, payload=b"0123x"))


def test_the_end_of_a_connection_that_was_begun_is_no_refusal() -> None:
    """The program behind the listener may reset it at once, and SYNPROXY's client may be reset."""
    syn = path(1, SYN, outcome=Outcome.DELIVERED)
    took, reset = path(2, SYN_ACK), path(3, RST)
    assert assigned(syn, took, reset)[0].outcome is Outcome.DELIVERED
    assert assigned(syn, reset)[0].outcome is Outcome.REFUSED


def test_udp_may_be_answered_from_another_address() -> None:
    """A service that is bound to none answers from where the way back leads out; TCP never does."""
    for protocol, role in (("udp", Role.REPLY), ("tcp", Role.OBSERVED)):
        asked = replace(SYN, protocol=protocol, tcp_flags=())
        answer = replace(RST, protocol=protocol, tcp_flags=(), src="192.0.2.1")
        known = assigned(path(1, asked), path(2, answer), sent=(asked,))
        found = {each.packet.src: each.role for each in known}
        assert found.get("192.0.2.1", Role.OBSERVED) is role
        other = replace(answer, dport=40001)
        known = assigned(path(1, asked), path(2, other), sent=(asked,))
        assert all(each.role is not Role.REPLY for each in known)
