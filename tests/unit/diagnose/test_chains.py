from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.netfilter import Backend, Hook, TableFamily, Verdict
from ipttrace.path import (
    Change,
    Outcome,
    PacketPath,
    Role,
    WireHop,
)
from ipttrace.ruleset import Chain, Ruleset
from tests import builders as b
from tests.unit.diagnose.cases import BACKENDS, filter_rule, texts, why


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_drop_for_a_mark_names_both_rules(backend: Backend) -> None:
    diagnosis = why(b.mark_drop_path(backend), b.article_rules(backend))
    assert diagnosis.cause == "mark-drop"
    assert diagnosis.summary == (
        "dropped at filter/INPUT 1: it drops mark 0x1, which mangle/PREROUTING 1 had set"
    )
    assert [str(ref) for ref in diagnosis.rules] == ["filter/INPUT 1", "mangle/PREROUTING 1"]
    assert diagnosis.remedy == (
        (
            f"to spare this client the mark: iptables-{backend} -t mangle -I PREROUTING 1"
            " -s 203.0.113.7 -p tcp --dport 8443 -j ACCEPT"
        ),
        f"or delete the rule that drops: iptables-{backend} -D INPUT 1",
    )
    assert [(str(u.rule), u.criterion, u.actual) for u in diagnosis.unmatched] == [
        ("nat/PREROUTING 1", "--dport 8445", "8443")
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_redirected_packet_is_delivered(backend: Backend) -> None:
    diagnosis = why(b.redirect_path(backend), b.article_rules(backend))
    assert diagnosis.cause == "delivered"
    assert diagnosis.summary == (
        "delivered to 198.51.100.1:8443: nat/PREROUTING 1 changed dport 8445 -> 8443"
    )
    assert [str(ref) for ref in diagnosis.rules] == ["nat/PREROUTING 1"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_local_packet_dies_when_it_comes_in_again_on_lo(backend: Backend) -> None:
    diagnosis = why(b.local_path(backend), b.article_rules(backend), client="TIMEOUT")
    assert diagnosis.cause == "mark-drop"
    assert diagnosis.summary == (
        "dropped at filter/INPUT 1: it drops mark 0x1, which mangle/PREROUTING 1 had set"
        " when the packet came in again on lo, to port 8443"
    )
    assert "nat/OUTPUT 1 changed dport 8445 -> 8443" in texts(diagnosis)
    assert diagnosis.remedy[0] == (
        f"to spare packets of this host the mark: iptables-{backend} -t mangle -I PREROUTING 1"
        " -i lo -p tcp --dport 8443 -j ACCEPT"
    )


def test_a_contained_probe_knows_nothing_of_what_lies_beyond() -> None:
    diagnosis = why(b.forward_path(WireHop(b.TIME, "contained", "eth1")))
    assert diagnosis.cause == "unknown"
    assert diagnosis.summary == "left by eth1 (contained); use --let-out to go further"


def answer(**fields: object) -> PacketPath:
    values: dict[str, object] = {
        "number": 2,
        "role": Role.REPLY,
        "request": 1,
        "in_interface": "eth1",
        "outcome": Outcome.FORWARDED,
        "packet": b.tcp(b.SERVER, b.CLIENT, flags=("SYN", "ACK")),
    }
    return b.path(b.policy_hop("raw", "PREROUTING"), **{**values, **fields})  # type: ignore[arg-type]


SENT = WireHop(b.TIME, "sent", "eth1")


def test_a_forwarded_packet_whose_answer_came_back_is_answered() -> None:
    diagnosis = why(b.forward_path(SENT), replies=[answer()])
    assert diagnosis.cause == "answered"
    assert diagnosis.summary == "forwarded by eth1, and its answer came back"


@pytest.mark.parametrize(
    ("packet", "kind"),
    [
        (b.tcp(b.SERVER, b.CLIENT, flags=("RST", "ACK")), "a TCP reset"),
        (b.icmp(b.SERVER, b.CLIENT, kind=3, code=3), "ICMP type 3 code 3"),
    ],
)
def test_a_refusal_from_outside_is_remote(packet: object, kind: str) -> None:
    diagnosis = why(b.forward_path(SENT), replies=[answer(packet=packet)])
    assert diagnosis.cause == "remote-refused"
    assert diagnosis.summary == (
        f"forwarded by eth1; 198.51.100.1 refused it with {kind}, not this host"
    )


def test_an_answer_to_another_packet_proves_nothing() -> None:
    diagnosis = why(b.forward_path(SENT), replies=[answer(request=9)])
    assert diagnosis.cause == "remote-silent"
    assert diagnosis.summary == "forwarded by eth1, and nothing came back"


def test_an_error_that_this_host_made_is_no_answer_from_outside() -> None:
    made_here = b.reply_path(packet=b.icmp(b.SERVER, b.CLIENT, kind=3, code=1))
    assert why(b.forward_path(SENT), replies=[made_here]).cause == "unknown"


def test_a_packet_that_left_without_a_wire_hop_still_names_the_interface() -> None:
    path = b.path(b.policy_hop("filter", "OUTPUT"), outcome=Outcome.SENT, out_interface="eth2")
    assert why(path).summary == "sent by eth2, and nothing came back"


def test_a_packet_that_no_rule_touched() -> None:
    path = b.path(b.policy_hop("filter", "INPUT"))
    assert why(path).summary == "delivered: no rule stood in its way"


def test_a_client_that_timed_out_all_the_same_is_evidence() -> None:
    evidence = why(b.path(b.policy_hop("filter", "INPUT")), client="TIMEOUT").evidence
    assert [each.text for each in evidence] == [
        "yet the client got TIMEOUT: look at what became of the answer"
    ]


def refused(dport: int = 8445, **fields: object) -> PacketPath:
    values: dict[str, object] = {
        "packet": b.tcp(b.SERVER, b.SERVER, dport=dport),
        "outcome": Outcome.REFUSED,
    }
    hops = (
        b.policy_hop("raw", "OUTPUT"),
        b.policy_hop("nat", "OUTPUT"),
        b.policy_hop("filter", "OUTPUT"),
        b.policy_hop("raw", "PREROUTING"),
        b.policy_hop("filter", "INPUT"),
    )
    return b.path(*hops, **{**values, **fields})  # type: ignore[arg-type]


def nat_rules(text: str, backend: Backend = Backend.LEGACY) -> Ruleset:
    return b.ruleset(b.chain("nat", "PREROUTING", [text], backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_redirect_that_local_packets_never_meet(backend: Backend) -> None:
    diagnosis = why(refused(), nat_rules(b.REDIRECT_RULE, backend), client="ECONNREFUSED")
    assert diagnosis.cause == "redirect-not-in-output"
    assert diagnosis.summary == (
        "refused: this host made the packet itself, so nat/PREROUTING 1, which would send it on"
        " (REDIRECT), was never asked"
    )
    assert diagnosis.remedy == (
        (
            f"the same rule for packets made here: iptables-{backend} -t nat -A OUTPUT -o lo"
            " -d 198.51.100.1/32 -p tcp -m tcp --dport 8445 -j REDIRECT --to-ports 8443"
        ),
    )


@pytest.mark.parametrize("way_in", ["-i eth0", "! -i eth1"])
def test_a_redirect_for_one_interface_is_proposed_without_it(way_in: str) -> None:
    text = f"{way_in} -p tcp -m tcp --dport 8445 -j REDIRECT --to-ports 8443"
    diagnosis = why(refused(), nat_rules(text))
    assert diagnosis.cause == "redirect-not-in-output"
    assert diagnosis.remedy[0].endswith(
        " -A OUTPUT -o lo -p tcp -m tcp --dport 8445 -j REDIRECT --to-ports 8443"
    )


@pytest.mark.parametrize("way_in", ['iifname "eth0"', 'meta iifname != "eth1"', "iif { 2, 3 }"])
def test_a_native_redirect_for_one_interface(way_in: str) -> None:
    ref = b.chain_ref("n", "pre", Backend.NFT, TableFamily.INET)
    rule = b.rule(ref, f"{way_in} tcp dport 8445 redirect to :8443", 1)
    diagnosis = why(refused(), b.ruleset(Chain(ref, (rule,), Hook.PREROUTING, -100)))
    assert diagnosis.cause == "redirect-not-in-output"
    assert diagnosis.remedy[0].endswith("'oifname \"lo\" tcp dport 8445 redirect to :8443'")


@pytest.mark.parametrize("way_in", [None, "lo"])
def test_a_packet_made_here_may_meet_its_first_chain_on_lo(way_in: str | None) -> None:
    path = refused(in_interface=way_in)
    path = replace(path, hops=path.hops[3:])
    diagnosis = why(path, nat_rules(b.REDIRECT_RULE, Backend.NFT))
    assert diagnosis.cause == "redirect-not-in-output"
    assert diagnosis.evidence[0].text == "its way begins here; raw/PREROUTING policy saw it on lo"


def test_a_packet_that_came_in_by_an_interface_was_not_made_here() -> None:
    path = refused(in_interface="eth0")
    path = replace(path, hops=path.hops[3:])
    assert why(path, nat_rules(b.REDIRECT_RULE)).cause == "unknown"


def test_a_packet_that_came_back_on_lo_went_out_by_it() -> None:
    diagnosis = why(refused(out_interface=None), nat_rules(b.REDIRECT_RULE))
    assert "-A OUTPUT -o lo " in diagnosis.remedy[0]


@pytest.mark.parametrize(
    "text",
    [
        "-p tcp -m tcp --dport 9999 -j REDIRECT --to-ports 8443",
        "-p udp -m udp --dport 8445 -j REDIRECT --to-ports 8443",
        "-d 198.51.100.9/32 -p tcp -m tcp --dport 8445 -j REDIRECT --to-ports 8443",
        "-i eth0 -p tcp -m tcp --dport 9999 -j REDIRECT --to-ports 8443",
        "-i eth0 -p tcp -j REDIRECT --to-ports 8443",
        "-p tcp -m tcp --dport 8445 -m mark --mark 0x1 -j REDIRECT --to-ports 8443",
        "-p tcp -m tcp --dport 8445 -j LOG",
        "-p tcp -j REDIRECT --to-ports 8443",
    ],
)
def test_a_rule_that_does_not_surely_match_is_not_blamed(text: str) -> None:
    assert why(refused(), nat_rules(text)).cause == "unknown"


def test_a_match_in_nat_output_speaks_against_it() -> None:
    hit = b.rule_hop("nat", "OUTPUT", 1, b.LOCAL_RULE, Change("dport", 8445, 8443))
    path = refused()
    path = replace(path, hops=(path.hops[0], hit, *path.hops[2:]))
    assert why(path, nat_rules(b.REDIRECT_RULE)).cause == "unknown"


def test_nat_output_is_not_asked_for_what_is_not_tracked() -> None:
    untracked = b.rule_hop("raw", "OUTPUT", 1, "-p tcp -m tcp --dport 8445 -j NOTRACK")
    path = refused()
    path = replace(path, hops=(untracked, *path.hops[2:]))
    assert why(path, nat_rules(b.REDIRECT_RULE)).cause == "unknown"


def test_a_packet_from_outside_cannot_miss_prerouting() -> None:
    path = b.path(b.policy_hop("filter", "INPUT"), outcome=Outcome.REFUSED)
    assert why(path, nat_rules("-p tcp -m tcp --dport 8443 -j DNAT")).cause == "unknown"


def test_a_reset_by_this_host_is_not_called_no_listener() -> None:
    path = b.path(b.policy_hop("filter", "INPUT"), outcome=Outcome.REFUSED)
    reset = b.reply_path(packet=b.tcp(b.SERVER, b.CLIENT, sport=8443, flags=("RST", "ACK")))
    diagnosis = why(path, replies=[reset])
    assert diagnosis.cause == "unknown"
    assert "answered with RST by this host" in texts(diagnosis)
    assert diagnosis.remedy == (
        "to see what listens there (in namespace server): ss -tlnp 'sport = :8443'",
    )


def test_a_packet_that_came_to_no_chain() -> None:
    diagnosis = why(b.path(outcome=Outcome.LOST), client="ENETUNREACH")
    assert diagnosis.summary == (
        "it never came to a chain of this namespace: the client's call ended with ENETUNREACH"
    )
    assert diagnosis.remedy == ("to see the route that the sender has: ip route get 198.51.100.1",)


def test_a_lost_packet_is_sent_on_to_routing() -> None:
    diagnosis = why(b.path(b.policy_hop("nat", "PREROUTING"), outcome=Outcome.LOST))
    assert diagnosis.summary == (
        "lost after nat/PREROUTING policy, and no rule or policy that was reported did it"
    )
    assert diagnosis.remedy == (
        "to see what routing says of it: ip route get 198.51.100.1 from 203.0.113.7 iif eth0",
    )


def test_a_queued_packet_says_so() -> None:
    path = b.path(filter_rule("-j NFQUEUE --queue-num 3"), outcome=Outcome.LOST)
    assert why(path).summary == ("filter/INPUT 1 queued it for a program, and it did not come back")


def test_an_incomplete_path_says_that_reports_were_lost() -> None:
    path = b.path(b.policy_hop("nat", "PREROUTING"), outcome=Outcome.INCOMPLETE)
    assert why(path).summary.startswith("its way is not complete: reports were lost")


def test_a_drop_that_no_rule_did_is_unknown() -> None:
    path = b.path(b.policy_hop("filter", "INPUT"), outcome=Outcome.DROPPED)
    assert why(path).cause == "unknown"


def test_what_a_rule_took_away_was_not_lost() -> None:
    text = 'tcp dport 81 fwd to "eth1"'
    hop = replace(b.rule_hop("fw", "ing", 2, "-j ACCEPT"), verdict=Verdict.STOLEN, rule=text)
    found = why(b.path(hop, outcome=Outcome.LOST))
    assert found.summary == (
        f"fw/ing 2 took it out of the chains, and no later one sees it: {text}"
    )


MINE = "-p tcp -m tcp --dport 8445 -j REDIRECT --to-ports 8443"


@pytest.mark.parametrize(
    ("way", "cause"),
    [
        ("-j MINE", "redirect-not-in-output"),
        ("-i eth0 -j MINE", "redirect-not-in-output"),
        ("-m addrtype --dst-type LOCAL -j MINE", "redirect-not-in-output"),
        ("-p udp -j MINE", "unknown"),
        ("-s 192.0.2.0/24 -j MINE", "unknown"),
        ("-j OTHER", "unknown"),
    ],
)
def test_a_redirect_in_a_chain_of_ones_own(way: str, cause: str) -> None:
    """As Docker and kube-proxy write theirs."""
    rules = b.ruleset(b.chain("nat", "PREROUTING", [way]), b.chain("nat", "MINE", [MINE]))
    diagnosis = why(refused(), rules)
    assert diagnosis.cause == cause
    if cause != "unknown":
        assert [str(ref) for ref in diagnosis.rules] == ["nat/MINE 1"]
        assert diagnosis.remedy[0].endswith(f"iptables-legacy -t nat -A OUTPUT -o lo {MINE}")


@pytest.mark.parametrize("zones", ['iifname vmap { "eth0" : goto zone }', "goto zone"])
def test_a_redirect_in_a_native_zone(zones: str) -> None:
    """As firewalld writes its own."""
    base = b.chain_ref("fw", "pre", Backend.NFT, TableFamily.INET)
    zone = replace(base, chain="zone")
    redirect = b.rule(zone, "tcp dport 8445 redirect to :8443", 1)
    first = Chain(base, (b.rule(base, zones, 1),), Hook.PREROUTING, -90)
    diagnosis = why(refused(), b.ruleset(first, Chain(zone, (redirect,))))
    assert diagnosis.cause == "redirect-not-in-output"
    assert [str(ref) for ref in diagnosis.rules] == ["fw/zone 1"]


def test_what_is_sent_from_loopback_to_another_host_needs_another_address() -> None:
    packet = b.tcp("127.0.0.1", "127.0.0.1", dport=8445)
    text = "-p tcp -m tcp --dport 8445 -j DNAT --to-destination 203.0.113.2:80"
    diagnosis = why(refused(packet=packet), nat_rules(text))
    assert "for packets made here, which must then not go to 127.0.0.1: " in diagnosis.remedy[0]
