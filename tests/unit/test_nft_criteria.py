from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.matching import PacketFacts, judge_any
from ipttrace.nft_criteria import nft_criteria
from tests import builders as b

FACTS = PacketFacts(b.tcp(dport=8443), "eth0", mark=0x1, ct_state="NEW")


@pytest.mark.parametrize(
    "rule",
    [
        "accept",
        "counter accept",
        'counter name "web" accept',
        "tcp dport 8443 accept # handle 7",
        "tcp dport { 22, 8000-9000 } counter accept",
        "tcp sport 40000 tcp dport != 22 accept",
        'iifname "eth0" tcp dport 8443 accept comment "web; drop"',
        'iifname "eth*" accept',
        "ip saddr 203.0.113.0/24 ip daddr 198.51.100.1 accept",
        "ip saddr != 10.0.0.0/8 accept",
        "meta l4proto tcp accept",
        "ip protocol tcp drop",
        "ct state new,untracked accept",
        "ct state { established, new } accept",
        "meta mark 0x00000001 drop",
    ],
)
def test_rules_that_match(rule: str) -> None:
    judgement = judge_any(rule, FACTS)
    assert (judgement.matches, judgement.failures) == (True, ())


@pytest.mark.parametrize(
    ("rule", "criterion", "actual"),
    [
        ("tcp dport 22 accept", "tcp dport 22", "8443"),
        ("tcp dport { 22, 80 } accept", "tcp dport { 22, 80 }", "8443"),
        ('iifname "lo" accept', 'iifname "lo"', "eth0"),
        ("ip saddr 10.0.0.0/8 tcp dport 8443 accept", "ip saddr 10.0.0.0/8", "203.0.113.7"),
        ("ct state established,related accept", "ct state established,related", "NEW"),
        ("meta mark != 0x00000001 drop", "meta mark != 0x00000001", "0x1"),
        ("tcp dport 22 limit rate 5/second accept", "tcp dport 22", "8443"),
    ],
)
def test_rules_that_do_not(rule: str, criterion: str, actual: str) -> None:
    judgement = judge_any(rule, FACTS)
    assert judgement.matches is False
    assert [(str(f.criterion), f.actual) for f in judgement.failures] == [(criterion, actual)]


@pytest.mark.parametrize(
    "rule",
    [
        "limit rate 5/second accept",
        "tcp dport 8443 limit rate over 5/second drop",
        "tcp dport @web accept",
        "tcp dport vmap { 22 : accept, 8443 : drop }",
        "tcp dport >= 1024 accept",
        "tcp dport $web accept",
        "ip saddr . tcp dport { 203.0.113.7 . 8443 } accept",
        "tcp flags syn / fin,syn,rst,ack accept",
        "meta mark & 0x000000ff == 0x00000001 drop",
        "ct mark 0x00000001 drop",
        "ct state vmap { established : accept, invalid : drop }",
        'log prefix "x" tcp dport 8443 accept',
        "meta mark set 0x00000002",
        "fib daddr type local accept",
        "ip saddr { 203.0.113.7, 10.0.0.1 } accept",
        "socket transparent 1 accept",
        "iifgroup 0 accept",
    ],
)
def test_what_is_not_plain_is_not_judged(rule: str) -> None:
    judgement = judge_any(rule, FACTS)
    assert judgement.matches is None
    assert judgement.not_judged


def test_other_families_are_told_apart() -> None:
    facts = replace(FACTS, packet=b.tcp(b.CLIENT6, b.SERVER6))
    assert judge_any("ip saddr 0.0.0.0/0 accept", facts).matches is False
    assert judge_any("ip6 saddr 2001:db8::/32 accept", facts).matches is True


@pytest.mark.parametrize("text", ["", " ", "!", "tcp", "tcp dport", 'iifname "', "{", "# handle 3"])
def test_any_text_is_read(text: str) -> None:
    assert all(str(each) for each in nft_criteria(text))
