"""Where a packet's path shows what routing decided."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ipttrace.evidence import Crossing, Route, Scene, Trail
from ipttrace.netfilter import Basis
from ipttrace.path import (
    ChainHop,
    Change,
    Decision,
    DropHop,
    NatHop,
    Outcome,
    PacketPath,
    RouteHop,
    WireHop,
)
from ipttrace.timeline import with_evidence
from tests import builders as b

MAIN = Route("unicast", "eth1", "203.0.113.2", "main", "203.0.113.1")
LOCAL = Route("local", "lo", table="local")
PREROUTING, FORWARD, INPUT = (
    b.policy_hop("raw", "PREROUTING"),
    b.policy_hop("filter", "FORWARD"),
    b.policy_hop("filter", "INPUT"),
)


def routes(path: PacketPath, scene: Scene) -> list[tuple[Decision, str | None, str | None]]:
    """Return the decisions of a path, each with its table and gateway."""
    hops = with_evidence(path, scene).hops
    return [(hop.decision, hop.table, hop.via) for hop in hops if isinstance(hop, RouteHop)]


def kinds(path: PacketPath, scene: Scene) -> list[type]:
    """Return the kinds of a path's hops."""
    return [type(hop) for hop in with_evidence(path, scene).hops]


def test_a_decision_stands_before_the_chain_that_shows_it() -> None:
    forward = b.path(PREROUTING, FORWARD, outcome=Outcome.FORWARDED, out_interface="eth1")
    assert routes(forward, Scene(route=MAIN)) == [(Decision.FORWARD, "main", "203.0.113.2")]
    assert kinds(forward, Scene(route=MAIN))[:4] == [WireHop, ChainHop, RouteHop, ChainHop]
    local = b.path(PREROUTING, INPUT)
    assert routes(local, Scene(route=LOCAL)) == [(Decision.LOCAL, "local", None)]


def test_a_forwarded_packet_was_routed_before_postrouting() -> None:
    post = b.policy_hop("nat", "POSTROUTING")
    path = b.path(PREROUTING, post, outcome=Outcome.FORWARDED, out_interface="eth1")
    hops = with_evidence(path, Scene(route=MAIN)).hops
    (route,) = [hop for hop in hops if isinstance(hop, RouteHop)]
    assert (route.decision, route.out_interface) == (Decision.FORWARD, "eth1")
    assert hops.index(route) == hops.index(post) - 1


def test_a_packet_made_here_is_routed_anew_after_its_destination_changed() -> None:
    to_other = b.rule_hop(
        "nat", "OUTPUT", 1, "-j DNAT --to-destination 203.0.113.2", Change("dst", "a", "b")
    )
    end, post = b.policy_hop("filter", "OUTPUT"), b.policy_hop("mangle", "POSTROUTING")
    words: dict[str, Any] = {"outcome": Outcome.SENT, "in_interface": None, "out_interface": "eth1"}
    path = b.path(b.policy_hop("raw", "OUTPUT"), to_other, end, post, **words)
    hops = with_evidence(path, Scene(route=MAIN)).hops
    first, anew = (hop for hop in hops if isinstance(hop, RouteHop))
    assert (first.out_interface, anew.out_interface) == (None, "eth1")
    assert hops.index(first) == 0
    assert hops.index(anew) == hops.index(to_other) + 1
    plain = b.path(b.policy_hop("raw", "OUTPUT"), end, post, **words)
    assert routes(plain, Scene(route=MAIN)) == [(Decision.OUTPUT, "main", "203.0.113.2")]


def test_a_destination_that_no_report_shows_is_inferred_from_the_rule() -> None:
    to_port = b.rule_hop("nat", "PREROUTING", 1, "-p tcp -j DNAT --to-destination 127.0.0.1:3306")
    path = b.path(PREROUTING, to_port, outcome=Outcome.LOST)
    died = Trail(drops=(DropHop(b.TIME, "IP_LOCALNET", "ip_rcv_finish_core"),))
    scene = Scene(trail=died, last=replace(path.packet, dst="127.0.0.1", dport=3306))
    hops = with_evidence(path, scene).hops
    (nat,) = [hop for hop in hops if isinstance(hop, NatHop)]
    before = f"{path.packet.dst}:{path.packet.dport}"
    assert (nat.destination, nat.source) == ((before, "127.0.0.1:3306"), None)
    assert nat.basis is Basis.INFERRED
    assert hops.index(nat) == hops.index(to_port) + 1


@pytest.mark.parametrize(
    ("path", "route"),
    [
        (b.path(PREROUTING, INPUT), MAIN),
        (b.path(PREROUTING, FORWARD, outcome=Outcome.FORWARDED, out_interface="eth2"), MAIN),
        (b.path(PREROUTING, FORWARD, outcome=Outcome.FORWARDED, out_interface="eth1"), LOCAL),
    ],
    ids=["it stayed", "it left elsewhere", "it left"],
)
def test_tables_that_disagree_with_what_was_seen_say_nothing(
    path: PacketPath, route: Route
) -> None:
    ((_, table, gateway),) = routes(path, Scene(route=route))
    assert (table, gateway) == (None, None)


@pytest.mark.parametrize(
    ("kind", "reason", "location", "decision"),
    [
        ("none", "IP_INNOROUTES", "ip_error", Decision.UNREACHABLE),
        ("unreachable", "NOT_SPECIFIED", "ip_error", Decision.UNREACHABLE),
        ("prohibit", "IP_INNOROUTES", "ip6_pkt_prohibit", Decision.PROHIBIT),
        ("blackhole", "NOT_SPECIFIED", "dst_discard_out", Decision.BLACKHOLE),
        ("unicast", "IP_INHDR", "ip_forward", Decision.FORWARD),
        ("unicast", "IP_RPFILTER", "ip_rcv_finish_core", None),
        ("unicast", "TC_INGRESS", "__netif_receive_skb_core", None),
        ("blackhole", "IP_RPFILTER", "ip_rcv_finish_core", None),
    ],
)
def test_a_death_in_routing_shows_the_decision_that_was_made(
    kind: str, reason: str, location: str, decision: Decision | None
) -> None:
    trail = Trail(drops=(DropHop(b.TIME, reason, location),))
    found = routes(b.path(PREROUTING, outcome=Outcome.LOST), Scene(trail, route=Route(kind)))
    assert [each[0] for each in found] == ([decision] if decision else [])


def test_a_call_that_is_refused_shows_the_decision_alone() -> None:
    path = b.path(outcome=Outcome.DROPPED, in_interface=None)
    route = Route("blackhole", table="main", error="EINVAL", prefix="192.0.2.0/24")
    assert routes(path, Scene(Trail(), route=route)) == [(Decision.BLACKHOLE, "main", None)]
    assert routes(path, Scene(Trail())) == []


def test_an_unseen_packet_that_events_saw_come_in_came_in_there() -> None:
    trail = Trail(received=(Crossing(b.TIME, "eth0"),), drops=(DropHop(b.TIME, "TC_INGRESS", ""),))
    path = with_evidence(b.path(outcome=Outcome.LOST, in_interface=None), Scene(trail))
    assert (path.in_interface, path.outcome) == ("eth0", Outcome.DROPPED)
    reply = replace(b.reply_path(), hops=(), in_interface=None)
    assert with_evidence(reply, Scene(replace(trail, drops=()))).in_interface is None


def test_a_packet_that_left_had_come_in_also_where_no_event_and_no_chain_says_so() -> None:
    left = b.path(outcome=Outcome.FORWARDED, out_interface="p2")
    wires = [hop.event for hop in with_evidence(left, Scene()).hops if isinstance(hop, WireHop)]
    assert wires == ["received", "sent"]
    lost = with_evidence(b.path(outcome=Outcome.LOST), Scene())
    assert not [hop for hop in lost.hops if isinstance(hop, WireHop)]
