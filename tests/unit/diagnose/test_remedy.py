from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ipttrace.diagnose.remedy import (
    Limits,
    delete_rule,
    is_native,
    let_answers_pass,
    let_pass,
    program,
    same_in_output,
    what_listens,
)
from ipttrace.netfilter import Backend, Hook, TableFamily
from tests import builders as b

NATIVE: dict[str, Any] = {"backend": Backend.NFT, "family": TableFamily.INET}


@pytest.mark.parametrize(
    ("table", "chain", "backend", "family", "rule", "name"),
    [
        ("filter", "INPUT", Backend.LEGACY, TableFamily.IP, None, "iptables-legacy"),
        ("filter", "INPUT", Backend.LEGACY, TableFamily.IP6, None, "ip6tables-legacy"),
        ("filter", "INPUT", Backend.NFT, TableFamily.IP, None, "iptables-nft"),
        ("nat", "OUTPUT", Backend.NFT, TableFamily.IP6, None, "ip6tables-nft"),
        ("filter", "WEB", Backend.NFT, TableFamily.IP, "-A WEB -j DROP", "iptables-nft"),
        ("filter", "input", Backend.NFT, TableFamily.IP, None, "nft"),
        ("filter", "PREROUTING", Backend.NFT, TableFamily.IP, None, "nft"),
        ("filter", "INPUT", Backend.NFT, TableFamily.IP, "tcp dport 22 drop", "nft"),
        ("filter", "INPUT", Backend.NFT, TableFamily.INET, None, "nft"),
    ],
)
def test_each_chain_has_its_own_program(
    table: str, chain: str, backend: Backend, family: TableFamily, rule: str | None, name: str
) -> None:
    ref = b.chain_ref(table, chain, backend, family)
    assert program(ref, is_native(ref, rule)) == name


def test_rules_are_deleted_by_number_or_by_handle() -> None:
    legacy = b.rule_hop("mangle", "INPUT", 3, "-j DROP").ref
    native = b.rule_hop("fw", "in", 3, "drop", handle=12, **NATIVE).ref
    assert delete_rule(legacy, native=False) == "iptables-legacy -t mangle -D INPUT 3"
    assert delete_rule(native, native=True) == "nft delete rule inet fw in handle 12"


def test_a_packet_for_this_host_is_named_by_its_port() -> None:
    hop = b.rule_hop("filter", "INPUT", 2, "-j DROP")
    assert let_pass(hop, b.tcp()) == "iptables-legacy -I INPUT 2 -p tcp --dport 8443 -j ACCEPT"


def test_a_packet_for_another_host_by_its_address_too() -> None:
    hop = b.rule_hop("filter", "FORWARD", 2, "-j DROP", family=TableFamily.IP6)
    assert let_pass(hop, b.udp(b.CLIENT6, b.SERVER6)) == (
        "ip6tables-legacy -I FORWARD 2 -d 2001:db8:1::1 -p udp --dport 8443 -j ACCEPT"
    )


def test_native_nft_speaks_its_own_language() -> None:
    hop = b.rule_hop("fw", "in", 3, "drop", handle=12, hook=Hook.FORWARD, **NATIVE)
    assert let_pass(hop, b.tcp()) == (
        "nft insert rule inet fw in handle 12 ip daddr 198.51.100.1 tcp dport 8443 accept"
    )
    assert let_pass(replace(hop, hook=Hook.INPUT), b.icmp(b.CLIENT6, b.SERVER6, kind=128)) == (
        "nft insert rule inet fw in handle 12 meta l4proto ipv6-icmp accept"
    )


@pytest.mark.parametrize(
    "rule",
    [
        "-s 203.0.113.0/24 -j DROP",
        "-m set --match-set bad src -j DROP",
        "-m rpfilter --invert -j DROP",
        "-p tcp -m recent --rcheck --name bad -j DROP",
    ],
)
def test_who_is_shut_out_for_where_it_comes_from_is_let_in_alone(rule: str) -> None:
    hop = b.rule_hop("filter", "INPUT", 2, rule)
    command = f"iptables-legacy -I INPUT 2 -s {b.CLIENT} -p tcp --dport 8443 -j ACCEPT"
    assert let_pass(hop, b.tcp()) == command
    assert let_pass(hop, b.tcp(), Limits(source=True)) == command


@pytest.mark.parametrize("rule", ["ip saddr @bad drop", "fib saddr . iif oif missing drop"])
def test_nft_lets_nobody_else_in_either(rule: str) -> None:
    hop = b.rule_hop("fw", "in", 1, rule, hook=Hook.PREROUTING, handle=18, **NATIVE)
    assert let_pass(hop, b.tcp()) == (
        f"nft insert rule inet fw in handle 18 ip saddr {b.CLIENT} ip daddr {b.SERVER} "
        "tcp dport 8443 accept"
    )


def test_behind_the_last_rule_of_a_native_chain() -> None:
    hop = replace(b.rule_hop("fw", "in", 1, "drop", **NATIVE), rule=None, number=None, handle=None)
    assert let_pass(hop, b.tcp()) == "nft add rule inet fw in tcp dport 8443 accept"


def test_names_are_quoted_for_the_shell() -> None:
    hop = b.rule_hop("filter", "a;reboot", 1, "-j DROP")
    assert delete_rule(hop.ref, native=False) == "iptables-legacy -D 'a;reboot' 1"
    assert "-I 'a;reboot' 1" in let_pass(hop, b.tcp())


def test_a_redirect_for_local_packets_is_limited_to_them() -> None:
    ref = b.chain_ref("nat", "PREROUTING")
    text = "-A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080"
    assert same_in_output(ref, text, local=True) == (
        "iptables-legacy -t nat -A OUTPUT -o lo -p tcp -m tcp --dport 80"
        " -j REDIRECT --to-ports 8080"
    )
    assert "-o lo" not in same_in_output(ref, text, local=False)


def test_who_listens() -> None:
    assert what_listens(b.tcp()) == "ss -tlnp 'sport = :8443'"
    assert what_listens(b.udp()) == "ss -ulnp 'sport = :8443'"


def test_what_lets_answers_pass() -> None:
    hop = b.rule_hop("fw", "in", 3, "drop", handle=12, **NATIVE)
    known = "ct state established,related accept"
    assert let_answers_pass(hop) == f"nft insert rule inet fw in handle 12 {known}"
    end = replace(hop, rule=None, number=None, handle=None)
    assert let_answers_pass(end) == f"nft add rule inet fw in {known}"
