from __future__ import annotations

import pytest

from ipttrace.matching import Criterion, PacketFacts, criteria, judge
from ipttrace.packet import PacketSummary
from tests import builders as b

FACTS = PacketFacts(b.tcp(dport=8445), "eth0")
V6 = PacketFacts(b.tcp(b.CLIENT6, b.SERVER6, dport=53), None, "eth1")


@pytest.mark.parametrize(
    "rule",
    [
        "-j DROP",
        "-p tcp -j DROP",
        "-p 6 -j DROP",
        "-p all -j DROP",
        "! -p udp -j DROP",
        "-s 203.0.113.0/24 -j DROP",
        "-s 203.0.113.7/32 -d 198.51.100.1/32 -j DROP",
        "-s 203.0.113.0/255.255.255.0 -j DROP",
        "! -s 10.0.0.0/8 -j DROP",
        "-i eth0 -j DROP",
        "-i eth+ -j DROP",
        "! -i lo -j DROP",
        "-p tcp -m tcp --dport 8445 -j DROP",
        "-p tcp -m tcp --dport 8000:9000 -j DROP",
        "-p tcp -m tcp --dport 8000: -j DROP",
        "-p tcp -m tcp --sport :40000 ! --dport 80 -j DROP",
        "-p tcp -m multiport --dports 80,443,8440:8450 -j DROP",
        "-p tcp -m multiport --ports 1,40000 -j DROP",
        '-p tcp -m comment --comment "-j ! --dport 1" -m tcp --dport 8445 -g X',
    ],
)
def test_rules_that_match(rule: str) -> None:
    judgement = judge(f"-A INPUT {rule}", FACTS)
    assert (judgement.matches, judgement.failures, judgement.not_judged) == (True, (), ())


@pytest.mark.parametrize(
    ("rule", "criterion", "actual"),
    [
        ("-p udp -j DROP", "-p udp", "tcp"),
        ("! -p tcp -j DROP", "! -p tcp", "tcp"),
        ("-s 203.0.113.8/32 -j DROP", "-s 203.0.113.8/32", "203.0.113.7"),
        ("! -d 198.51.100.0/24 -j DROP", "! -d 198.51.100.0/24", "198.51.100.1"),
        ("-i lo -j DROP", "-i lo", "eth0"),
        ("-o eth0 -j DROP", "-o eth0", "none"),
        ("-p tcp -m tcp --dport 8443 -j DROP", "--dport 8443", "8445"),
        ("-p tcp -m tcp ! --sport 1:50000 -j DROP", "! --sport 1:50000", "40000"),
        ("-p tcp -m multiport --sports 1,2 -j DROP", "--sports 1,2", "40000"),
        ("-p tcp -m multiport --ports 1,2 -j DROP", "--ports 1,2", "40000 and 8445"),
        ("-p udp -m conntrack --ctstate NEW -j DROP", "-p udp", "tcp"),
    ],
)
def test_a_rule_that_does_not_match_names_the_criterion(
    rule: str, criterion: str, actual: str
) -> None:
    judgement = judge(f"-A INPUT {rule}", FACTS)
    assert judgement.matches is False
    assert [(str(f.criterion), f.actual) for f in judgement.failures] == [(criterion, actual)]


@pytest.mark.parametrize(
    "rule",
    [
        "-m mark --mark 0x1 -j DROP",
        "-m connmark --mark 0x1 -j DROP",
        "-p tcp -m tcp --tcp-flags FIN,WRONG FIN -j DROP",
        "-m icmp --icmp-type 8 -j DROP",
        "-m addrtype --dst-type LOCAL -j DROP",
        "-m set --match-set web dst -j DROP",
        "-p tcp -m conntrack --ctstate NEW -m tcp --dport 8445 -j DROP",
        "-m socket -j DROP",
        "-f -j DROP",
        "-d 198.51.100.1/255.0.255.0 -j DROP",
        "-p tcp -m tcp --dport http -j DROP",
    ],
)
def test_what_cannot_be_judged_is_not_guessed(rule: str) -> None:
    judgement = judge(f"-A INPUT {rule}", FACTS)
    assert judgement.matches is None
    assert judgement.not_judged


@pytest.mark.parametrize("text", ["", "tcp dport 22 drop", '-A INPUT --comment "open', "-N WEB"])
def test_what_is_no_iptables_rule_is_not_judged(text: str) -> None:
    assert judge(text, FACTS).matches is None


def test_ipv6_is_judged_alike() -> None:
    assert judge("-A OUTPUT -d 2001:db8:1::/48 -o eth+ -p tcp -j DROP", V6).matches is True
    assert judge("-A OUTPUT -d 2001:db8:2::/48 -j DROP", V6).matches is False


def test_icmp_has_other_names_and_no_ports() -> None:
    facts = PacketFacts(b.icmp(b.CLIENT6, b.SERVER6, kind=128), "eth0")
    assert judge("-A INPUT -p ipv6-icmp -j DROP", facts).matches is True
    assert judge("-A INPUT -m tcp --dport 1 -j DROP", facts).matches is None


def test_a_later_fragment_has_no_ports_to_judge() -> None:
    packet = PacketSummary(FACTS.packet.family, "tcp", b.CLIENT, b.SERVER, fragment_offset=1480)
    assert judge("-A INPUT -p tcp -m tcp --dport 80 -j DROP", PacketFacts(packet)).matches is None


def test_an_interface_that_is_not_known_is_not_judged() -> None:
    facts = PacketFacts(b.tcp(), "eth0", None, frozenset({"-o"}))
    assert judge("-A FORWARD -o eth1 -j DROP", facts).matches is None


def test_criteria_keep_their_order_and_their_negation() -> None:
    assert criteria("-A X ! -s 10.0.0.0/8 -p tcp -m tcp ! --dport 80 -j DROP") == (
        Criterion("-s", "10.0.0.0/8", negated=True),
        Criterion("-p", "tcp"),
        Criterion("-m", "tcp"),
        Criterion("--dport", "80", negated=True),
    )


KNOWN = PacketFacts(
    b.tcp(dport=8445),
    "eth0",
    mark=0x41,
    connmark=7,
    ct_state="NEW",
    local={b.SERVER: True, b.CLIENT: False},
)


@pytest.mark.parametrize(
    "rule",
    [
        "-m mark --mark 0x41 -j DROP",
        "-m mark --mark 0x40/0x40 -j DROP",
        "-m mark ! --mark 0x1 -j DROP",
        "-m connmark --mark 7 -j DROP",
        "-m mark --mark 0x41 -m connmark --mark 0x7/0xff -j DROP",
        "-m conntrack --ctstate NEW,RELATED -j DROP",
        "-m conntrack ! --ctstate ESTABLISHED -j DROP",
        "-m state --state NEW -j DROP",
        "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j DROP",
        "-p tcp -m tcp --syn -j DROP",
        "-p tcp -m tcp ! --tcp-flags ALL NONE -j DROP",
        "-p tcp -m tcp --tcp-flags ALL SYN -j DROP",
        "-m iprange --src-range 203.0.113.1-203.0.113.9 -j DROP",
        "-m iprange ! --dst-range 203.0.113.1-203.0.113.9 -j DROP",
        "-m addrtype --dst-type LOCAL -j DROP",
        "-m addrtype --dst-type UNICAST,LOCAL -j DROP",
        "-m addrtype ! --src-type LOCAL -j DROP",
    ],
)
def test_what_is_known_of_the_packet_is_judged(rule: str) -> None:
    judgement = judge(f"-A INPUT {rule}", KNOWN)
    assert (judgement.matches, judgement.failures, judgement.not_judged) == (True, (), ())


@pytest.mark.parametrize(
    ("rule", "criterion", "actual"),
    [
        ("-m mark --mark 0x1 -j DROP", "--mark 0x1", "0x41"),
        ("-m connmark --mark 0x41 -j DROP", "--mark 0x41", "0x7"),
        ("-m conntrack --ctstate RELATED,ESTABLISHED", "--ctstate RELATED,ESTABLISHED", "NEW"),
        ("-p tcp --tcp-flags SYN,ACK ACK -j DROP", "--tcp-flags SYN,ACK ACK", "SYN"),
        ("-m iprange --src-range 10.0.0.1-10.0.0.9", "--src-range 10.0.0.1-10.0.0.9", b.CLIENT),
        (
            "-m addrtype --src-type LOCAL -j DROP",
            "--src-type LOCAL",
            f"{b.CLIENT}, not an address of this host",
        ),
    ],
)
def test_what_is_known_and_does_not_hold(rule: str, criterion: str, actual: str) -> None:
    judgement = judge(f"-A INPUT {rule}", KNOWN)
    assert judgement.matches is False
    assert [(str(f.criterion), f.actual) for f in judgement.failures] == [(criterion, actual)]


@pytest.mark.parametrize(
    "rule",
    [
        "-m conntrack --ctstate DNAT -j DROP",
        "-m conntrack --ctorigdstport 80 -j DROP",
        "-m addrtype --src-type UNICAST -j DROP",
        "-m addrtype --dst-type LOCAL --limit-iface-in -j DROP",
        "-m iprange --src-range nonsense -j DROP",
        "-m limit --limit 1/sec -j DROP",
    ],
)
def test_what_stays_unknown(rule: str) -> None:
    assert judge(f"-A INPUT {rule}", KNOWN).matches is None


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        ("-p icmp -m icmp --icmp-type 8 -j DROP", True),
        ("-p icmp -m icmp --icmp-type 8/0 -j DROP", True),
        ("-p icmp -m icmp --icmp-type any -j DROP", True),
        ("-p icmp -m icmp --icmp-type 3/1 -j DROP", False),
        ("-p icmp -m icmp ! --icmp-type 8 -j DROP", False),
        ("-p icmp -m icmp --icmp-type echo-request -j DROP", None),
    ],
)
def test_icmp_types(rule: str, matches: bool | None) -> None:
    assert judge(f"-A INPUT {rule}", PacketFacts(b.icmp())).matches is matches


def test_icmpv6_types() -> None:
    facts = PacketFacts(b.icmp(b.CLIENT6, b.SERVER6, kind=128))
    assert judge("-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 128 -j X", facts).matches is True
    failed = judge("-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 1/4 -j X", facts).failures
    assert [each.actual for each in failed] == ["128/0"]


def test_flags_of_other_protocols_are_not_judged() -> None:
    facts = PacketFacts(b.udp())
    assert judge("-A INPUT -m tcp --tcp-flags SYN SYN -j DROP", facts).matches is None
