"""A trace request in the words of iptables and of nft."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.errors import UsageError
from ipttrace.netfilter import Hook, PacketFamily
from ipttrace.packet import Flow
from ipttrace.ports import TraceRequest
from ipttrace.system.trace_rule import LAST_DATE, reply_rules, trace_rule

NOW = 1_763_800_000.25
FLOW = Flow(PacketFamily.IPV4, "tcp", "203.0.113.7", "198.51.100.1", 40000, 8445)
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
