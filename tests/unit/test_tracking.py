"""Which rules show that connections are tracked."""

from __future__ import annotations

import pytest

from ipttrace.netfilter import Backend, ChainRef, TableFamily
from ipttrace.ruleset import Chain, Rule, Ruleset, conntrack_active


def one_rule(text: str, table: str = "filter", backend: Backend = Backend.LEGACY) -> Ruleset:
    ref = ChainRef(backend, TableFamily.IP, table, "INPUT")
    return Ruleset({ref: Chain(ref, (Rule(ref, 1, 1, text),))})


@pytest.mark.parametrize(
    "text",
    [
        "-A INPUT -m conntrack --ctstate NEW -j ACCEPT",
        "-A INPUT -m state --state NEW -j ACCEPT",
        "-A PREROUTING -p tcp -j REDIRECT --to-ports 8443",
        "-A POSTROUTING -o eth0 -j MASQUERADE",
        "-A PREROUTING -j CT --notrack",
        "-A INPUT -m connlimit --connlimit-above 3 -j DROP",
        "-A INPUT -m comment --comment x -m connmark --mark 0x1",
        "ct state new accept",
        "tcp dport 80 dnat to 198.51.100.7",
        'oifname "eth0" masquerade',
        "meta l4proto { tcp, udp } ct mark set 0x1",
    ],
)
def test_rules_that_track(text: str) -> None:
    assert conntrack_active(one_rule(text), 0)


@pytest.mark.parametrize(
    "text",
    [
        "-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT",
        '-A INPUT -m comment --comment "a -j MASQUERADE" -j DROP',
        '-A INPUT -m comment --comment "quoted \\" -m state" -j DROP',
        "-A INPUT -j CTX",
        "-A INPUT -i ct -j DROP",
        'tcp dport 80 accept comment "ct state new"',
        'iifname "ct" accept',
        "ip saddr 198.51.100.7 drop",
    ],
)
def test_rules_that_do_not(text: str) -> None:
    assert not conntrack_active(one_rule(text), 0)


def test_entries_are_proof() -> None:
    assert conntrack_active(Ruleset(), 1)
    assert not conntrack_active(Ruleset(), 0)


@pytest.mark.parametrize("backend", Backend)
def test_a_nat_chain_alone_tracks_nothing(backend: Backend) -> None:
    ref = ChainRef(backend, TableFamily.IP, "nat", "PREROUTING")
    assert not conntrack_active(Ruleset({ref: Chain(ref)}), 0)


def test_our_own_table_does_not_count() -> None:
    assert not conntrack_active(one_rule("ct state new", "ipttrace-8f3e01c2", Backend.NFT), 0)
