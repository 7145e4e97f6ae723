"""Tables that hold no rules stand back in the flow picture; others come forward."""

from __future__ import annotations

from dataclasses import replace

from ipttrace.netfilter import Backend, Hook, TableFamily
from ipttrace.path import Outcome
from ipttrace.render.diagram import Look, flow_picture
from ipttrace.render.picture import Picture
from tests.builders import (
    DROP_MARKED,
    MARK_RULE,
    article_rules,
    chain,
    mark_drop_path,
    path,
    policy_hop,
    redirect_path,
    rule_hop,
    ruleset,
)


def looks(picture: Picture, text: str) -> list[Look]:
    """Return the looks of the segments that hold a text."""
    return [part.look for line in picture.lines for part in line if text in part.text]


def test_a_table_without_rules_stands_back_also_where_the_packet_passed_it() -> None:
    plain = flow_picture(mark_drop_path(), 120)
    ruled = flow_picture(mark_drop_path(), 120, rules=article_rules())
    assert looks(plain, "┫raw┣") == [Look.LIT]
    assert set(looks(ruled, "┤raw├")) == {Look.DIM}
    assert looks(ruled, "mangle 1") == [Look.CHANGED]
    assert "━┤raw├━" in ruled.plain()


def test_a_table_with_rules_that_was_not_met_is_no_empty_one() -> None:
    ruled = flow_picture(mark_drop_path(), 120, rules=article_rules())
    assert "┤nat├" in ruled.plain()
    assert Look.PLAIN in looks(ruled, "┤nat├")
    assert set(looks(flow_picture(mark_drop_path(), 120), "┤nat├")) == {Look.DIM}


def test_the_map_without_a_packet_shows_where_rules_are() -> None:
    picture = flow_picture(None, 120, rules=ruleset(chain("filter", "FORWARD", ["-j ACCEPT"])))
    assert looks(picture, "┤filter├").count(Look.PLAIN) == 1


def test_rules_of_the_other_backend_are_not_those_of_a_table_that_was_met() -> None:
    rules = ruleset(
        chain("filter", "INPUT", backend=Backend.NFT), chain("filter", "INPUT", [DROP_MARKED])
    )
    nft = path(policy_hop("filter", "INPUT", backend=Backend.NFT))
    legacy = path(policy_hop("filter", "INPUT"))
    assert "┤filter├" in flow_picture(nft, 120, rules=rules).plain().splitlines()[2]
    assert "┫filter┣" in flow_picture(legacy, 120, rules=rules).plain().splitlines()[2]


def test_rules_of_the_other_family_do_not_count() -> None:
    rules = ruleset(chain("filter", "INPUT", [DROP_MARKED], family=TableFamily.IP6))
    picture = flow_picture(path(policy_hop("filter", "INPUT")), 120, rules=rules)
    assert "┤filter├" in picture.plain().splitlines()[2]


def test_a_rule_that_was_met_counts_also_where_it_is_gone() -> None:
    picture = flow_picture(mark_drop_path(), 120, rules=ruleset())
    assert looks(picture, "mangle 1") == [Look.CHANGED]
    assert "┏━━━━━━━━┓" in picture.plain()


def test_narrow_pictures_say_it_in_brackets() -> None:
    rules = ruleset(chain("mangle", "PREROUTING", [MARK_RULE]))
    drawing = flow_picture(mark_drop_path(), 76, rules=rules).plain()
    assert "(raw) ━ ct ━ mangle 1" in drawing
    assert Hook.INPUT.value in drawing


def test_brackets_stay_where_the_line_closes_up() -> None:
    rules = ruleset(chain("mangle", "PREROUTING", [MARK_RULE]))
    drawing = flow_picture(redirect_path(), 76, 2, 5, rules).plain()
    assert "eth0━(raw)━ct━mangle━[nat 1] (dport 8445→8443)━route" in drawing


def test_boxes_do_without_tables_that_hold_no_rules_before_they_give_up() -> None:
    wide = rule_hop("filter", "INPUT", 1, "-j ACCEPT", family=TableFamily.INET, backend=Backend.NFT)
    early = replace(wide, hook=Hook.INGRESS, chain=replace(wide.chain, chain="early"))
    way = path(early, wide)
    assert "┤" not in flow_picture(way, 82).plain()
    drawing = flow_picture(way, 82, rules=ruleset()).plain()
    line = "eth0 ━┫filter/early 1┣━┤ct├━┫route┣━┫filter/INPUT 1┣━▶ socket"
    assert drawing.splitlines()[2] == line
    assert "┤mangle├┄┤filter├" in drawing


def test_names_of_hooks_keep_apart() -> None:
    late = rule_hop("t", "c", 1, "accept", family=TableFamily.INET, backend=Backend.NFT)
    way = path(
        replace(late, hook=Hook.POSTROUTING),
        replace(late, hook=Hook.EGRESS),
        outcome=Outcome.FORWARDED,
    )
    assert "POSTROUTING EGRESS" in flow_picture(way, 79, rules=ruleset()).plain()


def test_boxes_do_without_families_before_they_give_up() -> None:
    nft, ip, netdev = Backend.NFT, TableFamily.IP, TableFamily.NETDEV
    way = path(
        rule_hop("in", "ing", 1, "accept", hook=Hook.INGRESS, backend=nft, family=netdev),
        rule_hop("filter", "forw", 2, "accept", hook=Hook.FORWARD, backend=nft, family=ip),
        rule_hop("nat", "post", 1, "masquerade", hook=Hook.POSTROUTING, backend=nft, family=ip),
        rule_hop("in", "eg", 1, "accept", hook=Hook.EGRESS, backend=nft, family=netdev),
        outcome=Outcome.FORWARDED,
        out_interface="wan",
    )
    drawing = flow_picture(way, 82, rules=ruleset()).plain()
    assert "┫in/ing 1┣━┤ct├━┫route┣" in drawing
    assert "┫nat/post 1┣━┫in/eg 1┣━▶ wan" in drawing
    assert "┫netdev in/ing 1┣" in flow_picture(way, 120, rules=ruleset()).plain()


def test_families_stay_where_they_tell_two_chains_apart() -> None:
    one, other = (
        rule_hop("fw", "in", 1, "accept", hook=Hook.INPUT, backend=Backend.NFT, family=family)
        for family in (TableFamily.IP, TableFamily.INET)
    )
    way = path(one, replace(other, priority=(one.priority or 0) + 1), outcome=Outcome.DELIVERED)
    assert "ip fw/in 1" in flow_picture(way, 76, rules=ruleset()).plain()
