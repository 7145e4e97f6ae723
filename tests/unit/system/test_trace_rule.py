"""A trace request in the words of iptables and of nft."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.errors import NotSupportedError, UsageError
from ipttrace.netfilter import Hook, PacketFamily
from ipttrace.packet import Flow
from ipttrace.request import PacketFilter, TraceRequest
from ipttrace.system.trace_rule import LAST_DATE, filter_rules, reply_rules, trace_rule
from ipttrace.system.triggers import NftTrigger

NOW = 1_763_800_000.25
FLOW = Flow(PacketFamily.IPV4, "tcp", "203.0.113.7", "198.51.100.1", 40000, 8445)
LENGTH = ((0x80, 0, 0, 0), (0x25, 1, 0, 100), (6, 0, 0, 65535), (6, 0, 0, 0))
WATCH = TraceRequest("8f3e01c2", filter=PacketFilter("less 100", LENGTH), limit=20)
REQUEST = TraceRequest("8f3e01c2", Hook.PREROUTING, FLOW, in_interface="eth0")


def test_arguments() -> None:
    assert " ".join(trace_rule(REQUEST, NOW).arguments()) == (
        "-p tcp -s 203.0.113.7 -d 198.51.100.1 -i eth0 -m tcp --sport 40000 --dport 8445 "
        "-m comment --comment ipttrace:8f3e01c2 -m time --datestop 2025-11-22T08:27:41 -j TRACE"
    )


def test_native() -> None:
    assert trace_rule(REQUEST, NOW).native() == (
        'iifname "eth0" meta l4proto tcp ip saddr 203.0.113.7 ip daddr 198.51.100.1 '
        "tcp sport 40000 tcp dport 8445 meta time < 1763800061 counter meta nftrace set 1 "
        'comment "ipttrace:8f3e01c2"'
    )


def test_echo_of_ipv6() -> None:
    flow = Flow(PacketFamily.IPV6, "icmp6", "2001:db8::7", "2001:db8::1", icmp_id=9)
    rule = trace_rule(replace(REQUEST, flow=flow, hook=Hook.OUTPUT), NOW)
    words = " ".join(rule.arguments())
    assert words.startswith("-p ipv6-icmp -s 2001:db8::7 -d 2001:db8::1 -m icmp6 --icmpv6-type 128")
    assert "meta l4proto ipv6-icmp ip6 saddr 2001:db8::7" in rule.native()
    assert {answer.icmp_type for answer in reply_rules(rule)} == {129}


def test_unknown_source() -> None:
    rule = trace_rule(replace(REQUEST, any_source=True), NOW)
    assert rule.source is None
    assert all(answer.destination is None for answer in reply_rules(rule))


def test_interface_only_where_packets_come_in() -> None:
    assert trace_rule(replace(REQUEST, hook=Hook.OUTPUT), NOW).in_interface is None


def test_the_last_date_that_the_kernel_can_hold() -> None:
    assert trace_rule(replace(REQUEST, lifetime=1e12), NOW).stop == LAST_DATE


def test_ports_only_where_the_protocol_has_them() -> None:
    rule = trace_rule(replace(REQUEST, flow=replace(FLOW, protocol="47")), NOW)
    assert (rule.sport, rule.dport) == (None, None)


def test_an_interface_cannot_end_its_own_quotes() -> None:
    rule = trace_rule(replace(REQUEST, in_interface='a" drop'), NOW)
    with pytest.raises(UsageError, match="has a quote"):
        rule.native()


def test_filter_is_looked_at_first_and_its_limit_last() -> None:
    first, second = filter_rules(WATCH, PacketFamily.IPV6, NOW)
    rest = (
        "-m bpf --bytecode 4,128 0 0 0,37 1 0 100,6 0 0 65535,6 0 0 0 "
        "-m comment --comment ipttrace:8f3e01c2 -m time --datestop 2025-11-22T08:27:41 "
        "-m limit --limit 20/sec --limit-burst 20 -j TRACE"
    )
    assert (first.hook, " ".join(first.arguments())) == (Hook.PREROUTING, f"! -i lo {rest}")
    assert (second.hook, " ".join(second.arguments())) == (Hook.OUTPUT, rest)
    assert first.interface == "!lo"


def test_filter_of_one_hook_sees_lo_too() -> None:
    (rule,) = filter_rules(
        replace(WATCH, hooks=(Hook.PREROUTING,), limit=None), PacketFamily.IPV4, NOW
    )
    assert rule.arguments()[0] == "-m"
    assert "--limit" not in rule.arguments()


def test_slow_limit_has_a_burst_all_the_same() -> None:
    rule = filter_rules(replace(WATCH, limit=2), PacketFamily.IPV4, NOW)[0]
    assert "--limit 2/sec --limit-burst 5" in " ".join(rule.arguments())


def test_nft_itself_has_no_words_for_a_filter() -> None:
    with pytest.raises(NotSupportedError, match="there is no iptables-nft"):
        filter_rules(WATCH, PacketFamily.IPV4, NOW)[0].native()


@pytest.mark.parametrize(
    ("family", "name", "place"),
    [(PacketFamily.IPV4, "icmp", "0>>22&0x3C@4>>16"), (PacketFamily.IPV6, "icmp6", "44>>16")],
)
def test_echo_behind_nat_is_known_by_its_id(family: PacketFamily, name: str, place: str) -> None:
    flow = Flow(family, name, "2001:db8::7", "2001:db8::1", icmp_id=4242)
    anywhere = replace(REQUEST, flow=flow, any_source=True, any_destination=True)
    rule = trace_rule(anywhere, NOW)
    assert (rule.source, rule.destination) == (None, None)
    assert f"-m u32 --u32 {place}=4242" in " ".join(rule.arguments())
    assert "id 4242 " in rule.native()
    assert all(f"{place}=4242" in " ".join(reply.arguments()) for reply in reply_rules(rule))
    lost = [
        (weaker._rules[0].echo_id, weaker._rules[0].stop is None)
        for weaker, _ in NftTrigger([rule]).weaker()
        if isinstance(weaker, NftTrigger)
    ]
    assert lost == [(None, False), (4242, True), (None, True)]


def test_leg_behind_nat_is_known_by_its_source_port() -> None:
    rule = trace_rule(replace(REQUEST, any_source=True, any_destination=True), NOW)
    assert " ".join(rule.arguments()).startswith("-p tcp -i eth0 -m tcp --sport 40000 -m comment")
