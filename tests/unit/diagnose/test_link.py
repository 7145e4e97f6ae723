from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.diagnose import Case, diagnose
from ipttrace.evidence import Crossing, Neighbour, NeighbourWait, Scene, Trail
from ipttrace.netfilter import Backend, Hook, TableFamily, Verdict
from ipttrace.path import ChainHop, Change, Outcome, WireHop
from ipttrace.ruleset import Chain
from ipttrace.timeline import with_evidence
from tests import builders as b
from tests.unit.diagnose.scenes import ROUTED_ON, died, early, why, words

FAILED = Neighbour("eth1", b.SERVER, "failed")
WAITS = (NeighbourWait(b.TIME, "eth1", b.SERVER),)
POSTROUTING = b.policy_hop("nat", "POSTROUTING")
LEFT = b.path(POSTROUTING, outcome=Outcome.FORWARDED, out_interface="eth1")


def test_a_neighbour_that_failed_by_the_kernels_reason() -> None:
    path = replace(LEFT, outcome=Outcome.DROPPED)
    scene = Scene(died("NEIGH_FAILED", "neigh_invalidate", waited=True), neighbour=FAILED)
    diagnosis = why(path, scene)
    assert diagnosis.cause == "neighbour-failed"
    assert "the next host 198.51.100.1 does not answer ARP" in diagnosis.summary


def test_ipv6_frees_what_waited_without_a_reason() -> None:
    path = replace(LEFT, outcome=Outcome.DROPPED, packet=b.tcp(b.CLIENT6, b.SERVER6))
    waited = died("NOT_SPECIFIED", "neigh_invalidate", waited=True)
    assert why(path, Scene(waited)).cause == "neighbour-failed"
    assert why(path, Scene(replace(waited, waits=()))).cause == "kernel-drop"


def test_what_left_and_waits_for_a_silent_neighbour_is_dropped() -> None:
    scene = Scene(Trail(waits=WAITS), neighbour=FAILED)
    path = with_evidence(LEFT, scene)
    assert path.outcome is Outcome.DROPPED
    diagnosis = why(path, scene)
    assert diagnosis.cause == "neighbour-failed"
    assert "the neighbour entry of 198.51.100.1 on eth1 is FAILED (matched)" in words(diagnosis)


@pytest.mark.parametrize(
    "scene",
    [
        Scene(Trail(waits=WAITS), neighbour=replace(FAILED, state="reachable")),
        Scene(Trail(queued=(Crossing(b.TIME, "eth1"),)), neighbour=FAILED),
        Scene(Trail(waits=WAITS, queued=(Crossing(b.TIME + 1, "eth1"),)), neighbour=FAILED),
        Scene(Trail(waits=WAITS)),
    ],
    ids=["it answers", "it was sent", "it was sent after all", "nothing is known"],
)
def test_what_was_sent_was_not_dropped_for_its_neighbour(scene: Scene) -> None:
    assert with_evidence(LEFT, scene).outcome is Outcome.FORWARDED


def test_what_we_stopped_or_what_was_answered_waits_for_nobody() -> None:
    scene = Scene(Trail(), neighbour=FAILED)
    contained = replace(LEFT, hops=(*LEFT.hops, WireHop(b.TIME, "contained", "eth1")))
    assert with_evidence(contained, scene).outcome is Outcome.FORWARDED
    answer = b.reply_path(in_interface="eth1")
    assert with_evidence(LEFT, scene, [answer]).outcome is Outcome.FORWARDED


def test_a_packet_too_large_is_named_with_both_sizes() -> None:
    path = early(b.tcp(length=1500))
    scene = Scene(died("PKT_TOO_BIG", "ip_forward"), route=ROUTED_ON, mtu={"eth1": 1400})
    diagnosis = why(path, scene)
    assert diagnosis.cause == "mtu-exceeded"
    assert "1500 bytes are more than the MTU of eth1 (1400)" in diagnosis.summary
    counted = replace(scene, trail=None, counters={"Ip.FragFails": 1})
    assert why(path, counted).cause == "mtu-exceeded"
    assert why(path, replace(counted, mtu={"eth1": 1500})).cause == "unknown"
    assert why(path, replace(counted, counters={})).cause == "unknown"


def test_a_routes_own_limit_counts_too() -> None:
    path = early(b.tcp(length=1500))
    route = replace(ROUTED_ON, mtu=1300)
    scene = Scene(died("PKT_TOO_BIG", "ip_forward"), route=route, mtu={"eth1": 1500})
    assert "(1300)" in why(path, scene).summary


def test_an_expired_ttl_by_its_reason_and_by_its_counter() -> None:
    path = early(b.tcp(ttl=1))
    assert why(path, Scene(died("IP_INHDR", "ip_forward"))).cause == "ttl-exceeded"
    assert why(path, Scene(counters={"Ip.InHdrErrors": 1})).cause == "ttl-exceeded"
    assert why(path, Scene()).cause == "unknown"


def test_a_ttl_that_a_rule_of_this_host_set_is_that_rules() -> None:
    setter = b.rule_hop(
        "mangle", "PREROUTING", 1, "-p tcp -j TTL --ttl-set 1", Change("ttl", 64, 1)
    )
    path = b.path(setter, outcome=Outcome.DROPPED, packet=b.tcp(ttl=64))
    scene = Scene(died("IP_INHDR", "ip_forward"), local=False, last=b.tcp(ttl=1))
    diagnosis = why(path, scene)
    assert diagnosis.cause == "ttl-exceeded"
    assert diagnosis.summary.endswith("its TTL was 1, which mangle/PREROUTING 1 had set")
    assert "it came in with TTL 64 (reported)" in words(diagnosis)
    assert [str(ref) for ref in diagnosis.rules] == ["mangle/PREROUTING 1"]
    assert diagnosis.remedy == (
        (
            "to spare this client the TTL of that rule: iptables-legacy -t mangle -I PREROUTING 1 "
            f"-s {b.CLIENT} -d {b.SERVER} -p tcp --dport 8443 -j ACCEPT"
        ),
        "or delete that rule: iptables-legacy -t mangle -D PREROUTING 1",
    )


def test_a_ttl_that_came_too_small_is_not_a_rules() -> None:
    setter = b.rule_hop("mangle", "PREROUTING", 1, "-j TTL --ttl-dec 1", Change("ttl", 1, 0))
    path = b.path(setter, outcome=Outcome.DROPPED, packet=b.tcp(ttl=1))
    scene = Scene(died("IP_INHDR", "ip_forward"), last=b.tcp(ttl=0))
    assert why(path, scene).remedy[0].startswith("look for a routing loop")


def test_a_broken_header_is_no_expired_ttl() -> None:
    assert why(early(), Scene(died("IP_INHDR", "ip_forward"))).cause == "kernel-drop"
    path = early(b.tcp(ttl=1))
    assert why(path, Scene(died("IP_INHDR", "ip_rcv_core"))).cause == "kernel-drop"


@pytest.mark.parametrize(
    ("reason", "whose"),
    [("IP_CSUM", "IPv4 header"), ("TCP_CSUM", "TCP"), ("UDP_CSUM", "UDP"), ("ICMP_CSUM", "ICMP")],
)
def test_a_wrong_checksum_says_whose(reason: str, whose: str) -> None:
    diagnosis = why(early(), Scene(died(reason, "tcp_v4_rcv")))
    assert diagnosis.cause == "bad-checksum"
    assert diagnosis.summary == f"dropped: its {whose} checksum is wrong"


def test_a_wrong_checksum_by_its_counter_alone() -> None:
    scene = Scene(counters={"Tcp.InCsumErrors": 1})
    delivered = b.path(b.policy_hop("filter", "INPUT"))
    path = with_evidence(delivered, scene)
    assert (path.outcome, why(path, scene).cause) == (Outcome.DROPPED, "bad-checksum")
    assert with_evidence(delivered, scene, [b.reply_path()]).outcome is Outcome.DELIVERED
    other = Scene(counters={"Udp.InCsumErrors": 1})
    assert with_evidence(delivered, other).outcome is Outcome.DELIVERED


def test_a_wrong_checksum_where_input_has_no_chain() -> None:
    scene = Scene(counters={"Tcp.InCsumErrors": 1})
    delivered = b.path(b.policy_hop("raw", "PREROUTING"))
    path = with_evidence(delivered, scene)
    assert (path.outcome, why(path, scene).cause) == (Outcome.DROPPED, "bad-checksum")
    lost = replace(delivered, outcome=Outcome.LOST)
    assert why(with_evidence(lost, scene), scene).cause == "unknown"


def test_any_other_reason_is_quoted_with_its_place() -> None:
    diagnosis = why(early(), Scene(died("TC_INGRESS", "__netif_receive_skb_core")))
    assert diagnosis.cause == "kernel-drop"
    assert "TC_INGRESS in __netif_receive_skb_core" in diagnosis.summary
    assert diagnosis.remedy == ("to see the filters: tc filter show dev eth0 ingress",)
    unknown = why(early(), Scene(died("SOMETHING_NEW", "somewhere")))
    assert unknown.cause == "kernel-drop"
    assert "SOMETHING_NEW in somewhere" in unknown.summary


def test_a_drop_before_every_traced_hook_names_the_chains_at_ingress() -> None:
    ref = b.chain_ref("guard", "in", Backend.NFT, TableFamily.NETDEV)
    ingress = b.ruleset(Chain(ref, (), Hook.INGRESS, 0, Verdict.ACCEPT))
    scene = Scene(died("NETFILTER_DROP", "nft_do_chain"))
    path = replace(early(), hops=())
    diagnosis = diagnose(Case(path, scene=scene, ruleset=ingress))
    assert diagnosis.cause == "kernel-drop"
    assert "netdev guard/in stands at ingress" in diagnosis.evidence[-1].text
    assert diagnosis.remedy == ("to see the chains at ingress: nft list ruleset",)


def test_chains_at_ingress_are_not_looked_for_in_vain() -> None:
    ref = b.chain_ref("guard", "in", Backend.NFT, TableFamily.NETDEV)
    ingress = b.ruleset(Chain(ref, (), Hook.INGRESS, 0, Verdict.ACCEPT))
    scene = Scene(died("NETFILTER_DROP", "nf_hook_slow"))
    came = replace(early(), hops=())
    assert diagnose(Case(came, scene=scene)).remedy == ()
    sent = replace(came, in_interface=None)
    diagnosis = diagnose(Case(sent, scene=scene, ruleset=ingress))
    assert (diagnosis.remedy, len(diagnosis.evidence)) == ((), 1)


DNAT = b.rule_hop("nat", "PREROUTING", 1, "-j DNAT", Change("dst", b.SERVER, "10.0.0.9"))


@pytest.mark.parametrize(
    ("hops", "kind", "told"),
    [((DNAT,), 5, True), ((POSTROUTING,), 5, False), ((DNAT,), 3, False)],
    ids=["translated", "not translated", "no redirect"],
)
def test_a_redirect_of_a_translated_connection(
    hops: tuple[ChainHop, ...], kind: int, told: bool
) -> None:
    packet, start = b.icmp(b.SERVER, b.CLIENT, kind=kind), b.policy_hop("raw", "OUTPUT")
    redirect = b.path(start, outcome=Outcome.DROPPED, packet=packet, number=2, request=1)
    scene = Scene(died("NETFILTER_DROP", "nf_hook_slow"))
    diagnosis = diagnose(Case(redirect, scene=scene, paths=(b.path(*hops), redirect)))
    assert diagnosis.cause == "kernel-drop"
    said = "NAT lets no ICMP redirect of a translated connection out" in diagnosis.summary
    assert (said, bool(diagnosis.remedy)) == (told, told)


def test_no_drop_is_made_up() -> None:
    assert why(early(), Scene(Trail())).cause == "unknown"


IP6, INET = TableFamily.IP6, TableFamily.INET
TRACKED = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
PORT_OPEN = "-p tcp -m tcp --dport 80 -j ACCEPT"


@pytest.mark.parametrize(
    ("rules", "policy", "deaf"),
    [
        ((TRACKED, PORT_OPEN), Verdict.DROP, True),
        ((TRACKED, PORT_OPEN), Verdict.ACCEPT, False),
        (("-p ipv6-icmp -j ACCEPT",), Verdict.DROP, False),
        (("-p ipv6-icmp -m icmp6 --icmpv6-type 136 -j ACCEPT",), Verdict.DROP, False),
        (("-p ipv6-icmp -m icmp6 --icmpv6-type 128 -j ACCEPT",), Verdict.DROP, True),
        (("-j my-chain",), Verdict.DROP, False),
    ],
)
def test_a_neighbour_is_not_called_silent_that_cannot_be_heard(
    rules: tuple[str, ...], policy: Verdict, deaf: bool
) -> None:
    path = replace(LEFT, outcome=Outcome.DROPPED, packet=b.tcp(b.CLIENT6, b.SERVER6))
    scene = Scene(died("NOT_SPECIFIED", "neigh_invalidate", waited=True))
    shut = b.chain("filter", "INPUT", rules, policy=policy, family=IP6)
    diagnosis = why(path, scene, ruleset=b.ruleset(shut))
    assert diagnosis.cause == "neighbour-failed"
    assert ("does not answer neighbour discovery" in diagnosis.summary) is not deaf
    assert ("filter/INPUT lets no neighbour advertisement in" in diagnosis.summary) is deaf
    command = "ip6tables-legacy -I INPUT 1 -p ipv6-icmp --icmpv6-type neighbour-advertisement"
    assert (f"to let them in: {command} -j ACCEPT" in diagnosis.remedy) is deaf


def test_arp_is_heard_whatever_the_chains_say() -> None:
    shut = b.chain("filter", "INPUT", policy=Verdict.DROP)
    scene = Scene(died("NEIGH_FAILED", "neigh_invalidate", waited=True), neighbour=FAILED)
    diagnosis = why(replace(LEFT, outcome=Outcome.DROPPED), scene, ruleset=b.ruleset(shut))
    assert "does not answer ARP" in diagnosis.summary


def test_a_native_chain_is_opened_by_nft() -> None:
    ref = b.chain_ref("fw", "in", Backend.NFT, INET)
    rule = b.rule(ref, "ct state established,related accept", 1, handle=4)
    shut = Chain(ref, (rule,), Hook.INPUT, 0, Verdict.DROP)
    path = replace(LEFT, outcome=Outcome.DROPPED, packet=b.tcp(b.CLIENT6, b.SERVER6))
    scene = Scene(died("NOT_SPECIFIED", "neigh_invalidate", waited=True))
    diagnosis = why(path, scene, ruleset=b.ruleset(shut))
    command = "nft insert rule inet fw in icmpv6 type nd-neighbor-advert accept"
    assert f"to let them in: {command}" in diagnosis.remedy
