"""What a user may do about a packet's death: how narrow it is, and what it names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ipttrace.diagnose import Case, diagnose
from ipttrace.evidence import NOTHING, Scene
from ipttrace.netfilter import Backend, Hook, TableFamily, Verdict
from ipttrace.path import ChainHop, Change, Diagnosis, Hop, Outcome, PacketPath, Role
from ipttrace.ruleset import Chain, MapElement, Ruleset
from tests import builders as b
from tests.unit.diagnose.cases import dropped, filter_rule, texts, why

NFT: dict[str, Any] = {"backend": Backend.NFT, "family": TableFamily.INET, "hook": Hook.FORWARD}
DEVICE: dict[str, Any] = {**NFT, "family": TableFamily.NETDEV}


def native(chain: str, number: int, text: str, **fields: Any) -> ChainHop:
    """Return the hop of a rule of `fw`."""
    return b.rule_hop("fw", chain, number, text, **{**NFT, **fields})


def kill(chain: str, number: int, text: str, **fields: Any) -> ChainHop:
    """Return the hop of a rule of `fw` that drops."""
    return native(chain, number, text, verdict=Verdict.DROP, **fields)


def answer(*hops: Hop, **fields: Any) -> PacketPath:
    """Return a dropped answer of the server."""
    packet = b.tcp(b.SERVER, b.CLIENT, sport=8443, dport=40000, flags=("SYN", "ACK"))
    words = {"number": 2, "role": Role.REPLY, "request": 1, "packet": packet, **fields}
    return b.path(*hops, outcome=Outcome.DROPPED, **{"in_interface": "eth1", **words})


# ------------------------------------------------------------------- rules that are not known


@pytest.mark.parametrize("verdict", [Verdict.DROP, Verdict.REJECT])
def test_a_rule_that_was_not_found_is_not_said_to_ask_for_nothing(verdict: Verdict) -> None:
    found = filter_rule("-j DROP", "FORWARD", backend=Backend.NFT)
    lost = replace(found, rule=None, number=None, target=None, verdict=verdict)
    diagnosis = dropped(lost)
    assert diagnosis.summary.endswith(
        ": the text of that rule is not known: the rules changed since they were read"
    )
    assert diagnosis.remedy == ("to see the rules of the chain now: iptables-nft -S FORWARD",)


def test_nor_is_its_caller_what_decided() -> None:
    marker = b.rule_hop("mangle", "PREROUTING", 1, "-j MARK", Change("mark", 0, 1))
    jump = filter_rule("-m mark --mark 0x1 -j KILL", number=3)
    lost = replace(filter_rule("-j DROP", "KILL"), rule=None, number=None)
    assert dropped(marker, jump, lost).cause == "rule-drop"
    assert dropped(marker, jump, filter_rule("-j DROP", "KILL")).cause == "mark-drop"


def test_a_native_rule_that_was_not_found() -> None:
    lost = replace(kill("forward", 1, "drop"), rule=None, number=None)
    see = "to see the rules of the chain now: nft -a list chain inet fw forward"
    assert dropped(lost).remedy == (see,)


def test_an_answer_that_a_rule_dropped_which_was_not_found() -> None:
    lost = replace(filter_rule("-j DROP", "FORWARD"), rule=None, number=None)
    request = b.path(b.policy_hop("filter", "FORWARD"), outcome=Outcome.FORWARDED)
    diagnosis = why(request, replies=[answer(lost)])
    see = "to see the rules of the chain now: iptables-legacy -S FORWARD"
    assert (diagnosis.cause, diagnosis.remedy) == ("asymmetric-reply", (see,))


# ------------------------------------------------------------------- verdict maps

BY_NAME = "tcp dport vmap @svc"
WRITTEN = "meta l4proto vmap { tcp : drop, udp : accept }"


def mapped(text: str, key: str | None, *behind: str) -> Diagnosis:
    """Return why a rule with a verdict map dropped a packet; `behind` are the rules after it."""
    element = None if key is None else MapElement(key, "drop")
    hop = kill("forward", 2, text, handle=4, element=element)
    rules = [b.rule(hop.chain, each, n) for n, each in enumerate(("accept", text, *behind), 1)]
    chain = Chain(hop.chain, tuple(rules), Hook.FORWARD, 0, Verdict.DROP)
    return why(b.path(hop, outcome=Outcome.DROPPED), b.ruleset(chain))


def test_of_a_named_map_the_element_is_deleted() -> None:
    diagnosis = mapped(BY_NAME, "8443")
    assert diagnosis.summary.endswith("the rule drops tcp dport 8443, an element of @svc")
    assert diagnosis.remedy[1:] == (
        (
            "or delete the element (the policy DROP then decides): "
            "nft delete element inet fw svc '{ 8443 }'"
        ),
    )
    assert "(the rules behind it then decide)" in mapped(BY_NAME, "8443", "drop").remedy[1]


@pytest.mark.parametrize("text", [WRITTEN, f"counter {WRITTEN}"])
def test_a_map_that_stands_in_the_rule_is_not_deleted(text: str) -> None:
    diagnosis = mapped(text, "tcp")
    assert diagnosis.summary.endswith("the rule drops meta l4proto tcp")
    assert len(diagnosis.remedy) == 1
    assert diagnosis.remedy[0].startswith("to let it through: nft insert rule")


def test_a_map_whose_element_is_not_known_is_quoted_whole() -> None:
    assert mapped(WRITTEN, None).summary.endswith(f"the rule drops {WRITTEN}")
    assert mapped(BY_NAME, None).summary.endswith(f"the rule drops {BY_NAME}")
    assert len(mapped(BY_NAME, None).remedy) == 1


def test_an_element_for_all_others() -> None:
    summary = mapped(BY_NAME, "*").summary
    assert summary.endswith("the rule drops tcp dport without an element in @svc")


def test_a_word_in_quotes_is_not_the_verdict() -> None:
    diagnosis = dropped(kill("forward", 1, 'tcp dport 22 log prefix "drop: " drop'))
    assert diagnosis.summary.endswith('the rule drops tcp dport 22 log prefix "drop: "')


# ------------------------------------------------------------------- lists of sources


def listed(jump: str) -> Diagnosis:
    """Return why a packet died that `jump` sent to a chain which drops all."""
    return dropped(
        b.rule_hop("filter", "FORWARD", 1, jump),
        b.rule_hop("filter", "DENY", 1, "-m limit --limit 3/hour -j LOG", hook=Hook.FORWARD),
        b.rule_hop("filter", "DENY", 2, "-j DROP", hook=Hook.FORWARD),
    )


def test_a_list_is_named_and_held_for_all_others() -> None:
    diagnosis = listed("-s 203.0.113.0/25 -j DENY")
    assert diagnosis.summary == (
        "dropped at filter/DENY 2: the rule drops every packet that comes to it, "
        "and filter/FORWARD 1 sends there -s 203.0.113.0/25"
    )
    assert [str(ref) for ref in diagnosis.rules] == ["filter/DENY 2", "filter/FORWARD 1"]
    assert diagnosis.remedy == (
        (
            f"to let it through: iptables-legacy -I DENY 2 -s {b.CLIENT} -d {b.SERVER} -p tcp "
            "--dport 8443 -j ACCEPT"
        ),
        "or delete the rule that sends it there: iptables-legacy -D FORWARD 1",
    )


def test_who_is_sent_there_for_its_port_comes_from_anywhere() -> None:
    diagnosis = listed("-p tcp -m tcp --dport 8443 -j DENY")
    assert diagnosis.summary.endswith("and filter/FORWARD 1 sends there -p tcp --dport 8443")
    assert "-s " not in diagnosis.remedy[0]
    assert diagnosis.remedy[1] == "or delete the rule: iptables-legacy -D DENY 2"
    assert listed("-j DENY").summary.endswith("drops every packet that comes to it")


def test_a_native_list() -> None:
    jump = native("forward", 1, "ip saddr @bad counter jump deny", handle=5, verdict=Verdict.JUMP)
    diagnosis = dropped(jump, kill("deny", 1, "counter drop", handle=4))
    assert diagnosis.summary.endswith("and fw/forward 1 sends there ip saddr @bad")
    assert diagnosis.remedy == (
        (
            f"to let it through: nft insert rule inet fw deny handle 4 ip saddr {b.CLIENT} "
            f"ip daddr {b.SERVER} tcp dport 8443 accept"
        ),
        "or delete the rule that sends it there: nft delete rule inet fw forward handle 5",
    )


# ------------------------------------------------------------------- places


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        (Scene(local=True, last=b.tcp()), "to let it in: {} -p tcp --dport 8443 -j ACCEPT"),
        (Scene(local=False, last=b.tcp()), "to let it through: {} -d {} -p tcp --dport 8443"),
        (Scene(local=True, last=b.tcp(dst="192.0.2.1")), "to let it pass: {} -d {} -p tcp"),
        (NOTHING, "to let it pass: {} -d {} -p tcp --dport 8443 -j ACCEPT"),
    ],
)
def test_a_packet_for_another_host_may_die_in_prerouting(scene: Scene, words: str) -> None:
    hop = b.rule_hop("raw", "PREROUTING", 1, "-p tcp -j DROP")
    diagnosis = why(b.path(hop, outcome=Outcome.DROPPED), scene=scene)
    command = words.format("iptables-legacy -t raw -I PREROUTING 1", b.SERVER)
    assert diagnosis.remedy[0].startswith(command)


def test_what_leaves_by_a_device_is_let_out_or_through() -> None:
    hop = kill("out", 1, "tcp dport 8443 drop", **{**DEVICE, "hook": Hook.EGRESS})
    assert dropped(hop).remedy[0].startswith("to let it through: nft insert rule netdev fw out")
    local = why(b.path(b.policy_hop("raw", "OUTPUT"), hop, outcome=Outcome.DROPPED))
    assert local.remedy[0].startswith("to let it out: nft insert rule netdev fw out")


@pytest.mark.parametrize(
    ("hop", "remedy"),
    [
        (
            kill("in", 1, "drop", handle=2, **{**DEVICE, "hook": Hook.INGRESS}, priority=0),
            "nft insert rule netdev fw in handle 2 ip saddr {} tcp sport 8443 accept",
        ),
        (
            kill("in", 1, "drop", handle=2, **{**NFT, "hook": Hook.INGRESS}, priority=0),
            "nft insert rule inet fw in handle 2 ip saddr {} tcp sport 8443 accept",
        ),
        (
            b.rule_hop("raw", "PREROUTING", 1, "-p tcp -j DROP"),
            "iptables-legacy -t raw -I PREROUTING 1 -s {} -p tcp --sport 8443 -j ACCEPT",
        ),
        (
            b.rule_hop("mangle", "PREROUTING", 1, "-p tcp -j DROP"),
            (
                "iptables-legacy -t mangle -I PREROUTING 1 -m conntrack --ctstate "
                "ESTABLISHED,RELATED -j ACCEPT"
            ),
        ),
    ],
    ids=["netdev", "inet ingress", "raw", "mangle"],
)
def test_an_answer_is_known_by_its_state_only_behind_conntrack(hop: ChainHop, remedy: str) -> None:
    wanted = remedy.format(b.SERVER)
    assert why(answer(hop)).remedy[0] == f"to let it pass: {wanted}"
    request = b.path(b.policy_hop("filter", "FORWARD"), outcome=Outcome.FORWARDED)
    told = why(request, replies=[answer(hop)])
    assert (told.cause, told.remedy) == ("asymmetric-reply", (f"to let answers pass: {wanted}",))


# ------------------------------------------------------------------- answers that are none

ESTABLISHED = "-m conntrack --ctstate ESTABLISHED -j ACCEPT"
ZONE = b.rule_hop("raw", "PREROUTING", 1, "-i eth0 -j CT --zone 5")
FORWARD = b.rule_hop("filter", "FORWARD", 2, "-i eth0 -m conntrack --ctstate NEW -j ACCEPT")
DIED = answer(filter_rule("-j DROP", "FORWARD", 3))


def rules(first: str = ESTABLISHED, *raw: str) -> Ruleset:
    """Return the rules of a router that lets requests from eth0 pass."""
    texts = [first, "-i eth0 -m conntrack --ctstate NEW -j ACCEPT", "-j DROP"]
    return b.ruleset(b.chain("filter", "FORWARD", texts), b.chain("raw", "PREROUTING", raw))


def request(*hops: Hop) -> PacketPath:
    """Return a request that was forwarded."""
    return b.path(*hops, FORWARD, outcome=Outcome.FORWARDED)


def test_a_rule_for_answers_that_did_not_match_is_not_proposed_again() -> None:
    diagnosis = why(request(ZONE), rules(), replies=[DIED])
    assert diagnosis.summary.endswith(
        "at filter/FORWARD 3: conntrack does not take it for an answer: "
        "filter/FORWARD 1 did not match it"
    )
    because = "raw/PREROUTING 1 puts the request into conntrack zone 5, and no rule the answer"
    assert because in texts(diagnosis)
    assert diagnosis.remedy == (
        (
            "to put answers into the same zone: "
            "iptables-legacy -t raw -A PREROUTING -i eth1 -j CT --zone 5"
        ),
    )


def test_a_zone_of_native_nft() -> None:
    zone = native("pre", 1, 'iifname "eth0" ct zone set 5', hook=Hook.PREROUTING)
    (remedy,) = why(request(zone), rules(), replies=[DIED]).remedy
    assert remedy.endswith(": nft add rule inet fw pre iifname eth1 ct zone set 5")


def test_without_a_zone_on_its_way_it_is_told_how_to_look() -> None:
    look = f"to see what conntrack knows of it: conntrack -L -s {b.CLIENT} -d {b.SERVER}"
    known = why(request(), rules(ESTABLISHED, "-i eth9 -j CT --zone 5"), replies=[DIED])
    assert known.remedy == (look,)
    assert any("the rules know conntrack zones: raw/PREROUTING 1" in t for t in texts(known))
    untracked = b.rule_hop("raw", "PREROUTING", 1, "-p tcp -j NOTRACK")
    told = why(request(untracked), rules(), replies=[DIED])
    assert any("raw/PREROUTING 1 keeps conntrack from tracking it" in t for t in texts(told))


@pytest.mark.parametrize(
    "first",
    [
        "-i eth0 -m conntrack --ctstate ESTABLISHED -j ACCEPT",
        "-m conntrack ! --ctstate ESTABLISHED -j ACCEPT",
        "-m conntrack --ctstate ESTABLISHED -j LOG",
        "-m conntrack --ctstate ESTABLISHED -m recent --name x --rcheck -j ACCEPT",
    ],
)
def test_a_rule_that_may_have_failed_for_something_else_proves_nothing(first: str) -> None:
    (remedy,) = why(request(ZONE), rules(first), replies=[DIED]).remedy
    known = "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    assert remedy == f"to let answers pass: iptables-legacy -I FORWARD 3 {known}"


def test_the_answer_itself_says_the_same() -> None:
    diagnosis = diagnose(Case(DIED, ruleset=rules(), paths=(request(ZONE), DIED)))
    assert diagnosis.remedy[0].startswith("to put answers into the same zone")


# ------------------------------------------------------------------- policies before the end


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("-s 203.0.113.0/24 -j RETURN", "-I FORWARD 3 -s 203.0.113.7"),
        ("-p tcp -g ASIDE", "-I FORWARD 3"),
        ("-p tcp -j ASIDE", "-A FORWARD"),
        ("-j MARK --set-xmark 0x1/0xffffffff", "-A FORWARD"),
    ],
)
def test_a_rule_for_a_policy_stands_where_it_is_asked(text: str, place: str) -> None:
    led = filter_rule(text, "FORWARD", number=3)
    led = replace(led, verdict=Verdict.RETURN) if "RETURN" in text else led
    found = dropped(led, b.policy_hop("filter", "FORWARD", Verdict.DROP))
    assert found.cause == "policy-drop"
    assert found.remedy[0].startswith(f"to let it through: iptables-legacy {place} ")
