"""Raw triggers on the real kernel: what they hit, and what is done where they cannot be had."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from ipttrace.netfilter import NFPROTO_NUMBER, Backend, Hook, PacketFamily
from ipttrace.request import Trigger
from ipttrace.system import commands, netlink_attributes, nfnetlink, nft_rules
from ipttrace.system.nfnetlink import NfnetlinkSocket
from ipttrace.system.trace_rule import reply_rules, trace_rule
from tests.root.kernel import Namespaces, in_namespace, run
from tests.root.sessions import (
    Guardians,
    nft_tables,
    own_rules,
    request,
    restore,
    saved_raw,
    send_udp,
    tcp_flow,
    udp_flow,
)
from tests.waiting import wait_until


@pytest.fixture
def netns(namespaces: Namespaces) -> str:
    """A namespace with `lo` only."""
    return namespaces.add("triggered")


@pytest.mark.parametrize("hook", [Hook.PREROUTING, Hook.OUTPUT])
def test_hits_are_counted(
    netns: str, guardians: Guardians, backend: Backend, family: PacketFamily, hook: Hook
) -> None:
    wanted = request(backend, udp_flow(family), hook=hook)
    guardian = guardians.start(netns, wanted.session)
    armed = guardian.arm(wanted)
    assert armed.trigger is Trigger.RAW
    assert armed.backends == {backend}
    send_udp(netns, family, 3)
    assert guardian.disarm().hits == 3


def test_both_backends_at_once(netns: str, guardians: Guardians, family: PacketFamily) -> None:
    wanted = replace(request(Backend.NFT, udp_flow(family)), backends=frozenset(Backend))
    guardian = guardians.start(netns, wanted.session)
    assert guardian.arm(wanted).backends == frozenset(Backend)
    for backend in Backend:
        assert len(own_rules(netns, backend, family)) == 1
    assert guardian.disarm().clean
    for backend in Backend:
        assert own_rules(netns, backend, family) == []


def test_rules_that_look_like_ours_stay(
    netns: str, guardians: Guardians, backend: Backend, family: PacketFamily
) -> None:
    """A copy of our rule with another comment, and TRACE rules without one, around it."""
    wanted = request(backend, udp_flow(family))
    guardian = guardians.start(netns, wanted.session)
    plain = ["-A PREROUTING -p udp -j TRACE", "-A PREROUTING -j TRACE"]
    restore(netns, backend, family, *plain)
    guardian.arm(wanted)
    (own,) = own_rules(netns, backend, family)
    copy = own[own.index("-A ") :].replace(wanted.session, "mine")
    restore(netns, backend, family, *plain, copy, own[own.index("-A ") :], copy, *plain)
    before = rules_without_counters(netns, backend, family)
    assert guardian.disarm().clean
    assert rules_without_counters(netns, backend, family) == [
        line for line in before if wanted.session not in line
    ]
    assert len(before) == 7


def rules_without_counters(netns: str, backend: Backend, family: PacketFamily) -> list[str]:
    lines = saved_raw(netns, backend, family)
    return [line[line.index("-A ") :] for line in lines if "-A " in line]


def test_a_forgotten_rule_stops_matching(
    netns: str, guardians: Guardians, backend: Backend, family: PacketFamily
) -> None:
    """The kernel compares whole seconds (xt_time.c), and the stop is rounded up."""
    wanted = replace(request(backend, udp_flow(family)), lifetime=1.0)
    guardian = guardians.start(netns, wanted.session)
    guardian.arm(wanted)
    stop = time.time() + 3.0
    send_udp(netns, family)
    wait_until(lambda: time.time() > stop, what="the rule's time is over")
    send_udp(netns, family)
    assert guardian.disarm().hits == 1


def test_second_session_in_our_nft_chain_hides_it_too(
    netns: str, guardians: Guardians, family: PacketFamily
) -> None:
    wants = [request(Backend.NFT, tcp_flow(family)) for _ in range(2)]
    armed = [guardians.start(netns, wanted.session).arm(wanted) for wanted in wants]
    assert armed[0].created == armed[1].created
    assert len(armed[1].created) == 1


def test_chain_with_a_rule_of_the_user_is_not_hidden(
    netns: str, guardians: Guardians, family: PacketFamily
) -> None:
    wants = [request(Backend.NFT, tcp_flow(family)) for _ in range(2)]
    guardians.start(netns, wants[0].session).arm(wants[0])
    run("nft", f"add rule {family.table_family} raw PREROUTING accept", netns=netns)
    assert guardians.start(netns, wants[1].session).arm(wants[1]).created == frozenset()


def test_rule_of_nft_where_there_is_no_iptables(
    netns: str, family: PacketFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = commands.find
    monkeypatch.setattr(commands, "find", lambda name: None if "tables" in name else found(name))
    wanted = replace(request(Backend.NFT, udp_flow(family)), in_interface="lo")
    rule = trace_rule(wanted, time.time())

    def work() -> list[int]:
        nft_rules.make_chain(family, rule.hook)
        nft_rules.insert(rule)
        assert nft_rules.is_made_by_us(family, rule.hook)
        send_udp(netns, family, 2)
        return nft_rules.remove(family, rule.tag)

    assert in_namespace(netns).run(work) == [2]
    assert nft_tables(netns) == []


def test_native_rules_of_every_kind_are_taken(
    netns: str, family: PacketFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = commands.find
    monkeypatch.setattr(commands, "find", lambda name: None if "tables" in name else found(name))
    icmp = "icmp" if family is PacketFamily.IPV4 else "icmp6"
    for protocol in ("tcp", "sctp", icmp, "47"):
        wanted = request(Backend.NFT, replace(tcp_flow(family), protocol=protocol))
        rule = trace_rule(wanted, time.time())

        def work() -> None:
            nft_rules.make_chain(family, rule.hook)  # noqa: B023 - called at once
            nft_rules.insert(rule)  # noqa: B023

        in_namespace(netns).run(work)
    assert run("nft", "list", "ruleset", netns=netns).count("nftrace set 1") == 4


@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp", "icmp", "47"])
def test_protocols(
    netns: str, guardians: Guardians, backend: Backend, family: PacketFamily, protocol: str
) -> None:
    if protocol == "icmp" and family is PacketFamily.IPV6:
        protocol = "icmp6"
    wanted = request(backend, replace(tcp_flow(family), protocol=protocol))
    guardian = guardians.start(netns, wanted.session)
    guardian.arm(wanted)
    (rule,) = own_rules(netns, backend, family)
    assert ("--sport 40000 --dport 8445" in rule) == (protocol in {"tcp", "udp", "sctp"})
    assert guardian.disarm().warnings == ()


def test_owner_trigger_where_another_program_owns_raw(
    netns: str, guardians: Guardians, family: PacketFamily
) -> None:
    other = in_namespace(netns).run(lambda: owned_raw_table(family))
    wanted = request(Backend.NFT, udp_flow(family), hook=Hook.OUTPUT)
    guardian = guardians.start(netns, wanted.session)
    armed = guardian.arm(wanted)
    assert armed.trigger is Trigger.OWNER
    assert "another program owns the table" in armed.warnings[0]
    assert "instead of raw" in armed.warnings[-1]
    send_udp(netns, family, 2)
    assert guardian.disarm().hits == 2
    other.close()


def owned_raw_table(family: PacketFamily) -> NfnetlinkSocket:
    """Make an nft table `raw` that belongs to the returned socket."""
    opened = NfnetlinkSocket()
    name = netlink_attributes.string(nft_rules.TABLE_NAME, "raw")
    owner = netlink_attributes.number32(nft_rules.TABLE_FLAGS, nft_rules.NFT_TABLE_F_OWNER)
    number = NFPROTO_NUMBER[family.table_family]
    flags = nfnetlink.NLM_F_CREATE
    subsystem = nfnetlink.NFNL_SUBSYS_NFTABLES
    opened.transact([nfnetlink.Message(subsystem, 0, number, name + owner, flags)])
    return opened


def test_legacy_stands_where_nft_cannot(
    netns: str, guardians: Guardians, family: PacketFamily
) -> None:
    other = in_namespace(netns).run(lambda: owned_raw_table(family))
    wanted = replace(request(Backend.NFT, udp_flow(family)), backends=frozenset(Backend))
    guardian = guardians.start(netns, wanted.session)
    armed = guardian.arm(wanted)
    assert armed.trigger is Trigger.RAW
    assert armed.backends == {Backend.LEGACY}
    assert len(armed.warnings) == 1
    assert guardian.disarm().clean
    other.close()


def test_replies_by_address_where_there_is_only_ip_tables(netns: str, family: PacketFamily) -> None:
    """Kernels without nf_tables: the swapped flow, at both places where an answer can start."""
    wanted = replace(request(Backend.LEGACY, tcp_flow(family)), in_interface="lo")
    rule = trace_rule(wanted, 0)
    swapped = reply_rules(rule)
    assert [answer.hook for answer in swapped] == [Hook.PREROUTING, Hook.OUTPUT]
    for answer in swapped:
        assert (answer.source, answer.destination) == (rule.destination, rule.source)
        assert (answer.sport, answer.dport) == (rule.dport, rule.sport)
        assert answer.in_interface is None
    assert saved_raw(netns, Backend.LEGACY, family) == []
