"""What refused a lookup: what is not known of the packet is told, what it is not is left out."""

from __future__ import annotations

from dataclasses import replace

from ipttrace.decode.routing_rule import Asked, RuleMessage
from ipttrace.decode.rtnetlink import RouteMessage
from ipttrace.evidence import Unjudged
from ipttrace.system.route_refusals import most_likely, refusals, unjudged_before
from tests import builders as b

ASKED = Asked(b.tcp(), in_interface="eth0", uid=None)
LOCAL, MAIN = RuleMessage(None, 0, "local"), RuleMessage(None, 32766, "main")
OF_A_USER = RuleMessage("prohibit", 400, uids=(5, 5))
OF_ANOTHER_PORT = RuleMessage("prohibit", 300, dports=(80, 80))
ENTRY = RouteMessage("prohibit", "0.0.0.0/0", "99")


def test_a_rule_before_the_one_that_refuses_may_have_done_it() -> None:
    surely = RuleMessage("prohibit", 500)
    rules = [LOCAL, OF_ANOTHER_PORT, OF_A_USER, surely, MAIN]
    (first,) = refusals(ASKED, "prohibit", rules, [])
    assert first == (surely, None)
    found = unjudged_before(ASKED, "prohibit", rules, [], first)
    assert list(found) == [Unjudged(400, ("uidrange",))]


def test_a_rule_that_leads_to_a_table_which_refuses_may_have_done_it() -> None:
    leads = RuleMessage(None, 200, "99", uids=(5, 5))
    other = replace(leads, priority=201, table="98")
    found = unjudged_before(ASKED, "prohibit", [leads, other], [ENTRY], None)
    assert [each.priority for each in found] == [200]


def test_what_is_surely_not_for_the_packet_is_not_taken_for_likely() -> None:
    rules = [LOCAL, OF_ANOTHER_PORT, OF_A_USER, MAIN]
    assert most_likely(ASKED, "prohibit", "EACCES", rules, []).rule == 400
    assert most_likely(replace(ASKED, uid=0), "prohibit", "EACCES", rules, []).kind == "none"
    of_table = RuleMessage(None, 200, "99", dports=(80, 80))
    found = most_likely(ASKED, "prohibit", "EACCES", [LOCAL, of_table, MAIN], [ENTRY])
    assert found.kind == "none"
    vrf = RuleMessage(None, 1000, unjudged=("l3mdev",))
    found = most_likely(ASKED, "prohibit", "EACCES", [LOCAL, vrf, MAIN], [ENTRY])
    assert (found.kind, found.table) == ("prohibit", "99")
