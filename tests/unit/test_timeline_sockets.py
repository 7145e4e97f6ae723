"""The hops and the fate of packets that sockets took, or had no room for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ipttrace.diagnose import Case, diagnose
from ipttrace.evidence import Crossing, Route, Scene, SocketEntry, Trail
from ipttrace.netfilter import Verdict
from ipttrace.path import Decision, DropHop, Outcome, ResetHop, RouteHop, SocketHop, SocketState
from ipttrace.takers import taking
from ipttrace.timeline import with_evidence
from tests import builders as b

SEEN = Trail((Crossing(b.TIME, "eth0"),))
LISTEN, ESTABLISHED = SocketState.LISTEN, SocketState.ESTABLISHED
MOST = {"TcpExt.ListenOverflows": 1}


def entry(address: str = "0.0.0.0", **fields: Any) -> SocketEntry:
    known: dict[str, Any] = {"pid": 77, "backlog": 1} | fields
    return SocketEntry("tcp", known.pop("state", LISTEN), address, 8443, **known)


def test_a_full_queue_drops_what_the_chains_delivered() -> None:
    scene = Scene(trail=SEEN, sockets=(entry(waiting=2),), counters=MOST)
    path = with_evidence(b.path(), scene)
    assert path.outcome is Outcome.DROPPED
    assert [hop.pid for hop in path.hops if isinstance(hop, SocketHop)] == [77]
    assert [h.decision for h in path.hops if isinstance(h, RouteHop)] == [Decision.LOCAL]


@pytest.mark.parametrize("waiting", [0, 1])
def test_a_queue_with_room_delivers(waiting: int) -> None:
    scene = Scene(trail=SEEN, sockets=(entry(waiting=waiting),), counters=MOST)
    assert with_evidence(b.path(), scene).outcome is Outcome.DELIVERED


def test_any_full_listener_of_a_shared_port_may_have_been_chosen() -> None:
    sockets = (entry(waiting=0), entry(waiting=2))
    scene = Scene(trail=SEEN, sockets=sockets, counters=MOST)
    assert with_evidence(b.path(), scene).outcome is Outcome.DROPPED
    assert with_evidence(b.path(), scene, [b.reply_path()]).outcome is Outcome.DELIVERED


CONNECTION = entry(b.SERVER, state=ESTABLISHED, remote=(b.CLIENT, 40000), backlog=None)
OTHERS = replace(CONNECTION, remote=(b.CLIENT, 40001))


@pytest.mark.parametrize(
    ("sockets", "flags", "index"),
    [
        ((entry(), entry(b.SERVER)), ("SYN",), 1),
        ((entry("::"), entry("192.0.2.9")), ("SYN",), 0),
        ((entry("::", v6_only=True),), ("SYN",), None),
        ((entry(), CONNECTION), ("SYN",), 0),
        ((entry(), CONNECTION), ("ACK",), 1),
        ((entry(), OTHERS), ("ACK",), 0),
        ((entry(interface="eth1"), entry()), ("SYN",), 1),
        ((entry(), entry(interface="eth0")), ("SYN",), 1),
    ],
)
def test_the_kernel_takes_the_most_particular_socket(
    sockets: tuple[SocketEntry, ...], flags: tuple[str, ...], index: int | None
) -> None:
    expected = None if index is None else sockets[index]
    assert taking(sockets, b.tcp(flags=flags), "eth0") == expected


def test_a_packet_made_here_comes_to_its_socket_by_lo() -> None:
    assert taking([entry(interface="lo")], b.tcp()) is not None
    assert taking([entry(interface="eth0")], b.tcp()) is None


def test_without_events_the_table_and_the_answer_tell_what_the_kernel_did() -> None:
    reset = b.path(
        packet=b.tcp(b.SERVER, b.CLIENT, sport=8443, dport=40000, flags=("RST", "ACK")),
        number=2,
        request=1,
        in_interface=None,
    )
    path = b.path(outcome=Outcome.REFUSED)
    told = with_evidence(path, Scene(sockets=(entry("127.0.0.1"),)), [reset])
    assert [h.state for h in told.hops if isinstance(h, SocketHop)] == [SocketState.NONE]
    assert [h.by for h in told.hops if isinstance(h, ResetHop)] == ["kernel"]
    taken = with_evidence(path, Scene(sockets=(entry(),)), [reset])
    assert not [h for h in taken.hops if isinstance(h, SocketHop)]


def test_the_kernels_reset_is_not_told_twice() -> None:
    reset = b.path(packet=b.tcp(flags=("RST",)), number=2, request=1, in_interface=None)
    own = ResetHop(b.TIME, "TCP_FLAGS", "kernel")
    scene = Scene(trail=replace(SEEN, resets=(own,)), sockets=())
    told = with_evidence(b.path(outcome=Outcome.REFUSED), scene, [reset])
    assert [hop for hop in told.hops if isinstance(hop, ResetHop)] == [own]
    assert not [h for h in told.hops if isinstance(h, SocketHop)]


@pytest.mark.parametrize(
    ("made_in", "outcome", "by"),
    [(None, Outcome.REFUSED, ["kernel"]), ("eth1", Outcome.DROPPED, []), ("", Outcome.DROPPED, [])],
)
def test_a_reset_made_here_tells_of_a_refusal_that_linux_6_1_does_not_tell(
    made_in: str | None, outcome: Outcome, by: list[str]
) -> None:
    """tcp_send_reset is of open connections alone there; a SYN into FIN_WAIT2 is just freed."""
    freed = DropHop(b.TIME, "NOT_SPECIFIED", "tcp_v4_rcv")
    scene = Scene(trail=replace(SEEN, drops=(freed,)), sockets=(entry(),))
    reset = b.path(packet=b.tcp(flags=("RST", "ACK")), number=2, request=1, in_interface=made_in)
    told = with_evidence(b.path(), scene, [reset] if made_in != "" else [])
    assert told.outcome is outcome
    assert [hop.by for hop in told.hops if isinstance(hop, ResetHop)] == by


@pytest.mark.parametrize(
    ("dst", "kind"), [("198.51.100.255", "broadcast"), ("224.0.0.1", "multicast")]
)
def test_a_listener_takes_no_connection_to_many(dst: str, kind: str) -> None:
    scene = Scene(trail=SEEN, sockets=(entry(),), route=Route(kind))
    path = b.path(packet=b.tcp(dst=dst, flags=("SYN",)))
    told = with_evidence(path, scene)
    assert told.outcome is Outcome.DROPPED
    assert not [hop for hop in told.hops if isinstance(hop, SocketHop)]
    assert [h.decision for h in told.hops if isinstance(h, RouteHop)] == [Decision.LOCAL]
    diagnosis = diagnose(Case(told, scene=scene))
    assert (diagnosis.cause, f"is a {kind} address" in diagnosis.summary) == ("kernel-drop", True)


def test_what_synproxy_took_came_to_no_socket() -> None:
    rule = b.rule_hop("filter", "INPUT", 1, "-p tcp -j SYNPROXY", verdict=Verdict.STOLEN)
    scene = Scene(trail=SEEN, sockets=(entry(),))
    told = with_evidence(b.path(rule), scene)
    assert not [hop for hop in told.hops if isinstance(hop, SocketHop)]
    diagnosis = diagnose(Case(told, scene=scene))
    assert diagnosis.summary.startswith("taken by filter/INPUT 1: SYNPROXY answers in the place of")
    assert diagnosis.rules == (rule.ref,)
