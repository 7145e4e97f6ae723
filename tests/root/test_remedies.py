"""Remedies of dead packets, run as they are printed: what they promise is then seen to hold."""

from __future__ import annotations

import pytest

from ipttrace.path import Outcome
from tests.root.causes import rule_numbers
from tests.root.kernel import Iptables, Listeners, Namespaces, run
from tests.root.remedies import (
    OTHER,
    PORT,
    add,
    build_served,
    follow,
    full,
    nft,
    send,
    works,
)
from tests.root.routed import Routed

pytestmark = pytest.mark.root


@pytest.fixture
def routed(namespaces: Namespaces, listen: Listeners) -> Routed:
    """Return client -- router -- backend, where a service listens."""
    return build_served(namespaces, listen)


# ------------------------------------------------------------------- verdict maps

FORWARD = "type filter hook forward priority 0; policy {};"


@pytest.mark.parametrize("number", [1, pytest.param(0, marks=full)])
def test_an_element_of_a_verdict_map(routed: Routed, number: int) -> None:
    nft(
        routed,
        "table inet fw {",
        "map svc { type inet_service : verdict; elements = { 22 : accept, 80 : drop }; }",
        f"chain forward {{ {FORWARD.format('drop')}",
        "ct state established,related accept; tcp dport vmap @svc; }",
        "}",
    )
    probed = send(routed)
    probed.check("rule-drop", Outcome.DROPPED)
    assert probed.diagnosis.summary.endswith("the rule drops tcp dport 80, an element of @svc")
    remedy = probed.diagnosis.remedy[number]
    if number == 0:
        works(routed, probed)
        return
    assert "(the policy DROP then decides)" in remedy
    follow(routed, remedy)
    assert send(routed).cause == "policy-drop"
    assert "22 : accept" in run("nft", "list", "ruleset", netns=routed.netns)


@full
def test_a_verdict_map_in_the_rule(routed: Routed) -> None:
    nft(
        routed,
        f"table inet fw {{ chain forward {{ {FORWARD.format('accept')}",
        "ct state established,related accept; meta l4proto vmap { tcp : drop, udp : accept }; }",
        "}",
    )
    probed = send(routed)
    assert probed.diagnosis.summary.endswith("the rule drops meta l4proto tcp")
    assert len(probed.diagnosis.remedy) == 1
    works(routed, probed)


# ------------------------------------------------------------------- lists of sources


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=full)])
def test_a_list_stays_shut_for_all_others(routed: Routed, iptables: Iptables, number: int) -> None:
    add(
        routed,
        iptables,
        "-N DENY",
        "-A DENY -m limit -j LOG",
        "-A DENY -j DROP",
        "-A FORWARD -s 198.51.100.0/25 -j DENY",
    )
    probed = send(routed)
    probed.check("rule-drop", Outcome.DROPPED)
    assert probed.diagnosis.summary.endswith("filter/FORWARD 1 sends there -s 198.51.100.0/25")
    assert rule_numbers(probed) == ["filter/DENY 2", "filter/FORWARD 1"]
    works(routed, probed, number)
    assert send(routed, OTHER).cause == ("rule-drop" if number == 0 else "answered")


@full
def test_a_native_list_stays_shut_for_all_others(routed: Routed) -> None:
    nft(
        routed,
        "table inet fw {",
        "set bad { type ipv4_addr; flags interval; elements = { 198.51.100.0/25 }; }",
        "chain deny { counter drop; }",
        f"chain forward {{ {FORWARD.format('accept')} ip saddr @bad counter jump deny; }}",
        "}",
    )
    probed = send(routed)
    assert probed.diagnosis.summary.endswith("fw/forward 1 sends there ip saddr @bad")
    works(routed, probed)
    assert send(routed, OTHER).cause == "rule-drop"


# ------------------------------------------------------------------- places


def test_what_prerouting_drops_on_its_way_through(routed: Routed, iptables: Iptables) -> None:
    add(routed, iptables, f"-t raw -A PREROUTING -p tcp --dport {PORT} -j DROP")
    probed = send(routed)
    assert probed.diagnosis.remedy[0].startswith("to let it through: ")
    works(routed, probed)
    assert send(routed, dst=routed.router.ipv4).cause == "rule-drop"


@pytest.mark.parametrize(
    ("hook", "match", "cause"),
    [
        ("ingress", "tcp sport", "asymmetric-reply"),
        pytest.param("egress", "tcp dport", "rule-drop", marks=full),
    ],
)
def test_a_chain_of_a_device(routed: Routed, hook: str, match: str, cause: str) -> None:
    nft(
        routed,
        "table netdev guard { chain at {",
        f"type filter hook {hook} device eth1 priority 0; policy accept;",
        f"{match} {PORT} drop; }}",
        "}",
    )
    probed = send(routed)
    assert probed.cause == cause
    works(routed, probed, -1 if hook == "ingress" else 0)


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=full)])
def test_a_ttl_that_a_rule_set(routed: Routed, iptables: Iptables, number: int) -> None:
    add(routed, iptables, f"-t mangle -A PREROUTING -p tcp --dport {PORT} -j TTL --ttl-set 1")
    probed = send(routed)
    probed.check("ttl-exceeded", Outcome.DROPPED)
    assert rule_numbers(probed) == ["mangle/PREROUTING 1"]
    works(routed, probed, number)


# ------------------------------------------------------------------- answers that are none


@pytest.mark.parametrize("native", [False, pytest.param(True, marks=full)])
def test_one_zone_for_requests_and_another_for_answers(
    routed: Routed, iptables: Iptables, native: bool
) -> None:
    if native:
        zone = 'iifname "eth0" ct zone set 5;'
        nft(
            routed,
            "table inet z { chain pre { type filter hook prerouting priority raw; policy accept;",
            f"{zone} }}",
            "}",
        )
    else:
        add(routed, iptables, "-t raw -A PREROUTING -i eth0 -j CT --zone 5")
    add(
        routed,
        iptables,
        "-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT",
        "-A FORWARD -i eth0 -m conntrack --ctstate NEW -j ACCEPT",
        "-A FORWARD -j DROP",
    )
    probed = send(routed)
    assert probed.cause == "asymmetric-reply"
    assert "filter/FORWARD 1 did not match it" in probed.diagnosis.summary
    assert "into conntrack zone 5, and no rule the answer (inferred)" in probed.evidence()
    works(routed, probed, -1)


@pytest.mark.parametrize("way", ["-s 198.51.100.0/24 -j RETURN", "-p tcp -g ASIDE"])
def test_a_policy_that_a_rule_leads_to_before_the_end(
    routed: Routed, iptables: Iptables, way: str
) -> None:
    """No rule that is added at the end would be asked."""
    add(routed, iptables, "-N ASIDE", f"-A FORWARD {way}", "-P FORWARD DROP")
    add(routed, iptables, "-I FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT")
    probed = send(routed)
    assert probed.cause == "policy-drop", probed.text
    follow(routed, probed.diagnosis.remedy[0])
    assert send(routed).cause == "answered"


def test_a_native_policy_that_a_verdict_map_leads_to(routed: Routed) -> None:
    """As firewalld writes it: a zone for each interface, by goto."""
    nft(
        routed,
        "table inet fw {",
        "chain zone { udp dport 1 accept; }",
        "chain forward { type filter hook forward priority 10; policy drop",
        "ct state established accept",
        'iifname vmap { "eth0" : goto zone }; }',
        "}",
    )
    probed = send(routed)
    assert probed.cause == "policy-drop", probed.text
    follow(routed, probed.diagnosis.remedy[0])
    assert send(routed).cause == "answered"


@pytest.mark.parametrize("match", ["-i eth1", "-p tcp"])
def test_an_answer_that_a_rule_keeps_out_of_conntrack(
    routed: Routed, iptables: Iptables, match: str
) -> None:
    add(
        routed,
        iptables,
        f"-t raw -A PREROUTING {match} -j CT --notrack",
        "-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
        "-A FORWARD -i eth0 -j ACCEPT",
        "-P FORWARD DROP",
    )
    probed = send(routed)
    assert probed.cause == "asymmetric-reply", probed.text
    command = f"iptables-{iptables.backend} -t raw -D PREROUTING 1"
    remedy = f"to have it tracked, delete the rule that prevents it: {command}"
    assert remedy in probed.diagnosis.remedy
    follow(routed, remedy)
    assert send(routed).cause == "answered"
