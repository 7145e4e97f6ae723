"""The flow picture: golden drawings first, then what must hold for every path."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttrace.netfilter import Backend, Basis, Hook, TableFamily, Verdict
from ipttrace.path import ChainHop, Change, Hop, NatHop, Outcome, PacketPath, WireHop
from ipttrace.render.diagram import Look, Picture, flow_picture
from tests.builders import (
    CLIENT,
    TIME,
    forward_path,
    local_path,
    mark_drop_path,
    path,
    policy_hop,
    redirect_path,
    reply_path,
    rule_hop,
)


def native(hook: Hook, table: str, family: TableFamily, priority: int, chain: str) -> ChainHop:
    """Return the hop of rule 1 of a native nft chain."""
    return rule_hop(
        table,
        chain,
        1,
        "counter accept",
        hook=hook,
        backend=Backend.NFT,
        family=family,
        priority=priority,
        verdict=Verdict.ACCEPT,
    )


BOTH = path(
    policy_hop("raw", "PREROUTING"),
    policy_hop("raw", "PREROUTING", backend=Backend.NFT),
    rule_hop("mangle", "PREROUTING", 1, "-j MARK", Change("mark", 0, 1)),
    policy_hop("mangle", "INPUT"),
    native(Hook.INPUT, "fw", TableFamily.INET, -5, "input"),
    policy_hop("filter", "INPUT", backend=Backend.NFT),
    rule_hop("filter", "INPUT", 3, "-j DROP"),
    outcome=Outcome.DROPPED,
)
LOCAL_NFT = path(
    rule_hop("nat", "OUTPUT", 1, "-j REDIRECT", Change("dport", 8445, 8443), backend=Backend.NFT),
    rule_hop("mangle", "PREROUTING", 1, "-j MARK", Change("mark", 0, 1), backend=Backend.NFT),
    rule_hop("filter", "INPUT", 1, "-j DROP", backend=Backend.NFT),
    outcome=Outcome.DROPPED,
)
NATIVE = path(
    native(Hook.INGRESS, "early", TableFamily.NETDEV, 0, "in"),
    native(Hook.PREROUTING, "fw", TableFamily.INET, -300, "pre"),
    native(Hook.INPUT, "fw", TableFamily.INET, 0, "in"),
)


def long_local_path() -> PacketPath:
    """Return a local packet redirected to 127.0.0.1, as REDIRECT in OUTPUT does."""
    way = local_path()
    both = (Change("dst", "198.51.100.1", "127.0.0.1"), Change("dport", 8445, 8443))
    changed = (
        replace(hop, changes=both) if index == 2 else hop
        for index, hop in enumerate(way.chain_hops)
    )
    return replace(way, hops=tuple(changed))


def same(picture: Picture, drawing: str) -> None:
    assert picture.plain() == drawing.strip("\n")


def test_rule_death_is_crossed_and_the_mark_stands_below() -> None:
    picture = flow_picture(mark_drop_path(), 82, 1)
    same(
        picture,
        """
      PREROUTING                          INPUT
      ┏━━━┓ ┌──┐ ╔════════╗ ┏━━━┓ ┏━━━━━┓ ┏━━━━━━┓ ┏━━━━━━━━━━┓ ┌───┐
eth0 ━┫raw┣━┤ct├━╣mangle 1╠━┫nat┣━┫route┣━┫mangle┣━┫filter 1 ✗┃┄┤nat├┄▷ socket
      ┗━━━┛ └──┘ ╚════════╝ ┗━━━┛ ┗━━┬━━┛ ┗━━━━━━┛ ┗━━━━━━━━━━┛ └───┘
                 mark 0→1            │ local
                                     │ ┌──────┐ ┌──────┐
                             FORWARD └┄┤mangle├┄┤filter├┄┐
                                       └──────┘ └──────┘ │
        OUTPUT                                           │ POSTROUTING
        ┌─────┐ ┌───┐ ┌──┐ ┌──────┐ ┌───┐ ┌──────┐       │ ┌──────┐ ┌───┐
socket ┄┤route├┄┤raw├┄┤ct├┄┤mangle├┄┤nat├┄┤filter├┄┄┄┄┄┄┄┴┄┤mangle├┄┤nat├┄▷ wire
        └─────┘ └───┘ └──┘ └──────┘ └───┘ └──────┘         └──────┘ └───┘
""",
    )


def test_redirect_is_shown_where_it_happened() -> None:
    picture = flow_picture(redirect_path(), 82)
    same(
        picture,
        """
      PREROUTING                          INPUT
      ┏━━━┓ ┌──┐ ┏━━━━━━┓ ┏━━━━━┓ ┏━━━━━┓ ┏━━━━━━┓ ┏━━━━━━┓ ┏━━━┓
eth0 ━┫raw┣━┤ct├━┫mangle┣━┫nat 1┣━┫route┣━┫mangle┣━┫filter┣━┫nat┣━▶ socket
      ┗━━━┛ └──┘ ┗━━━━━━┛ ┗━━━━━┛ ┗━━┬━━┛ ┗━━━━━━┛ ┗━━━━━━┛ ┗━━━┛
                     dport 8445→8443 │ local
                                     │ ┌──────┐ ┌──────┐
                             FORWARD └┄┤mangle├┄┤filter├┄┐
                                       └──────┘ └──────┘ │
        OUTPUT                                           │ POSTROUTING
        ┌─────┐ ┌───┐ ┌──┐ ┌──────┐ ┌───┐ ┌──────┐       │ ┌──────┐ ┌───┐
socket ┄┤route├┄┤raw├┄┤ct├┄┤mangle├┄┤nat├┄┤filter├┄┄┄┄┄┄┄┴┄┤mangle├┄┤nat├┄▷ wire
        └─────┘ └───┘ └──┘ └──────┘ └───┘ └──────┘         └──────┘ └───┘
""",
    )


def test_loopback_packet_goes_out_and_comes_in_again() -> None:
    picture = flow_picture(local_path(), 80, 7)
    same(
        picture,
        """
        OUTPUT                                       POSTROUTING
        ┏━━━━━┓ ┏━━━┓ ┌──┐ ┏━━━━━━┓ ┏━━━━━┓ ┏━━━━━━┓ ┏━━━━━━┓ ┏━━━┓
socket ━┫route┣━┫raw┣━┤ct├━┫mangle┣━┫nat 1┣━┫filter┣━┫mangle┣━┫nat┣━━━━━━━━┓
        ┗━━━━━┛ ┗━━━┛ └──┘ ┗━━━━━━┛ ┗━━━━━┛ ┗━━━━━━┛ ┗━━━━━━┛ ┗━━━┛        ┃
                                    dport 8445→8443                        ┃
┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ by lo ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┛
┃ PREROUTING                          INPUT
┃ ┏━━━┓ ┌──┐ ╔════════╗ ┌───┐ ┏━━━━━┓ ┏━━━━━━┓ ┏━━━━━━━━━━┓ ┌───┐
┗━┫raw┣━┤ct├━╣mangle 1╠━┤nat├━┫route┣━┫mangle┣━┫filter 1 ✗┃┄┤nat├┄▷ socket
  ┗━━━┛ └──┘ ╚════════╝ └───┘ ┗━━━━━┛ ┗━━━━━━┛ ┗━━━━━━━━━━┛ └───┘
             mark 0→1          local
""",
    )


def test_long_change_keeps_clear_of_the_way_back() -> None:
    picture = flow_picture(long_local_path(), 80)
    same(
        picture,
        """
        OUTPUT                                       POSTROUTING
        ┏━━━━━┓ ┏━━━┓ ┌──┐ ┏━━━━━━┓ ┏━━━━━┓ ┏━━━━━━┓ ┏━━━━━━┓ ┏━━━┓
socket ━┫route┣━┫raw┣━┤ct├━┫mangle┣━┫nat 1┣━┫filter┣━┫mangle┣━┫nat┣━━━━━━━━┓
        ┗━━━━━┛ ┗━━━┛ └──┘ ┗━━━━━━┛ ┗━━━━━┛ ┗━━━━━━┛ ┗━━━━━━┛ ┗━━━┛        ┃
                               dst 198.51.100.1→127.0.0.1, dport 8445→8443 ┃
┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ by lo ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┛
┃ PREROUTING                          INPUT
┃ ┏━━━┓ ┌──┐ ┏━━━━━━━━┓ ┌───┐ ┏━━━━━┓ ┏━━━━━━┓ ┏━━━━━━━━━━┓ ┌───┐
┗━┫raw┣━┤ct├━┫mangle 1┣━┤nat├━┫route┣━┫mangle┣━┫filter 1 ✗┃┄┤nat├┄▷ socket
  ┗━━━┛ └──┘ ┗━━━━━━━━┛ └───┘ ┗━━━━━┛ ┗━━━━━━┛ ┗━━━━━━━━━━┛ └───┘
             mark 0→1          local
""",
    )


def test_loopback_packet_is_one_also_where_no_chain_stands_in_postrouting() -> None:
    picture = flow_picture(LOCAL_NFT, 80)
    same(
        picture,
        """
        OUTPUT                                       POSTROUTING
        ┏━━━━━┓ ┌───┐ ┌──┐ ┌──────┐ ┏━━━━━┓ ┌──────┐ ┌──────┐ ┌───┐
socket ━┫route┣━┤raw├━┤ct├━┤mangle├━┫nat 1┣━┤filter├━┤mangle├━┤nat├━━━━━━━━┓
        ┗━━━━━┛ └───┘ └──┘ └──────┘ ┗━━━━━┛ └──────┘ └──────┘ └───┘        ┃
                                    dport 8445→8443                        ┃
┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ by lo ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┛
┃ PREROUTING                          INPUT
┃ ┌───┐ ┌──┐ ┏━━━━━━━━┓ ┌───┐ ┏━━━━━┓ ┌──────┐ ┏━━━━━━━━━━┓ ┌───┐
┗━┤raw├━┤ct├━┫mangle 1┣━┤nat├━┫route┣━┤mangle├━┫filter 1 ✗┃┄┤nat├┄▷ socket
  └───┘ └──┘ ┗━━━━━━━━┛ └───┘ ┗━━━━━┛ └──────┘ ┗━━━━━━━━━━┛ └───┘
             mark 0→1          local
""",
    )


def test_forwarded_packet_leaves_with_another_source() -> None:
    picture = flow_picture(forward_path(WireHop(TIME, "contained", "eth1")), 90)
    same(
        picture,
        """
      PREROUTING                        INPUT
      ┌───┐ ┌──┐ ┌──────┐ ┌───┐ ┏━━━━━┓ ┌──────┐ ┌──────┐ ┌───┐
eth0 ━┤raw├━┤ct├━┤mangle├━┤nat├━┫route┣┄┤mangle├┄┤filter├┄┤nat├┄▷ socket
      └───┘ └──┘ └──────┘ └───┘ ┗━━┳━━┛ └──────┘ └──────┘ └───┘
                                   ┃ forward
                                   ┃ ┌──────┐ ┏━━━━━━┓
                           FORWARD ┗━┤mangle├━┫filter┣━┓
                                     └──────┘ ┗━━━━━━┛ ┃
        OUTPUT                                         ┃ POSTROUTING
        ┌─────┐ ┌───┐ ┌──┐ ┌──────┐ ┌───┐ ┌──────┐     ┃ ┌──────┐ ┏━━━━━┓
socket ┄┤route├┄┤raw├┄┤ct├┄┤mangle├┄┤nat├┄┤filter├┄┄┄┄┄┻━┤mangle├━┫nat 1┣━▶ eth1
        └─────┘ └───┘ └──┘ └──────┘ └───┘ └──────┘       └──────┘ ┗━━━━━┛ contained
                                                   src 203.0.113.7:40000→203.0.113.1:40000
""",
    )


def test_narrow_loopback_is_in_the_order_of_its_hooks() -> None:
    picture = flow_picture(local_path(), 66, 10)
    same(
        picture,
        """
● OUTPUT      socket ━ route ━ raw ━ ct ━ mangle
              ━ nat 1 (dport 8445→8443) ━ filter
● POSTROUTING ━▶ mangle ━ nat ━▶ lo
● PREROUTING  lo ━ raw ━ ct ━ mangle 1 (mark 0→1) ━ nat
              ━ route (local)
● INPUT       ━▶ mangle ━ [filter 1 ✗] ┄ nat ┄▷ socket
""",
    )


def test_narrow_form_has_a_line_for_each_hook() -> None:
    picture = flow_picture(mark_drop_path(), 76, 5)
    same(
        picture,
        """
● PREROUTING  eth0 ━ raw ━ ct ━ mangle 1 (mark 0→1) ━ nat ━ route (local)
● INPUT       ━▶ mangle ━ [filter 1 ✗] ┄ nat ┄▷ socket
○ FORWARD     ┄▷ mangle ┄ filter
○ OUTPUT      socket ┄ route ┄ raw ┄ ct ┄ mangle ┄ nat ┄ filter
○ POSTROUTING ┄▷ mangle ┄ nat ┄▷ wire
""",
    )


def test_both_backends_are_named_in_one_path() -> None:
    picture = flow_picture(BOTH, 82)
    same(
        picture,
        """
● PREROUTING  eth0 ━ legacy raw ━ nft raw ━ ct ━ legacy mangle 1 (mark 0→1) ━ nat
              ━ route (local)
● INPUT       ━▶ legacy mangle ━ fw/input 1 ━ nft filter ━ legacy filter 3 ✗ ┄ nat
              ┄▷ socket
○ FORWARD     ┄▷ mangle ┄ filter
○ OUTPUT      socket ┄ route ┄ raw ┄ ct ┄ mangle ┄ nat ┄ filter
○ POSTROUTING ┄▷ mangle ┄ nat ┄▷ wire
""",
    )


def test_native_chains_have_their_place() -> None:
    picture = flow_picture(NATIVE, 80)
    same(
        picture,
        """
● INGRESS     eth0 ━ netdev early/in 1
● PREROUTING  ━▶ fw/pre 1 ━ ct ━ mangle ━ nat ━ route (local)
● INPUT       ━▶ mangle ━ fw/in 1 ━ nat ━▶ socket
○ FORWARD     ┄▷ mangle ┄ filter
○ OUTPUT      socket ┄ route ┄ raw ┄ ct ┄ mangle ┄ nat ┄ filter
○ POSTROUTING ┄▷ mangle ┄ nat ┄▷ wire
""",
    )


def test_map_without_a_packet_is_dim() -> None:
    picture = flow_picture(None, 82)
    same(
        picture,
        """
      PREROUTING                        INPUT
      ┌───┐ ┌──┐ ┌──────┐ ┌───┐ ┌─────┐ ┌──────┐ ┌──────┐ ┌───┐
wire ┄┤raw├┄┤ct├┄┤mangle├┄┤nat├┄┤route├┄┤mangle├┄┤filter├┄┤nat├┄▷ socket
      └───┘ └──┘ └──────┘ └───┘ └──┬──┘ └──────┘ └──────┘ └───┘
                                   │
                                   │ ┌──────┐ ┌──────┐
                           FORWARD └┄┤mangle├┄┤filter├┄┐
                                     └──────┘ └──────┘ │
        OUTPUT                                         │ POSTROUTING
        ┌─────┐ ┌───┐ ┌──┐ ┌──────┐ ┌───┐ ┌──────┐     │ ┌──────┐ ┌───┐
socket ┄┤route├┄┤raw├┄┤ct├┄┤mangle├┄┤nat├┄┤filter├┄┄┄┄┄┴┄┤mangle├┄┤nat├┄▷ wire
        └─────┘ └───┘ └──┘ └──────┘ └───┘ └──────┘       └──────┘ └───┘
""",
    )


def looks(picture: Picture) -> dict[str, set[Look]]:
    """Return the looks of each word in a picture."""
    found: dict[str, set[Look]] = {}
    for line in picture.lines:
        for segment in line:
            for word in segment.text.split():
                found.setdefault(word, set()).add(segment.look)
    return found


def test_looks_tell_what_became_of_the_packet() -> None:
    found = looks(flow_picture(mark_drop_path(), 76, None))
    assert found["✗"] == {Look.DEAD}
    assert found["0→1)"] == {Look.CHANGED}
    assert found["PREROUTING"] == {Look.LIT}
    assert found["POSTROUTING"] == {Look.DIM}


def test_selected_hop_has_a_look_and_a_sign_of_its_own() -> None:
    narrow, wide = (flow_picture(mark_drop_path(), width, 5) for width in (76, 82))
    assert "[filter 1 ✗]" in narrow.plain()
    assert looks(narrow)["[filter"] == {Look.SELECTED}
    assert "╣filter 1 ✗║" in wide.plain()
    assert Look.SELECTED in looks(wide)["1"]


def test_map_alone_has_nothing_lit() -> None:
    assert {s.look for line in flow_picture(None, 82).lines for s in line} <= {Look.DIM, Look.PLAIN}


def test_picture_of_little_height_is_the_narrow_form() -> None:
    assert flow_picture(mark_drop_path(), 200, None, 8).height == 5
    assert flow_picture(mark_drop_path(), 200, None, 12).height == 12


def test_narrow_form_closes_up_before_it_takes_a_line_too_many() -> None:
    assert flow_picture(redirect_path(), 76, 2).height == 6
    picture = flow_picture(redirect_path(), 76, 2, 5)
    assert picture.height == 5
    assert "eth0━raw━ct━mangle━[nat 1] (dport 8445→8443)━route (local)" in picture.plain()


@pytest.mark.parametrize(
    ("hop", "outcome", "sign"),
    [
        (policy_hop("raw", "PREROUTING"), Outcome.DROPPED, "route ✗"),
        (policy_hop("raw", "PREROUTING"), Outcome.LOST, "route ?"),
        (policy_hop("filter", "INPUT"), Outcome.REFUSED, "socket ✗"),
        (policy_hop("filter", "INPUT"), Outcome.DROPPED, "socket ✗"),
        (policy_hop("filter", "INPUT"), Outcome.LOST, "socket ?"),
        (policy_hop("filter", "INPUT", Verdict.DROP), Outcome.DROPPED, "filter ✗"),
        (policy_hop("filter", "FORWARD"), Outcome.DROPPED, "wire ✗"),
        (policy_hop("filter", "OUTPUT"), Outcome.LOST, "wire ?"),
        (policy_hop("nat", "POSTROUTING"), Outcome.DROPPED, "wire ✗"),
    ],
)
@pytest.mark.parametrize("width", [76, 100])
def test_death_outside_of_chains_is_marked_behind_the_last_hook(
    hop: ChainHop, outcome: Outcome, sign: str, width: int
) -> None:
    drawing = flow_picture(path(hop, outcome=outcome, out_interface=None), width).plain()
    assert sign in drawing
    assert sum(drawing.count(mark) for mark in "✗?") == 1


def test_packet_that_was_never_seen_is_marked_where_it_should_have_come_in() -> None:
    assert "eth0 ✗" in flow_picture(path(outcome=Outcome.DROPPED), 82).plain()
    local = path(outcome=Outcome.DROPPED, in_interface=None, out_interface=None)
    assert "socket ━┫route ✗┃" in flow_picture(local, 82).plain()


def test_reply_that_was_kept_inside_says_so() -> None:
    assert "contained" in flow_picture(reply_path(), 84).plain()
    assert "eth0 (contained)" in flow_picture(reply_path(), 76).plain()


def test_several_matched_rules_of_a_chain_are_all_numbered() -> None:
    rules = [rule_hop("filter", "INPUT", number, "-j LOG") for number in (1, 3)]
    deep = rule_hop("filter", "MINE", 9, "-j ACCEPT", hook=Hook.INPUT)
    assert "filter 1,3" in flow_picture(path(*rules, deep), 90).plain()
    assert (
        "filter 1…4"
        in flow_picture(path(*rules, rule_hop("filter", "INPUT", 4, "-j U")), 90).plain()
    )


def test_security_table_is_drawn_only_where_it_was_met() -> None:
    assert "security" not in flow_picture(mark_drop_path(), 120).plain()
    assert "security" in flow_picture(path(policy_hop("security", "INPUT")), 120).plain()


def test_names_cannot_break_the_picture() -> None:
    evil = native(Hook.INPUT, "a\x1b[2Jb" + "x" * 200, TableFamily.INET, 5, "in")
    picture = flow_picture(path(evil, in_interface="e\x1b]\u6f22\n"), 90)
    assert "\x1b" not in picture.plain()
    assert picture.width <= 90
    assert picture.plain().isascii() is False
    assert "漢" not in picture.plain()


def test_hop_whose_hook_is_not_known_has_a_line() -> None:
    drawing = flow_picture(path(replace(policy_hop("filter", "INPUT"), hook=None)), 76).plain()
    assert "● hook unknown" in drawing


def test_reply_that_conntrack_rewrote_back_shows_it() -> None:
    nat = NatHop(TIME, Basis.REPORTED, destination=("203.0.113.1:40000", f"{CLIENT}:40000"))
    drawing = flow_picture(path(policy_hop("raw", "PREROUTING"), nat), 100).plain()
    assert f"dst 203.0.113.1:40000→{CLIENT}:40000" in drawing


TABLES = ("raw", "mangle", "nat", "filter", "security", "fw")
HOOKED = (
    Hook.PREROUTING,
    Hook.INPUT,
    Hook.FORWARD,
    Hook.OUTPUT,
    Hook.POSTROUTING,
    Hook.INGRESS,
    None,
)


@st.composite
def hops(draw: st.DrawFn) -> Hop:
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return WireHop(TIME, draw(st.sampled_from(("received", "sent", "contained"))), "eth1")
    if kind == 1:
        return NatHop(TIME, Basis.REPORTED, source=("10.0.0.2:1", "203.0.113.1:40000"))
    made = rule_hop(
        draw(st.sampled_from(TABLES)),
        "C",
        draw(st.integers(1, 99)),
        "-j X",
        *draw(st.lists(st.just(Change("dport", 8445, 8443)), max_size=2)),
        backend=draw(st.sampled_from(Backend)),
        family=draw(st.sampled_from(TableFamily)),
        verdict=draw(st.sampled_from(Verdict)),
    )
    return replace(made, hook=draw(st.sampled_from(HOOKED)))


@st.composite
def paths(draw: st.DrawFn) -> PacketPath:
    met = draw(st.lists(hops(), max_size=14))
    return path(*met, outcome=draw(st.sampled_from(Outcome)))


@given(paths(), st.integers(64, 220), st.integers(0, 14))
def test_every_path_is_drawn_within_the_width(way: PacketPath, width: int, selected: int) -> None:
    picture = flow_picture(way, width, selected)
    assert picture.width <= width
    assert "\n" not in "".join(s.text for line in picture.lines for s in line)


@given(paths(), st.sampled_from((76, 220)))
def test_every_met_table_is_in_the_picture(way: PacketPath, width: int) -> None:
    drawing = flow_picture(way, width).plain()
    assert all(hop.chain.table in drawing for hop in way.chain_hops)
