from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ipttrace.evidence import Connection, Route, Scene, Trail
from ipttrace.netfilter import Verdict
from ipttrace.packet import Flow, PacketSummary
from ipttrace.path import Change, DropHop, Outcome, PacketPath, Role, Strength, WireHop
from tests import builders as b
from tests.unit.diagnose.cases import freed, texts, why

RAW = b.policy_hop("raw", "PREROUTING")
FULL = {"net/netfilter/nf_conntrack_count": "64", "net/netfilter/nf_conntrack_max": "64"}
DROPS = {"nf_conntrack.drop": 1}


def entry(packet: PacketSummary, status: int = 8, **fields: Any) -> Connection:
    """Return the entry of a packet, without NAT unless `reply` says else."""
    flow = packet.flow
    return Connection(flow, fields.pop("reply", flow.reversed()), status, **fields)


# ------------------------------------------------------------------- conntrack-full


def full(**words: Any) -> Scene:
    known: dict[str, Any] = {"trail": freed(), "counters": DROPS, "settings": FULL}
    return Scene(**{**known, **words})


@pytest.mark.parametrize("hops", [(), (RAW,)])
def test_a_full_table(hops: tuple[Any, ...]) -> None:
    diagnosis = why(b.path(*hops, outcome=Outcome.DROPPED), scene=full())
    assert diagnosis.cause == "conntrack-full"
    assert diagnosis.summary == (
        "dropped by connection tracking: its table is full (64 of 64 entries)"
    )
    assert diagnosis.remedy[0].endswith("sysctl -w net.netfilter.nf_conntrack_max=128")


def test_a_full_table_is_proved_by_counters_alone() -> None:
    diagnosis = why(b.path(RAW, outcome=Outcome.LOST), scene=full(trail=None))
    assert diagnosis.cause == "conntrack-full"


@pytest.mark.parametrize(
    "scene",
    [
        full(counters={}),
        full(counters=None),
        full(settings={}),
        full(settings={**FULL, "net/netfilter/nf_conntrack_count": "63"}),
        full(trail=freed("ip_rcv_finish", "IP_RPFILTER")),
        full(trail=Trail()),
    ],
)
def test_a_table_that_is_not_proved_to_be_full(scene: Scene) -> None:
    outcome = Outcome.DROPPED if scene.trail and scene.trail.drop else Outcome.LOST
    assert why(b.path(RAW, outcome=outcome), scene=scene).cause != "conntrack-full"


def test_a_packet_that_conntrack_let_pass_did_not_die_of_it() -> None:
    path = b.path(RAW, b.policy_hop("mangle", "PREROUTING"), outcome=Outcome.DROPPED)
    assert why(path, scene=full()).cause != "conntrack-full"
    path = b.path(b.rule_hop("raw", "PREROUTING", 1, "-j DROP"), outcome=Outcome.DROPPED)
    assert why(path, scene=full()).cause == "rule-drop"


# ------------------------------------------------------------------- hairpin-no-masquerade

TARGET = "203.0.113.9"
DNAT = f"-p tcp -m tcp --dport 80 -j DNAT --to-destination {TARGET}:8443"
SYN = b.tcp(dport=80)


def hairpin(**fields: Any) -> PacketPath:
    rewrite = (Change("dst", b.SERVER, TARGET), Change("dport", 80, 8443))
    values: dict[str, Any] = {
        "packet": SYN,
        "outcome": Outcome.FORWARDED,
        "in_interface": "br0",
        "out_interface": "br0",
    }
    hops = (b.rule_hop("nat", "PREROUTING", 1, DNAT, *rewrite), b.policy_hop("filter", "FORWARD"))
    return b.path(*hops, **{**values, **fields})


REPLY = Flow(SYN.family, "tcp", TARGET, b.CLIENT, 8443, 40000)
SENT_BACK = replace(SYN, dst=TARGET, dport=8443)


def seen(**words: Any) -> Scene:
    unreplied = entry(SYN, reply=REPLY, state="SYN_SENT")
    return Scene(**{"last": SENT_BACK, "connections": (unreplied,), **words})


def test_a_packet_that_is_sent_back_with_its_source() -> None:
    diagnosis = why(hairpin(), scene=seen(), client="TIMEOUT")
    assert diagnosis.cause == "hairpin-no-masquerade"
    assert [str(ref) for ref in diagnosis.rules] == ["nat/PREROUTING 1"]
    assert "conntrack's entry is SYN_SENT [UNREPLIED]" in texts(diagnosis)
    assert diagnosis.remedy[0].endswith(
        "iptables-legacy -t nat -A POSTROUTING -o br0 -s 203.0.113.7 -d 203.0.113.9 -p tcp"
        " --dport 8443 -j MASQUERADE"
    )


@pytest.mark.parametrize(
    ("path", "scene", "client"),
    [
        (hairpin(out_interface="eth1"), seen(), "TIMEOUT"),
        (hairpin(), seen(), "CONNECTED"),
        (hairpin(), seen(last=replace(SENT_BACK, src=b.SERVER)), "TIMEOUT"),
        (hairpin(), seen(connections=(entry(SYN, 10, reply=REPLY),)), "TIMEOUT"),
        (hairpin(), seen(connections=()), "TIMEOUT"),
        (hairpin(), seen(connections=None), "TIMEOUT"),
        (hairpin(), seen(route=Route("unicast", "br0", "203.0.113.254")), "TIMEOUT"),
        (hairpin(), seen(route_back=Route("unicast", "br0", "203.0.113.254")), "TIMEOUT"),
    ],
)
def test_what_is_no_hairpin(path: PacketPath, scene: Scene, client: str) -> None:
    assert why(path, scene=scene, client=client).cause != "hairpin-no-masquerade"


def test_a_contained_packet_tells_nothing_of_the_answer() -> None:
    path = hairpin()
    path = replace(path, hops=(*path.hops, WireHop(b.TIME, "contained", "br0")))
    assert why(path, scene=seen()).cause == "unknown"


def test_without_nat_it_is_no_hairpin() -> None:
    path = b.path(
        b.policy_hop("filter", "FORWARD"),
        outcome=Outcome.FORWARDED,
        in_interface="br0",
        out_interface="br0",
    )
    scene = Scene(connections=(entry(b.tcp(), state="SYN_SENT"),))
    assert why(path, scene=scene, client="TIMEOUT").cause != "hairpin-no-masquerade"


# ------------------------------------------------------------------- asymmetric-reply

DELIVERED = b.path(b.policy_hop("filter", "INPUT"))


def reply(*hops: Any, **fields: Any) -> PacketPath:
    packet = b.tcp(b.SERVER, b.CLIENT, sport=8443, dport=40000, flags=("SYN", "ACK"))
    values: dict[str, Any] = {
        "number": 2,
        "role": Role.REPLY,
        "request": 1,
        "packet": packet,
        "outcome": Outcome.SENT,
        "out_interface": "eth1",
    }
    return b.path(b.policy_hop("raw", "OUTPUT"), *hops, **{**values, **fields})


@pytest.mark.parametrize("client", [None, "TIMEOUT"])
def test_an_answer_by_another_interface(client: str | None) -> None:
    diagnosis = why(DELIVERED, replies=[reply()], client=client)
    assert diagnosis.cause == "asymmetric-reply"
    assert diagnosis.summary == (
        "the request came in by eth0 and was delivered, but its answer left by eth1"
    )
    assert diagnosis.evidence[-1].strength is Strength.REPORTED


def test_an_answer_that_a_rule_dropped() -> None:
    drop = b.rule_hop("filter", "OUTPUT", 3, "-p tcp -j DROP")
    died = reply(drop, outcome=Outcome.DROPPED, out_interface=None)
    diagnosis = why(DELIVERED, replies=[died])
    assert diagnosis.cause == "asymmetric-reply"
    assert diagnosis.summary.endswith("its answer was dropped on its way out, at filter/OUTPUT 3")
    assert [str(ref) for ref in diagnosis.rules] == ["filter/OUTPUT 3"]


def test_an_answer_that_the_kernel_dropped() -> None:
    drop = DropHop(b.TIME, "NEIGH_FAILED", "neigh_invalidate")
    diagnosis = why(DELIVERED, replies=[reply(drop, outcome=Outcome.DROPPED, out_interface=None)])
    assert diagnosis.summary.endswith("died on its way out: NEIGH_FAILED in neigh_invalidate")


@pytest.mark.parametrize(
    ("path", "answer", "client"),
    [
        (DELIVERED, reply(), "CONNECTED"),
        (DELIVERED, reply(out_interface="eth0"), "TIMEOUT"),
        (DELIVERED, reply(out_interface=None), "TIMEOUT"),
        (replace(DELIVERED, outcome=Outcome.FORWARDED), reply(), "TIMEOUT"),
    ],
)
def test_answers_that_went_their_way(path: PacketPath, answer: PacketPath, client: str) -> None:
    assert why(path, replies=[answer], client=client).cause != "asymmetric-reply"


def came_back(*hops: Any, **fields: Any) -> PacketPath:
    return reply(*hops, **{"in_interface": "eth1", "out_interface": None, **fields})


@pytest.mark.parametrize(
    ("outcome", "word"), [(Outcome.FORWARDED, "forwarded"), (Outcome.SENT, "sent")]
)
def test_an_answer_that_came_in_and_was_dropped(outcome: Outcome, word: str) -> None:
    policy = b.policy_hop("filter", "INPUT", verdict=Verdict.DROP)
    died = came_back(policy, outcome=Outcome.DROPPED)
    diagnosis = why(replace(DELIVERED, outcome=outcome), replies=[died], client="TIMEOUT")
    assert diagnosis.cause == "asymmetric-reply"
    assert diagnosis.summary == (
        f"the request was {word}, but its answer was dropped on its way back, at "
        "filter/INPUT policy"
    )
    (remedy,) = diagnosis.remedy
    known = "-m conntrack --ctstate ESTABLISHED,RELATED"
    assert remedy == f"to let answers pass: iptables-legacy -A INPUT {known} -j ACCEPT"


def test_one_answer_that_got_through_is_enough() -> None:
    policy = b.policy_hop("filter", "INPUT", verdict=Verdict.DROP)
    died = came_back(policy, outcome=Outcome.DROPPED)
    fine = came_back(number=3, outcome=Outcome.DELIVERED)
    diagnosis = why(replace(DELIVERED, outcome=Outcome.SENT), replies=[died, fine])
    assert diagnosis.cause == "answered"


def test_the_remedy_for_a_dropped_answer_names_no_port_of_its_own() -> None:
    drop = b.rule_hop("filter", "OUTPUT", 3, "-p tcp -j DROP")
    diagnosis = why(reply(drop, outcome=Outcome.DROPPED, out_interface=None))
    assert diagnosis.remedy[0] == (
        "to let it out: iptables-legacy -I OUTPUT 3 -m conntrack --ctstate "
        "ESTABLISHED,RELATED -j ACCEPT"
    )


# ------------------------------------------------------------------- stale-conntrack

REDIRECT = "-p udp -m udp --dport 8443 -j REDIRECT --to-ports 9999"
DATAGRAM = b.udp()
NAT = b.ruleset(b.chain("nat", "PREROUTING", ["-p tcp -j DNAT --to-destination 1.2.3.4", REDIRECT]))
INPUT = b.policy_hop("filter", "INPUT")


def before(*entries: Connection) -> Scene:
    return Scene(before=entries, connections=entries)


OLD = entry(DATAGRAM)


@pytest.mark.parametrize("outcome", [Outcome.DELIVERED, Outcome.REFUSED])
def test_an_older_entry_keeps_the_nat_rules_from_being_asked(outcome: Outcome) -> None:
    path = b.path(INPUT, packet=DATAGRAM, outcome=outcome)
    diagnosis = why(path, NAT, scene=before(OLD))
    assert diagnosis.cause == "stale-conntrack"
    assert diagnosis.summary.startswith("nat/PREROUTING 2 was not asked: the older conntrack entry")
    assert "".join(diagnosis.remedy) == (
        "to have the nat rules asked again: conntrack -D -f ipv4 -p udp -s 203.0.113.7"
        " -d 198.51.100.1 --sport 40000 --dport 8443"
    )


def test_a_rule_that_matched_and_changed_nothing() -> None:
    hop = b.rule_hop("nat", "PREROUTING", 2, REDIRECT)
    diagnosis = why(b.path(hop, INPUT, packet=DATAGRAM), NAT, scene=before(OLD))
    assert diagnosis.cause == "stale-conntrack"
    assert "matched, and changed nothing" in diagnosis.summary


def test_a_policy_that_drops_what_was_not_rewritten() -> None:
    path = b.path(
        b.policy_hop("filter", "INPUT", Verdict.DROP), packet=DATAGRAM, outcome=Outcome.DROPPED
    )
    diagnosis = why(path, NAT, scene=before(OLD))
    assert diagnosis.cause == "stale-conntrack"
    assert "by itself this is a policy-drop" in texts(diagnosis)


REDIRECTED = entry(
    DATAGRAM, 40, reply=Flow(DATAGRAM.family, "udp", b.SERVER, b.CLIENT, 9999, 40000)
)


@pytest.mark.parametrize(
    ("scene", "hops"),
    [
        (before(), (INPUT,)),
        (before(REDIRECTED), (INPUT,)),
        (before(replace(OLD, original=OLD.reply, reply=OLD.original)), (INPUT,)),
        (before(OLD), (b.policy_hop("nat", "PREROUTING"), INPUT)),
        (before(OLD), (b.rule_hop("nat", "PREROUTING", 2, REDIRECT, Change("dport", 8443, 9999)),)),
    ],
)
def test_entries_that_are_as_the_rules_want(scene: Scene, hops: tuple[Any, ...]) -> None:
    path = b.path(*hops, packet=DATAGRAM)
    assert why(path, NAT, scene=scene).cause == "delivered"


def test_a_packet_that_died_before_the_nat_rules_was_not_kept_from_them() -> None:
    path = b.path(RAW, packet=DATAGRAM, outcome=Outcome.LOST)
    assert why(path, NAT, scene=before(OLD)).cause == "unknown"


@pytest.mark.parametrize("rule", ["-p udp -m limit --limit 1/sec -j DNAT --to-destination 1.1.1.1"])
def test_a_rule_that_is_not_judged_is_not_said_to_match(rule: str) -> None:
    ruleset = b.ruleset(b.chain("nat", "PREROUTING", [rule, REDIRECT]))
    assert why(b.path(INPUT, packet=DATAGRAM), ruleset, scene=before(OLD)).cause == "delivered"


@pytest.mark.parametrize(
    ("rule", "status", "cause"),
    [
        ("-o eth1 -j MASQUERADE", 8, "stale-conntrack"),
        ("-o eth1 -j MASQUERADE", 24, "remote-silent"),
        ("-o eth1 -j SNAT --to-source 192.0.2.1", 8, "stale-conntrack"),
        ("-o eth1 -j SNAT --to-source 203.0.113.7", 8, "remote-silent"),
        ("-o eth2 -j MASQUERADE", 8, "remote-silent"),
    ],
)
def test_the_source_that_an_older_entry_kept(rule: str, status: int, cause: str) -> None:
    ruleset = b.ruleset(b.chain("nat", "POSTROUTING", [rule]))
    path = b.path(
        b.policy_hop("filter", "FORWARD"),
        packet=DATAGRAM,
        outcome=Outcome.FORWARDED,
        out_interface="eth1",
    )
    assert why(path, ruleset, scene=before(entry(DATAGRAM, status))).cause == cause


@pytest.mark.parametrize(
    ("to", "stale"),
    [
        ("198.51.100.1:8443", False),
        ("198.51.100.1", False),
        ("198.51.100.9", True),
        ("198.51.100.1:80", True),
        ("198.51.100.1-198.51.100.9", False),
        ("198.51.100.9:80-90", False),
    ],
)
def test_only_what_surely_differs_is_stale(to: str, stale: bool) -> None:
    ruleset = b.ruleset(b.chain("nat", "PREROUTING", [f"-p udp -j DNAT --to-destination {to}"]))
    cause = why(b.path(INPUT, packet=DATAGRAM), ruleset, scene=before(OLD)).cause
    assert cause == ("stale-conntrack" if stale else "delivered")
