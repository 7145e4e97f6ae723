"""The flow picture lights what hops prove, also in hooks where no chain reports."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.netfilter import Backend, Basis, Hook, TableFamily, Verdict
from ipttrace.path import (
    ChainHop,
    Change,
    Decision,
    DropHop,
    NatHop,
    Outcome,
    PacketPath,
    RouteHop,
    SocketHop,
    SocketState,
    WireHop,
)
from ipttrace.render.diagram import flow_picture
from tests.builders import CLIENT, SERVER, TIME, path, policy_hop, rule_hop
from tests.unit.render.test_diagram import native, same

LISTENER = SocketHop(TIME, SocketState.LISTEN, "::", 8443)


def wire(event: str, interface: str) -> WireHop:
    return WireHop(TIME, event, interface)


def route(decision: Decision) -> RouteHop:
    return RouteHop(TIME, decision, Basis.INFERRED)


def own(hook: Hook, chain: str = "c", priority: int = 0, table: str = "t") -> ChainHop:
    """Return the hop of rule 1 of a chain in table `inet t`."""
    return native(hook, table, TableFamily.INET, priority, chain)


def early(verdict: Verdict, hook: Hook = Hook.INGRESS) -> ChainHop:
    return replace(native(hook, "ing", TableFamily.NETDEV, -500, "early"), verdict=verdict)


def masquerade(*changes: Change) -> ChainHop:
    return rule_hop("nat", "POSTROUTING", 1, "-j MASQUERADE", *changes)


def source(old: str, new: str) -> NatHop:
    return NatHop(TIME, Basis.REPORTED, source=(old, new))


FORWARDED = path(
    wire("received", "eth1"),
    route(Decision.FORWARD),
    wire("sent", "eth0"),
    outcome=Outcome.FORWARDED,
    in_interface="eth1",
)
OVER_LO = path(
    route(Decision.OUTPUT),
    own(Hook.PREROUTING, "pre"),
    route(Decision.LOCAL),
    own(Hook.INPUT, "in"),
    LISTENER,
    in_interface=None,
)
ANSWER = path(wire("sent", "eth0"), outcome=Outcome.SENT, in_interface=None)
THROUGH_INGRESS = path(
    wire("received", "eth0"),
    early(Verdict.ACCEPT),
    route(Decision.FORWARD),
    early(Verdict.ACCEPT, Hook.EGRESS),
    wire("sent", "eth1"),
    outcome=Outcome.FORWARDED,
)


def lines(way: PacketPath, selected: int | None = None) -> list[str]:
    return flow_picture(way, 76, selected).plain().splitlines()


def narrow(way: PacketPath, selected: int | None = None) -> str:
    """Return the narrow form at a width at which nothing wraps."""
    return flow_picture(way, 130, selected, 8).plain()


def boxes(way: PacketPath, selected: int | None = None) -> str:
    return flow_picture(way, 160, selected).plain()


def test_router_without_rules_shows_the_way_through_it() -> None:
    same(
        flow_picture(FORWARDED, 76),
        """
● PREROUTING  eth1 ━ raw ━ ct ━ mangle ━ nat ━ route (forward)
○ INPUT       ┄▷ mangle ┄ filter ┄ nat ┄▷ socket
● FORWARD     ━▶ mangle ━ filter
○ OUTPUT      socket ┄ route ┄ raw ┄ ct ┄ mangle ┄ nat ┄ filter
● POSTROUTING ━▶ mangle ━ nat ━▶ eth0
""",
    )


def test_packet_that_a_bridge_handed_on_was_not_routed() -> None:
    ends = wire("received", "port1"), wire("sent", "port2")
    way = path(*ends, outcome=Outcome.FORWARDED, in_interface="br0", physical_in="port1")
    assert lines(way)[0].endswith("nat ━ route (bridged)")
    assert [line[0] for line in lines(way)] == ["●", "○", "●", "○", "●"]


def test_packet_made_here_goes_out_by_lo_also_where_no_chain_says_so() -> None:
    same(
        flow_picture(OVER_LO, 76),
        """
● OUTPUT      socket ━ route ━ raw ━ ct ━ mangle ━ nat ━ filter
● POSTROUTING ━▶ mangle ━ nat ━▶ lo
● PREROUTING  lo ━ raw ━ ct ━ mangle ━ nat ━ t/pre 1 ━ route (local)
● INPUT       ━▶ mangle ━ t/in 1 ━ nat ━▶ socket
""",
    )


def test_host_without_rules_shows_the_way_over_lo() -> None:
    for way in (
        path(route(Decision.OUTPUT), LISTENER, in_interface=None),
        path(in_interface=None),
        path(own(Hook.PREROUTING), in_interface="lo"),
    ):
        assert [line[0] for line in lines(way)] == ["●"] * 4 or "by lo" in lines(way)[5]


def test_answer_made_here_without_rules_comes_from_the_socket() -> None:
    assert lines(ANSWER)[0].startswith("○ PREROUTING")
    assert lines(ANSWER)[3:] == [
        "● OUTPUT      socket ━ route ━ raw ━ ct ━ mangle ━ nat ━ filter",
        "● POSTROUTING ━▶ mangle ━ nat ━▶ eth0",
    ]


def test_packet_for_here_passes_input_also_where_no_chain_stands() -> None:
    way = path(wire("received", "eth0"), route(Decision.LOCAL), LISTENER)
    assert lines(way)[0] == "● PREROUTING  eth0 ━ raw ━ ct ━ mangle ━ nat ━ route (local)"
    assert lines(way)[1] == "● INPUT       ━▶ mangle ━ filter ━ nat ━▶ socket"


@pytest.mark.parametrize(
    ("way", "hop", "line", "box"),
    [
        (FORWARDED, 0, "[eth1] ━ raw", "[eth1]━━"),
        (FORWARDED, 1, "[route] (forward)", "╣route╠"),
        (FORWARDED, 2, "━▶ [eth0]", "━[eth0]"),
        (OVER_LO, 0, "socket ━ [route]", "╣route╠"),
        (OVER_LO, 2, "[route] (local)", "╣route╠"),
        (OVER_LO, 4, "━▶ [socket]", "━[socket]"),
        (ANSWER, 0, "━▶ [eth0]", "━[eth0]"),
        (THROUGH_INGRESS, 0, "[eth0] ━ netdev", "[eth0]━━"),
        (THROUGH_INGRESS, 4, "━▶ [eth1]", "━[eth1]"),
    ],
)
def test_hop_that_is_no_chain_is_marked_at_its_place(
    way: PacketPath, hop: int, line: str, box: str
) -> None:
    assert line in "\n".join(lines(way, hop))
    assert box in boxes(way, hop)


@pytest.mark.parametrize("way", [FORWARDED, OVER_LO, ANSWER, THROUGH_INGRESS])
def test_marking_a_hop_moves_nothing(way: PacketPath) -> None:
    for width in range(70, 130):
        pictures = [flow_picture(way, width, hop) for hop in range(len(way.hops))]
        in_boxes = {each.height > 9 for each in pictures}
        assert len(in_boxes) == 1
        assert len({each.width for each in pictures}) == 1 or in_boxes == {False}


def test_refusing_route_is_where_the_packet_died() -> None:
    way = path(
        wire("received", "eth0"),
        route(Decision.UNREACHABLE),
        DropHop(TIME, "IP_INNOROUTES", "ip_rcv_finish"),
        outcome=Outcome.DROPPED,
    )
    assert lines(way)[0].endswith("nat ━ route ✗ (unreachable)")
    assert lines(way, 2)[0].endswith("nat ━ [route ✗] (unreachable)")
    assert all(line.startswith("○") for line in lines(way)[1:])
    stuck = path(route(Decision.BLACKHOLE), outcome=Outcome.DROPPED, in_interface=None)
    assert "○ OUTPUT      socket ━ route ✗ ┄ raw" in "\n".join(lines(stuck))


def test_ingress_stands_behind_the_wire_and_before_prerouting() -> None:
    dead = path(wire("received", "eth0"), early(Verdict.DROP), outcome=Outcome.DROPPED)
    assert lines(dead, 1)[:2] == [
        "● INGRESS     eth0 ━ [netdev ing/early 1 ✗]",
        "○ PREROUTING  ┄▷ raw ┄ ct ┄ mangle ┄ nat ┄ route",
    ]
    assert "eth0 ━━━━╣netdev ing/early 1 ✗╠┄┄┄┄┤raw├" in boxes(dead, 1)
    assert "INGRESS " in boxes(dead)


def test_egress_stands_before_the_wire() -> None:
    assert lines(THROUGH_INGRESS)[5:] == [
        "● POSTROUTING ━▶ mangle ━ nat",
        "● EGRESS      ━▶ netdev ing/early 1 ━▶ eth1",
    ]
    assert "┤nat├━━━━┫netdev ing/early 1┣━━━━▶ eth1" in boxes(THROUGH_INGRESS)


def test_packet_lost_behind_ingress_is_marked_there() -> None:
    way = path(wire("received", "eth0"), early(Verdict.ACCEPT), outcome=Outcome.LOST)
    assert lines(way)[1] == "○ PREROUTING  ? ┄ raw ┄ ct ┄ mangle ┄ nat ┄ route"


def test_answer_is_rewritten_at_nat() -> None:
    way = path(
        policy_hop("filter", "OUTPUT"),
        policy_hop("mangle", "POSTROUTING"),
        source(f"{SERVER}:8443", f"{SERVER}:8445"),
        wire("sent", "eth0"),
        outcome=Outcome.SENT,
    )
    words = f"(src {SERVER}:8443→{SERVER}:8445)"
    assert f"mangle ━ [nat] {words} ━▶ eth0" in narrow(way, 2)
    assert "┫mangle┣━" in boxes(way, 2)
    assert "╣nat╠" in boxes(way, 2)


@pytest.mark.parametrize("seen", [wire("received", "eth0"), policy_hop("raw", "PREROUTING")])
def test_destination_of_an_answer_is_rewritten_where_it_came_in(seen: WireHop | ChainHop) -> None:
    nat = NatHop(TIME, Basis.REPORTED, destination=("203.0.113.1:4", f"{CLIENT}:4"))
    way = path(seen, nat, route(Decision.FORWARD), outcome=Outcome.FORWARDED)
    assert f"━ [nat] (dst 203.0.113.1:4→{CLIENT}:4) ━ route" in narrow(way, 1)


def test_masquerade_is_told_once() -> None:
    change = Change("src", CLIENT, "198.51.100.254")
    kept = path(masquerade(change), source(f"{CLIENT}:5", "198.51.100.254:5"))
    moved = path(masquerade(change), source(f"{CLIENT}:5", "198.51.100.254:6"))
    six = path(
        masquerade(Change("src", "2001:db8::7", "2001:db8::1")),
        source("[2001:db8::7]:5", "[2001:db8::1]:5"),
    )
    assert f"nat 1 (src {CLIENT}→198.51.100.254)" in narrow(kept)
    assert f"nat 1 (src {CLIENT}:5→198.51.100.254:6)" in narrow(moved)
    assert "[nat 1] (src 2001:db8::7→2001:db8::1)" in narrow(six, 1)


def test_chains_of_one_table_are_told_apart() -> None:
    way = path(own(Hook.INPUT, "a", -200, "two"), own(Hook.INPUT, "b", -190, "two"))
    assert "two/a 1 ━ two/b 1" in narrow(way)


def test_chains_of_equal_priority_do_not_merge() -> None:
    first, second = own(Hook.INPUT, "a", 0, "two"), own(Hook.INPUT, "b", 0, "two")
    called = replace(own(Hook.INPUT, "called", 0, "two"), verdict=Verdict.CONTINUE, number=7)
    into = replace(first, verdict=Verdict.JUMP)
    way = path(into, called, replace(first, number=2), second)
    assert "two/a 1,2 ━ two/b 1" in narrow(way)


def test_chains_that_only_share_a_table_with_iptables_are_named() -> None:
    second = replace(
        policy_hop("filter", "INPUT", backend=Backend.NFT),
        chain=replace(policy_hop("filter", "INPUT", backend=Backend.NFT).chain, chain="extra"),
    )
    way = path(policy_hop("filter", "INPUT", backend=Backend.NFT), second)
    assert "filter ━ ip filter/extra" in narrow(way)


def test_hooks_without_the_packet_are_left_out_before_a_line_is_one_too_many() -> None:
    whole = flow_picture(THROUGH_INGRESS, 76).plain()
    short = flow_picture(THROUGH_INGRESS, 76, height=5).plain()
    assert len(whole.splitlines()) == 7
    assert short.splitlines() == [line for line in whole.splitlines() if line.startswith("●")]


def test_the_hook_before_which_a_packet_died_is_not_left_out() -> None:
    way = path(wire("received", "eth0"), early(Verdict.ACCEPT), outcome=Outcome.DROPPED)
    short = flow_picture(way, 76, height=3).plain()
    assert [line[:12] for line in short.splitlines()] == ["● INGRESS   ", "○ PREROUTING"]


def test_map_without_a_packet_is_never_shortened() -> None:
    assert flow_picture(None, 76, height=2).height == 5
