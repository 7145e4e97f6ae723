from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.evidence import Route, Scene, Trail
from ipttrace.path import ChainHop, Change, Diagnosis, Outcome
from tests import builders as b
from tests.unit.diagnose.scenes import (
    FORWARDING,
    NO_ROUTE,
    ROUTED_ON,
    died,
    early,
    unsent,
    why,
    words,
)

FILTERED = {"net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/eth0/rp_filter": "1"}
NO_FORWARDING = {"net/ipv4/ip_forward": "0", "net/ipv4/conf/eth0/forwarding": "0"}
CLOSED_LOOPBACK = {"net/ipv4/conf/all/route_localnet": "0"}
BLACKHOLE = Route("blackhole", table="main", error="EINVAL", prefix="198.51.100.0/24")
TO_LOOPBACK = b.rule_hop("nat", "PREROUTING", 3, "-p tcp -j DNAT --to-destination 127.0.0.1:80")


def test_the_reverse_path_filter_by_its_own_reason() -> None:
    scene = Scene(
        trail=died("IP_RPFILTER", "ip_rcv_finish_core"),
        route_back=Route("unicast", "eth1"),
        settings=FILTERED,
    )
    diagnosis = why(early(), scene)
    assert diagnosis.cause == "rp-filter"
    assert "leads out of eth1" in diagnosis.summary
    assert "the kernel freed it in ip_rcv_finish_core: IP_RPFILTER (reported)" in words(diagnosis)
    assert "sysctl -w net/ipv4/conf/eth0/rp_filter=2" in diagnosis.remedy[1]


def test_the_reverse_path_filter_by_its_counter_alone() -> None:
    rose = {"TcpExt.IPReversePathFilter": 1}
    assert why(early(), Scene(counters=rose, settings=FILTERED)).cause == "rp-filter"
    assert why(early(), Scene(counters=rose)).cause == "unknown"
    assert why(early(), Scene(settings=FILTERED)).cause == "unknown"


def test_a_counter_says_nothing_where_the_kernel_gave_another_reason() -> None:
    scene = Scene(
        trail=died("TC_INGRESS", "__netif_receive_skb_core"),
        counters={"TcpExt.IPReversePathFilter": 1},
        settings=FILTERED,
    )
    assert why(early(), scene).cause == "kernel-drop"


def test_a_packet_sent_on_to_loopback_names_the_rule() -> None:
    path = b.path(TO_LOOPBACK, outcome=Outcome.DROPPED)
    last = b.tcp(dst="127.0.0.1", dport=80)
    scene = Scene(died("IP_LOCALNET", "ip_rcv_finish_core"), last, settings=CLOSED_LOOPBACK)
    diagnosis = why(path, scene)
    assert diagnosis.cause == "martian-loopback"
    assert [str(ref) for ref in diagnosis.rules] == ["nat/PREROUTING 3"]
    assert why(path, replace(scene, trail=None)).cause == "martian-loopback"


def test_the_same_reason_for_a_loopback_source_is_no_martian_destination() -> None:
    packet = b.tcp(src="127.0.0.1")
    scene = Scene(died("IP_LOCALNET", "ip_rcv_finish_core"), packet, settings=CLOSED_LOOPBACK)
    assert why(early(packet), scene).cause == "kernel-drop"


def test_loopback_is_open_where_either_setting_says_so() -> None:
    path = b.path(TO_LOOPBACK, outcome=Outcome.LOST)
    opened = {"net/ipv4/conf/eth0/route_localnet": "1"}
    scene = Scene(last=b.tcp(dst="127.0.0.1"), settings=opened)
    assert why(path, scene).cause == "unknown"


def test_forwarding_that_is_off_is_told_from_an_address_error() -> None:
    scene = Scene(died("IP_INADDRERRORS"), settings=NO_FORWARDING)
    diagnosis = why(early(), scene)
    assert diagnosis.cause == "forwarding-off"
    assert diagnosis.remedy == ("to let this host forward: sysctl -w net/ipv4/ip_forward=1",)
    assert why(early(), replace(scene, settings=FORWARDING)).cause == "kernel-drop"
    assert why(early(), replace(scene, settings={})).cause == "kernel-drop"


def test_ipv6_asks_the_setting_of_all_interfaces() -> None:
    packet = b.tcp(b.CLIENT6, b.SERVER6)
    off = {"net/ipv6/conf/all/forwarding": "0", "net/ipv6/conf/eth0/forwarding": "1"}
    scene = Scene(died("IP_INADDRERRORS", "ip6_forward"), settings=off)
    assert why(early(packet), scene).cause == "forwarding-off"
    forced = {**off, "net/ipv6/conf/eth0/force_forwarding": "1"}
    assert why(early(packet), replace(scene, settings=forced)).cause == "kernel-drop"


def test_no_route_by_its_reason_and_by_its_counter() -> None:
    told = why(early(), Scene(died("IP_INNOROUTES"), route=NO_ROUTE))
    assert told.cause == "no-route"
    assert "RTM_GETROUTE finds none: ENETUNREACH (matched)" in words(told)
    counted = Scene(counters={"IpExt.InNoRoutes": 1}, route=NO_ROUTE)
    assert why(early(), counted).cause == "no-route"
    assert why(early(), replace(counted, route=ROUTED_ON)).cause == "unknown"
    assert why(early(), replace(counted, counters={})).cause == "unknown"


def test_a_call_that_found_no_route_never_sent_anything() -> None:
    diagnosis = why(unsent(), Scene(Trail(), route=NO_ROUTE), client="ENETUNREACH")
    assert diagnosis.cause == "no-route"
    assert diagnosis.summary.startswith("not sent")
    elsewhere = why(unsent(), Scene(Trail()), client="ENETUNREACH", client_here=False)
    assert elsewhere.summary.endswith("in the client's namespace")
    assert why(unsent(), Scene(Trail(), route=NO_ROUTE), client="ETIMEDOUT").cause == "unknown"


@pytest.mark.parametrize(
    ("kind", "error"),
    [("blackhole", "EINVAL"), ("unreachable", "EHOSTUNREACH"), ("prohibit", "EACCES")],
)
def test_a_route_that_refuses_is_named(kind: str, error: str) -> None:
    route = replace(BLACKHOLE, kind=kind, error=error)
    told = why(early(), Scene(died("NOT_SPECIFIED"), route=route))
    assert told.cause == "blackhole-route"
    assert f"{kind} route: 198.51.100.0/24 in table main" in told.summary
    assert told.remedy[1] == f"to delete it: ip route del {kind} 198.51.100.0/24 table main"
    assert why(unsent(), Scene(Trail(), route=route), client=error).cause == "blackhole-route"
    assert why(unsent(), Scene(Trail(), route=route), client="EPERM").cause == "unknown"
    assert why(early(), Scene(route=route)).cause == "blackhole-route"


def test_a_route_that_refuses_now_did_not_drop_what_died_elsewhere() -> None:
    scene = Scene(died("NOT_SPECIFIED", "tcp_v4_rcv"), route=BLACKHOLE)
    assert why(early(), scene).cause == "kernel-drop"
    input_hop = b.policy_hop("filter", "INPUT")
    lost = b.path(input_hop, outcome=Outcome.LOST)
    assert why(lost, Scene(route=BLACKHOLE)).cause == "unknown"


def test_a_routing_rule_that_refuses_is_named_by_its_priority() -> None:
    route = Route("prohibit", error="EACCES", rule=77)
    diagnosis = why(early(), Scene(died("NOT_SPECIFIED"), route=route))
    assert "ip rule, priority 77" in diagnosis.summary
    assert diagnosis.remedy[1] == "to delete it: ip rule del pref 77"


MARKER = b.rule_hop("mangle", "PREROUTING", 1, "-p tcp -j MARK --set-xmark 0x9/0xffffffff")
MARKED = replace(MARKER, changes=(Change("mark", 0, 9),))


def refused(route: Route, *hops: ChainHop) -> Diagnosis:
    """Return why routing refused a packet that met these rules before."""
    path = b.path(*hops, outcome=Outcome.DROPPED)
    return why(path, Scene(died("NOT_SPECIFIED"), local=False, last=b.tcp(), route=route))


def test_a_mark_that_leads_to_a_route_which_refuses_is_told_with_its_setter() -> None:
    diagnosis = refused(replace(BLACKHOLE, table="99", marked=32765), MARKED)
    assert diagnosis.cause == "blackhole-route"
    assert diagnosis.summary.endswith(
        " in table 99; ip rule 32765 leads there for mark 0x9, which mangle/PREROUTING 1 had set"
    )
    assert [str(ref) for ref in diagnosis.rules] == ["mangle/PREROUTING 1"]
    assert diagnosis.remedy[0] == (
        "to spare this client the mark: iptables-legacy -t mangle -I PREROUTING 1 "
        f"-s {b.CLIENT} -d {b.SERVER} -p tcp --dport 8443 -j ACCEPT"
    )


def test_a_routing_rule_that_asks_for_the_mark_and_refuses_by_itself() -> None:
    rule = Route("prohibit", error="EACCES", rule=77, marked=77)
    diagnosis = refused(rule, MARKED)
    assert "; ip rule 77 asks for mark 0x9, which mangle/PREROUTING 1 had set" in diagnosis.summary
    unset = refused(rule)
    assert unset.summary.endswith("; ip rule 77 asks for mark 0x0")
    assert unset.rules == ()


def test_a_mark_that_no_routing_rule_asks_for_is_not_blamed() -> None:
    diagnosis = refused(BLACKHOLE, MARKED)
    assert (diagnosis.rules, "mark" in diagnosis.summary) == ((), False)
    assert diagnosis.remedy[0].startswith("to see the route: ")


KEPT_IN = Route("none", "eth1", error="EINVAL")
SENT_ON = b.rule_hop("nat", "OUTPUT", 1, "-p tcp -j DNAT --to-destination 203.0.113.2:80")


def test_what_comes_from_loopback_does_not_leave() -> None:
    """A route there is, but not for such a source (__mkroute_output in net/ipv4/route.c)."""
    seen = b.tcp("127.0.0.1", "127.0.0.1")
    last = b.tcp("127.0.0.1", "203.0.113.2", dport=80)
    path = b.path(SENT_ON, outcome=Outcome.DROPPED, packet=seen, last_packet=seen)
    scene = Scene(died("NETFILTER_DROP", "nf_hook_slow"), last, route=KEPT_IN)
    diagnosis = why(path, scene)
    assert (diagnosis.cause, diagnosis.rules) == ("martian-loopback", (SENT_ON.ref,))
    assert "no packet from 127.0.0.0/8 may leave by eth1" in diagnosis.summary
    assert diagnosis.remedy[1].endswith(": sysctl -w net/ipv4/conf/eth1/route_localnet=1")
    none = replace(scene, route=replace(KEPT_IN, interface=None))
    assert why(path, none).cause == "no-route"


def test_a_call_from_loopback_is_refused_for_its_source() -> None:
    path = unsent(b.tcp("127.0.0.1", "203.0.113.2"))
    assert why(path, Scene(route=KEPT_IN), client="EINVAL").cause == "martian-loopback"


@pytest.mark.parametrize(
    ("dst", "route"), [("198.51.100.255", Route("broadcast", "eth0")), ("224.0.0.1", NO_ROUTE)]
)
def test_a_connection_to_many_wants_no_route(dst: str, route: Route) -> None:
    diagnosis = why(unsent(b.tcp(dst=dst)), Scene(route=route), client="ENETUNREACH")
    assert diagnosis.cause == "kernel-drop"
    assert "TCP connects to one host only" in diagnosis.summary
    udp = why(unsent(b.udp(dst=dst)), Scene(route=NO_ROUTE), client="ENETUNREACH")
    assert udp.cause == "no-route"
