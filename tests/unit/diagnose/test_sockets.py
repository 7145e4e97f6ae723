"""The causes that lie in the sockets, by what the tables say of the same path."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ipttrace.diagnose import Case, diagnose
from ipttrace.diagnose.client import client_sees
from ipttrace.evidence import Crossing, ErrorSent, Scene, SocketEntry, Trail
from ipttrace.packet import PacketSummary
from ipttrace.path import (
    Change,
    Diagnosis,
    DropHop,
    Outcome,
    PacketPath,
    ResetHop,
    Role,
    SocketState,
)
from tests import builders as b
from tests.unit.diagnose.cases import texts
from tests.unit.diagnose.cases import why as why_of

DROP = DropHop(b.TIME, "NO_SOCKET", "tcp_v4_rcv")
RESET = ResetHop(b.TIME, "NO_SOCKET", "kernel")
RECEIVED = (Crossing(b.TIME, "eth0"),)
NOBODY = Trail(RECEIVED, drops=(DROP,), resets=(RESET,))
V6 = b.tcp(b.CLIENT6, b.SERVER6)


def listener(address: str = "0.0.0.0", **fields: Any) -> SocketEntry:
    known: dict[str, Any] = {"pid": 77, "process": "nginx", "backlog": 5} | fields
    return SocketEntry("tcp", SocketState.LISTEN, address, 8443, **known)


def case(
    outcome: Outcome,
    trail: Trail | None = NOBODY,
    *sockets: SocketEntry,
    packet: PacketSummary | None = None,
    replies: tuple[PacketPath, ...] = (),
    client: str | None = None,
    **scene: Any,
) -> Case:
    path = b.path(b.policy_hop("filter", "INPUT"), outcome=outcome, packet=packet)
    seen = Scene(**{"trail": trail, "sockets": sockets, **scene})
    return Case(path, replies, client, scene=seen)


def why(*words: Any, **fields: Any) -> Diagnosis:
    return diagnose(case(*words, **fields))


REFUSED, DELIVERED, DROPPED = Outcome.REFUSED, Outcome.DELIVERED, Outcome.DROPPED


def test_nobody_listens() -> None:
    diagnosis = why(REFUSED)
    assert diagnosis.cause == "no-listener"
    assert diagnosis.summary == (
        "refused: every chain let it in, but no socket takes tcp port 8443 here"
    )
    assert texts(diagnosis) == [
        "the kernel freed it: NO_SOCKET in tcp_v4_rcv",
        "the kernel's TCP sent a reset (NO_SOCKET)",
        "no REJECT rule was met",
        "no socket is on tcp port 8443",
    ]
    assert diagnosis.remedy[1] == (
        "to see what listens there (in namespace server): ss -tlnp 'sport = :8443'"
    )


@pytest.mark.parametrize(
    ("there", "packet", "shown"),
    [
        (listener("127.0.0.1"), None, "127.0.0.1:8443"),
        (listener("::", v6_only=True), None, "[::]:8443 (IPv6 only)"),
        (listener(interface="eth9"), None, "0.0.0.0:8443 (bound to eth9)"),
        (listener(), V6, "0.0.0.0:8443"),
        (listener("::1"), V6, "[::1]:8443"),
    ],
)
def test_the_port_is_open_elsewhere_here(
    there: SocketEntry, packet: PacketSummary | None, shown: str
) -> None:
    diagnosis = why(REFUSED, NOBODY, there, packet=packet)
    assert diagnosis.cause == "listener-other-address"
    assert f"only on {shown}, not on" in diagnosis.summary


@pytest.mark.parametrize(
    ("there", "packet"),
    [
        (listener(), None),
        (listener(b.SERVER), None),
        (listener("::"), None),
        (listener(interface="eth0"), None),
        (listener("::", v6_only=True), V6),
    ],
)
def test_a_listener_that_came_meanwhile_is_not_another_address(
    there: SocketEntry, packet: PacketSummary | None
) -> None:
    diagnosis = why(REFUSED, NOBODY, there, packet=packet)
    assert diagnosis.cause == "no-listener"
    assert "there is one now" in texts(diagnosis)[-1]


def test_other_namespaces_are_inferred_counted_and_the_first_is_likely() -> None:
    others = [replace(listener(), netns=name) for name in ("container abc", "namespace web")]
    one, two = (why(REFUSED, elsewhere=tuple(others[:n])) for n in (1, 2))
    assert {one.cause, two.cause} == {"listener-other-netns"}
    assert one.summary == (
        "refused: no socket takes tcp port 8443 here, but container abc of this host has it open: "
        "nginx (pid 77), listening on 0.0.0.0:8443"
    )
    assert "2 other namespaces of this host have it open; likely meant is container abc" in (
        two.summary
    )
    assert [each.strength for each in two.evidence[-2:]] == ["inferred", "inferred"]


def test_this_namespace_comes_before_others() -> None:
    other = replace(listener(), netns="namespace web")
    diagnosis = why(REFUSED, NOBODY, listener("127.0.0.1"), elsewhere=(other,))
    assert diagnosis.cause == "listener-other-address"
    assert any("namespace web" in text for text in texts(diagnosis))


def test_a_table_that_could_not_be_read_is_said() -> None:
    diagnosis = why(REFUSED, sockets=None)
    assert diagnosis.cause == "no-listener"
    assert "the socket table could not be read" in texts(diagnosis)[-1]


def refusal(**fields: Any) -> PacketPath:
    packet = b.tcp(b.SERVER, b.CLIENT, sport=8443, dport=40000, flags=("RST", "ACK"))
    return b.path(**{"packet": packet, "number": 2, "request": 1, "in_interface": None, **fields})


@pytest.mark.parametrize("trail", [None, Trail()], ids=["no tracefs", "not tied"])
def test_without_events_the_table_proves_it(trail: Trail | None) -> None:
    assert why(REFUSED, trail, replies=(refusal(),)).cause == "no-listener"
    assert why(REFUSED, trail, client="ECONNREFUSED").cause == "no-listener"
    found = why(REFUSED, trail, listener("127.0.0.1"), replies=(refusal(),))
    assert found.cause == "listener-other-address"


def test_without_events_and_with_a_listener_nothing_is_proved() -> None:
    assert why(REFUSED, None, listener(), replies=(refusal(),)).cause == "unknown"
    assert why(REFUSED, None, sockets=None, replies=(refusal(),)).cause == "unknown"


def test_a_reset_for_another_reason_is_quoted() -> None:
    reset = ResetHop(b.TIME, "TCP_FLAGS", "kernel")
    trail = Trail(RECEIVED, resets=(reset,))
    diagnosis = why(REFUSED, trail, listener(), packet=b.tcp(flags=("ACK",)))
    assert diagnosis.cause == "protocol-reset"
    assert "answered ACK with a reset: TCP_FLAGS, its flags" in diagnosis.summary
    assert texts(diagnosis)[-1] == "it is for nginx (pid 77), listening on 0.0.0.0:8443"


def test_an_older_kernel_tells_the_reason_with_the_death_alone() -> None:
    nobody = Trail(RECEIVED, drops=(DROP,), resets=(ResetHop(b.TIME, None, "kernel"),))
    assert why(REFUSED, nobody).cause == "no-listener"
    flags = replace(nobody, drops=(replace(DROP, reason="TCP_FLAGS"),))
    assert why(REFUSED, flags, listener()).cause == "protocol-reset"


def test_a_reset_that_only_its_packet_tells_of_has_no_reason() -> None:
    trail = Trail(RECEIVED, drops=(replace(DROP, reason="NOT_SPECIFIED"),))
    whole = case(REFUSED, trail, listener())
    reset = ResetHop(b.TIME, None, "kernel")
    diagnosis = diagnose(replace(whole, path=replace(whole.path, hops=(*whole.path.hops, reset))))
    assert diagnosis.cause == "protocol-reset"
    assert diagnosis.summary.endswith("answered SYN with a reset, and gives no reason")
    assert diagnose(whole).cause == "unknown"


FULL = listener(waiting=6)
OVERFLOW = {"TcpExt.ListenOverflows": 2, "TcpExt.ListenDrops": 2}
SEEN = Trail(RECEIVED)


@pytest.mark.parametrize("outcome", [DELIVERED, DROPPED])
def test_a_queue_that_is_full(outcome: Outcome) -> None:
    diagnosis = why(outcome, SEEN, FULL, counters=OVERFLOW)
    assert diagnosis.cause == "accept-queue-full"
    assert diagnosis.summary == (
        "dropped: nginx (pid 77) does not accept fast enough: 6 connections wait at 0.0.0.0:8443, "
        "and its backlog is 5"
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"counters": {"TcpExt.ListenDrops": 2}},
        {"counters": None},
        {"counters": OVERFLOW, "replies": (b.reply_path(),)},
        {"counters": OVERFLOW, "packet": b.tcp(flags=("ACK",))},
        {"counters": OVERFLOW, "packet": b.udp()},
        {"counters": OVERFLOW, "sockets": (listener(waiting=5),)},
        {"counters": OVERFLOW, "sockets": (replace(FULL, address="127.0.0.1"),)},
        {"counters": OVERFLOW, "trail": Trail(RECEIVED, drops=(replace(DROP, reason="X"),))},
    ],
    ids=["other drops", "no counters", "answered", "no SYN", "UDP", "room", "other", "killed"],
)
def test_a_queue_is_not_called_full_without_its_proof(fields: dict[str, Any]) -> None:
    fields = {"trail": SEEN, "sockets": (FULL,), **fields}
    trail = fields.pop("trail")
    assert why(DELIVERED, trail, **fields).cause != "accept-queue-full"


def test_a_killing_rule_comes_before_a_full_queue() -> None:
    drop = b.rule_hop("filter", "INPUT", 1, "-j DROP")
    path = b.path(drop, outcome=DROPPED)
    scene = Scene(trail=SEEN, sockets=(FULL,), counters=OVERFLOW)
    assert diagnose(Case(path, scene=scene)).cause == "rule-drop"


def test_who_took_it_is_named() -> None:
    diagnosis = why(DELIVERED, SEEN, listener(), listener(b.SERVER, pid=78, process="web"))
    assert diagnosis.cause == "delivered"
    assert diagnosis.summary == (
        f"delivered to web (pid 78), listening on {b.SERVER}:8443: no rule stood in its way"
    )


def test_the_connection_it_belongs_to_took_it() -> None:
    remote = (b.CLIENT, 40000)
    mine = replace(
        listener(b.SERVER), state=SocketState.ESTABLISHED, remote=remote, pid=79, backlog=None
    )
    acks = why(DELIVERED, SEEN, listener(), mine, packet=b.tcp(flags=("ACK",)))
    assert "nginx (pid 79), connected at" in acks.summary
    assert "nginx (pid 77), listening" in why(DELIVERED, SEEN, listener(), mine).summary


def test_no_socket_no_answer_no_claim() -> None:
    diagnosis = why(DELIVERED, SEEN)
    assert (diagnosis.cause, diagnosis.summary) == (
        "unknown",
        "let in by every chain, but no socket is seen that takes tcp port 8443",
    )
    assert why(DELIVERED, SEEN, client="CONNECTED").cause == "delivered"
    assert why(DELIVERED, SEEN, replies=(b.reply_path(),)).cause == "delivered"


def test_a_watch_does_not_claim_to_know_who_took_it() -> None:
    known = case(DELIVERED, SEEN, sockets=None)
    seen = replace(known, path=replace(known.path, role=Role.OBSERVED))
    told = "let in: no rule stood in its way (who took it was not looked at)"
    assert diagnose(seen).summary == told
    assert diagnose(known).summary.endswith("in its way")
    echo = replace(seen, path=replace(seen.path, packet=b.icmp()))
    assert diagnose(echo).summary.endswith("in its way")


def test_an_echo_is_answered_by_the_kernel() -> None:
    reply = b.path(packet=b.icmp(b.SERVER, b.CLIENT, kind=0), number=2, request=1)
    diagnosis = why(DELIVERED, SEEN, packet=b.icmp(), replies=(reply,), sockets=None)
    assert diagnosis.summary.startswith("delivered, and the kernel answered the echo")
    silent = why(DELIVERED, SEEN, packet=b.icmp(), sockets=None)
    assert silent.summary == "delivered: no rule stood in its way"


def test_a_request_that_the_listener_dropped_is_doubted() -> None:
    diagnosis = why(DELIVERED, SEEN, listener(), counters={"TcpExt.ListenDrops": 1})
    assert texts(diagnosis) == ["TcpExt.ListenDrops rose by 1: the listener may have dropped it"]


UDP_DROP = replace(DROP, location="__udp4_lib_rcv")


def test_a_port_unreachable_is_told() -> None:
    trail = Trail(RECEIVED, drops=(UDP_DROP,), errors=(ErrorSent(b.TIME, 3, 3),))
    diagnosis = why(REFUSED, trail, packet=b.udp(), counters={"Udp.NoPorts": 1})
    assert diagnosis.cause == "no-listener"
    assert "the kernel made ICMP 3/3 for it" in texts(diagnosis)
    assert "Udp.NoPorts rose by 1" in texts(diagnosis)
    assert not any("rate limit" in text for text in texts(diagnosis))


def test_an_error_that_was_held_back_is_told_and_what_it_means_for_the_client() -> None:
    trail = Trail(RECEIVED, drops=(UDP_DROP,))
    asked = case(REFUSED, trail, packet=b.udp(), counters={"Icmp.OutRateLimitHost": 1})
    diagnosis = diagnose(asked)
    assert any("rate limit held its ICMP error back" in text for text in texts(diagnosis))
    told = replace(asked.path, diagnosis=diagnosis)
    assert client_sees(told) == "a client sees a timeout"
    assert client_sees(asked.path) == "a client sees ECONNREFUSED"


@pytest.mark.parametrize(
    ("flags", "sees"),
    [
        (("SYN",), "a client sees ECONNREFUSED"),
        (("ACK",), "a client sees ECONNRESET"),
        (("RST",), None),
    ],
)
def test_what_a_refusal_does_to_the_client(flags: tuple[str, ...], sees: str | None) -> None:
    assert client_sees(case(REFUSED, packet=b.tcp(flags=flags)).path) == sees


def caught(src: str, dst: str) -> PacketPath:
    """Return the way of a packet made here that a rule in OUTPUT sent to 127.0.0.1."""
    rule = "-p tcp --dport 1111 -j DNAT --to-destination 127.0.0.1:80"
    changes = (Change("dst", dst, "127.0.0.1"), Change("dport", 1111, 80))
    hops = (b.rule_hop("nat", "OUTPUT", 1, rule, *changes), b.policy_hop("filter", "INPUT"))
    return b.path(*hops, packet=b.tcp(src, dst, dport=1111), in_interface=None)


def test_a_packet_for_another_host_that_a_rule_in_output_kept_here() -> None:
    diagnosis = why_of(caught("198.51.100.1", "198.51.100.2"))
    assert "changed dst 198.51.100.2 -> 127.0.0.1, dport 1111 -> 80" in diagnosis.summary
    assert diagnosis.summary.endswith("; it was for 198.51.100.2:1111, and never left this host")
    assert diagnosis.remedy == (
        "if that is another host, let nat/OUTPUT 1 match this host's own addresses only (-d)",
    )


@pytest.mark.parametrize(
    ("src", "dst"), [("198.51.100.1", "198.51.100.1"), ("127.0.0.1", "127.0.0.2")]
)
def test_a_packet_for_this_host_that_a_rule_in_output_sent_elsewhere_here(
    src: str, dst: str
) -> None:
    diagnosis = why_of(caught(src, dst))
    assert "never left" not in diagnosis.summary
    assert diagnosis.remedy == ()
