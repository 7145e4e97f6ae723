"""Chains that packets meet before raw: at ingress, or at a hook with a lower priority."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Sequence

import pytest

from ipttrace.netfilter import Backend, Basis, Hook, PacketFamily, TableFamily, Verdict
from ipttrace.path import ChainHop, Outcome, PacketPath, Role, RouteHop, WireHop
from ipttrace.probe import ProbeSpec
from ipttrace.request import Trigger
from tests.root.causes import Probed, probe
from tests.root.kernel import Iptables, Listeners, Namespaces, Pair, run
from tests.root.mixed_traffic import AF, know_each_other
from tests.root.oracle import Monitor
from tests.root.routed import build_routed
from tests.root.sessions import nft_tables
from tests.root.watching import Watching, of_protocol
from tests.waiting import wait_until

OPEN, SHUT = 8443, 8444
LOOPBACK = {PacketFamily.IPV4: "127.0.0.1", PacketFamily.IPV6: "::1"}
INGRESS = """
table {family} guard {{
    chain in {{
        type filter hook ingress {devices} priority -500; policy accept;
        tcp dport 8444 counter drop
        jump deeper
    }}
    chain deeper {{
        tcp dport 8443 counter
    }}
}}
"""
SHUT_INGRESS = """
table netdev shut {{
    chain everything {{
        type filter hook ingress device eth0 priority 7; policy drop;
    }}
}}
"""
HOOKS = """
table inet before {{
    chain in {{
        type filter hook prerouting priority {priority}; policy accept;
        tcp dport {{ 8443, 8444 }} counter
        tcp dport 8444 counter drop
    }}
    chain out {{
        type filter hook output priority {priority}; policy accept;
        tcp sport 8443 counter
        tcp dport 8444 counter drop
    }}
}}
"""


def load(netns: str, text: str, **words: object) -> None:
    run("nft", "-f", "-", netns=netns, stdin=text.format(**words))


@pytest.fixture
def server(pair: Pair, iptables: Iptables) -> Pair:
    """A host with a rule in raw of both backends, so that both report."""
    for family in PacketFamily:
        iptables(pair.server.netns, family, "-t", "raw", "-A", "PREROUTING", "-p", "tcp")
    return pair


def injected(pair: Pair, family: PacketFamily, port: int, **words: object) -> Probed:
    end = pair.server
    spec = ProbeSpec("tcp", end.address(family), port, pair.client.address(family))
    return probe(spec, end.netns, in_interface=end.interface, **words)


def met(path: PacketPath) -> list[tuple[str, str, int | None]]:
    return [(str(hop.hook), str(hop.chain), hop.number) for hop in path.chain_hops]


def exact(probed: Probed, packets: int) -> None:
    """Fail unless each packet counts once: as met by our triggers, as seen, as told to its end."""
    totals = probed.result.totals
    assert (totals.hits, totals.packets, totals.complete) == (packets,) * 3, probed.text
    assert probed.result.warnings == ()


DEVICES = ['device "eth0"', "devices = { eth0, lo }"]


@pytest.mark.parametrize(
    ("kind", "devices", "trigger"),
    [
        (TableFamily.NETDEV, DEVICES[0], Trigger.RAW),
        (TableFamily.NETDEV, DEVICES[1], Trigger.OWNER),
        (TableFamily.INET, DEVICES[1], Trigger.RAW),
    ],
    ids=["netdev", "owner", "inet"],
)
def test_a_drop_at_ingress_is_the_rules(
    server: Pair, family: PacketFamily, kind: TableFamily, devices: str, trigger: Trigger
) -> None:
    netns = server.server.netns
    load(netns, INGRESS, family=kind, devices=devices)
    probed = injected(server, family, SHUT, trigger=trigger)
    probed.check("rule-drop", Outcome.DROPPED)
    (hop,) = probed.path.chain_hops
    assert (hop.chain.table_family, str(hop.chain), hop.number) == (kind, "guard/in", 1)
    assert (hop.hook, hop.priority) == (Hook.INGRESS, -500)
    assert (hop.verdict, hop.basis) == (Verdict.DROP, Basis.REPORTED)
    assert hop.counter is not None
    assert hop.counter.packets == 1
    exact(probed, 1)
    assert probed.path.in_interface == "eth0"


def test_what_ingress_lets_go_on_is_one_packet(
    server: Pair, family: PacketFamily, listen: Listeners
) -> None:
    """Its answer comes in by the client's own ingress."""
    for netns in (server.client.netns, server.server.netns):
        load(netns, INGRESS, family=TableFamily.NETDEV, devices=DEVICES[0])
    listen(server.server.netns, server.server.address(family), OPEN)
    spec = ProbeSpec("tcp", server.server.address(family), OPEN, from_netns=server.client.netns)
    probed = probe(spec, server.client.netns, server.server.netns)
    assert probed.result.client == ("CONNECTED",)
    paths = [path for path in probed.result.paths if path.role is Role.PROBE]
    arrived = next(path for path in paths if path.netns == server.server.netns)
    backends = {hop.chain.backend for hop in arrived.chain_hops if hop.chain.table == "raw"}
    assert met(arrived)[:3] == [
        ("INGRESS", "guard/in", 2),
        ("INGRESS", "guard/deeper", 1),
        ("INGRESS", "guard/in", None),
    ]
    assert backends <= set(Backend)
    assert backends
    assert arrived.outcome is Outcome.DELIVERED
    answers = [path for path in probed.result.paths if path.role is Role.REPLY]
    back = [path for path in answers if path.netns == server.client.netns]
    assert back
    assert all(met(path)[0] == ("INGRESS", "guard/in", 2) for path in back)
    totals = probed.result.totals
    assert totals.hits == totals.packets == totals.complete


@pytest.mark.parametrize("priority", [-302, -2147483000])
def test_a_priority_before_raw(server: Pair, family: PacketFamily, priority: int) -> None:
    load(server.server.netns, HOOKS, priority=priority)
    probed = injected(server, family, SHUT)
    probed.check("rule-drop", Outcome.DROPPED)
    assert met(probed.path) == [("PREROUTING", "before/in", 1), ("PREROUTING", "before/in", 2)]
    exact(probed, 1)
    probed = injected(server, family, OPEN)
    assert probed.path.outcome is Outcome.REFUSED, probed.text
    answer = probed.result.paths[-1]
    assert met(probed.path)[0] == ("PREROUTING", "before/in", 1)
    assert met(answer)[0] == ("OUTPUT", "before/out", 1)
    totals = probed.result.totals
    assert totals.hits == totals.packets == totals.complete == 2


def test_output_before_raw(server: Pair, family: PacketFamily) -> None:
    load(server.server.netns, HOOKS, priority=-400)
    spec = ProbeSpec("tcp", server.client.address(family), SHUT)
    probed = probe(spec, server.server.netns)
    assert (probed.cause, probed.path.outcome) == ("output-blocked", Outcome.DROPPED), probed.text
    assert met(probed.path) == [("OUTPUT", "before/out", 2)]
    totals = probed.result.totals
    assert totals.hits == totals.packets == totals.complete


def test_both_ingress_and_a_low_priority_count_a_packet_once(
    server: Pair, family: PacketFamily
) -> None:
    netns = server.server.netns
    load(netns, INGRESS, family=TableFamily.INET, devices=DEVICES[1])
    load(netns, HOOKS, priority=-1000)
    probed = injected(server, family, OPEN)
    chains = list(dict.fromkeys(str(hop.chain) for hop in probed.path.chain_hops))
    assert chains[:3] == ["guard/in", "guard/deeper", "before/in"]
    totals = probed.result.totals
    assert totals.hits == totals.packets == totals.complete == 2


def test_over_loopback_a_packet_meets_ingress_after_output(
    server: Pair, family: PacketFamily, listen: Listeners
) -> None:
    netns = server.server.netns
    load(netns, INGRESS, family=TableFamily.NETDEV, devices=DEVICES[1])
    address = "::1" if family is PacketFamily.IPV6 else "127.0.0.1"
    listen(netns, address, OPEN)
    probed = probe(ProbeSpec("tcp", address, OPEN), netns)
    probed.check("delivered", Outcome.DELIVERED)
    hooks = [hop.hook for hop in probed.path.chain_hops]
    assert Hook.INGRESS in hooks
    assert list(dict.fromkeys(hooks))[-2:] == [Hook.INGRESS, Hook.PREROUTING]
    totals = probed.result.totals
    assert totals.hits == totals.packets == totals.complete


def test_a_policy_at_ingress(server: Pair, family: PacketFamily) -> None:
    """A chain without rules is not asked for unless its policy drops."""
    load(server.server.netns, SHUT_INGRESS)
    probed = injected(server, family, OPEN)
    assert probed.path.outcome is Outcome.DROPPED
    (hop,) = probed.path.chain_hops
    assert (str(hop.chain), hop.number, hop.verdict) == ("shut/everything", None, Verdict.DROP)
    exact(probed, 1)


def test_nft_monitor_says_the_same(server: Pair, family: PacketFamily) -> None:
    netns = server.server.netns
    load(netns, INGRESS, family=TableFamily.NETDEV, devices=DEVICES[0])
    with Monitor(netns) as monitor:
        probed = injected(server, family, OPEN)
        told = [said(hop) for hop in probed.path.chain_hops if hop.chain.table == "guard"]
        wait_until(lambda: len(at_guard(monitor.lines)) >= len(told))
    assert at_guard(monitor.lines) == told


def at_guard(lines: Sequence[str]) -> list[str]:
    """Return chain and event of the monitor's lines about the table, without those of headers."""
    found = [re.search(r"netdev guard (\w+) (rule|policy)", line) for line in lines]
    return [f"{match[1]} {match[2]}" for match in found if match]


def said(hop: ChainHop) -> str:
    return f"{hop.chain.chain} {hop.event}"


def test_nothing_of_it_stays(server: Pair, family: PacketFamily) -> None:
    netns = server.server.netns
    load(netns, HOOKS, priority=-500)
    load(netns, INGRESS, family=TableFamily.NETDEV, devices=DEVICES[1])
    before = nft_tables(netns)
    assert injected(server, family, SHUT).result.clean
    assert nft_tables(netns) == before


# ------------------------------------------------------------------ watches


@pytest.mark.parametrize("trigger", list(Trigger), ids=str)
def test_a_watch_sees_what_dies_before_raw(
    server: Pair, family: PacketFamily, trigger: Trigger
) -> None:
    """Every packet once; at ingress the kernel takes no packet filter, which is said."""
    netns = server.server.netns
    know_each_other(server)
    load(netns, INGRESS.replace("tcp", "sctp"), family=TableFamily.NETDEV, devices=DEVICES[1])
    load(netns, HOOKS.replace("tcp", "udp"), priority=-500)
    with Watching(netns, "udp", trigger) as watching:
        for port in (OPEN, SHUT, OPEN):
            with server.client.socket(AF[family], socket.SOCK_DGRAM) as client:
                client.sendto(b"early", (server.server.address(family), port))
        with server.server.socket(AF[family], socket.SOCK_DGRAM) as local:
            local.sendto(b"over lo", (LOOPBACK[family], OPEN))
        watching.wait_for(4)
    assert [met(path)[0] for path in of_protocol(watching.paths, "udp")] == [
        ("PREROUTING", "before/in", 1),
        ("PREROUTING", "before/in", 1),
        ("PREROUTING", "before/in", 1),
        ("OUTPUT", "before/out", None),
    ]
    assert of_protocol(watching.paths, "udp")[1].outcome is Outcome.DROPPED
    result = watching.result
    assert result is not None
    assert result.trigger == Trigger.OWNER
    assert result.warnings == (
        "not traced, because packets meet them first: the rules of netdev guard/in",
    )
    totals = result.totals
    assert totals.packets == 4 + 3, "the datagrams, and that nobody takes three of them"
    assert totals.hits == totals.packets == totals.complete


def test_a_watchs_limit_holds_where_chains_come_early(server: Pair) -> None:
    """What was not traced at the first chain is not traced behind it."""
    netns = server.server.netns
    know_each_other(server)
    load(netns, HOOKS.replace("tcp", "udp"), priority=-500)
    with Watching(netns, "udp dst port 8443", limit=10) as watching:
        began = time.monotonic()
        with server.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for _ in range(300):
                client.sendto(b"burst", (server.server.ipv4, OPEN))
        watching.wait_for(10)
        seconds = time.monotonic() - began
    result = watching.result
    assert result is not None
    assert result.totals.hits == len(watching.paths)
    assert 10 <= result.totals.hits <= 10 + 10 * (1 + seconds)


# ------------------------------------------------------------------ egress


EGRESS = """
table netdev last {{
    chain out {{
        type filter hook egress device "eth1" priority 0; policy accept;
        tcp dport 8444 counter drop
    }}
}}
"""


def test_a_contained_probe_says_what_it_did_not_come_to(
    namespaces: Namespaces, iptables: Iptables, family: PacketFamily
) -> None:
    """What keeps it in stands before egress; the route stands before both."""
    routed = build_routed(namespaces)
    iptables(routed.netns, family, "-t", "raw", "-A", "PREROUTING", "-p", "tcp")
    load(routed.netns, EGRESS)
    source = routed.client.address(family)
    spec = ProbeSpec("tcp", routed.backend.address(family), SHUT, source, in_interface="eth0")
    kept = probe(spec, routed.netns)
    assert "(contained), before netdev last/out at egress could see it" in kept.diagnosis.summary
    assert [hop for hop in kept.path.hops if isinstance(hop, RouteHop | WireHop)][-2:] == [
        *kept.hops(RouteHop),
        kept.hops(WireHop)[-1],
    ]
    out = probe(spec, routed.netns, let_out=True)
    out.check("rule-drop", Outcome.DROPPED)
    assert met(out.path)[-1] == ("EGRESS", "last/out", 1)
    assert out.hops(RouteHop)
