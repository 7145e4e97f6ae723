"""A firewall written in native nft: its hops are those that `nft monitor trace` tells of."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Self

import pytest

from ipttrace.netfilter import Hook, PacketFamily
from ipttrace.path import ChainHop, Outcome, PacketPath
from ipttrace.render.text import path_lines
from ipttrace.render.words import hop_effects
from ipttrace.request import Trigger
from tests.root.kernel import Endpoint, Listeners, Namespaces, Pair, run
from tests.root.mixed_traffic import AF, know_each_other
from tests.root.oracle import Monitor, Rules, monitored
from tests.root.routed import build_routed
from tests.root.watching import Watching, of_protocol
from tests.waiting import wait_until

V4, V6 = PacketFamily.IPV4, PacketFamily.IPV6
SET = re.compile(r"\n\t(?:set|map) .*?\n\t}\n", re.DOTALL)
OPEN, SHUT, ASIDE, BACK, OTHER, MOVED = 5000, 5001, 5002, 5003, 5004, 5005

FIREWALL = """
table inet fw {
    set friends { type ipv4_addr; flags interval; elements = { 198.51.100.0/24 } }
    set friends6 { type ipv6_addr; flags interval; elements = { 2001:db8::/32 } }
    map services {
        type inet_service : verdict
        elements = { 5000 : jump open, 5001 : drop, 5002 : goto aside, 5003 : jump back }
    }
    map marks { type inet_service : mark; elements = { 5000 : 0x7, 5004 : 0x9 } }
    chain first {
        type filter hook prerouting priority raw + 20
        meta mark set udp dport map @marks
    }
    chain late_input {
        type filter hook input priority filter + 7
        udp dport 5000-5099 counter comment "after all"
    }
    chain early_input {
        type filter hook input priority filter - 7
        meta mark 0x7 counter
    }
    chain input {
        type filter hook input priority filter; policy drop
        ip saddr != @friends drop
        ip6 saddr != @friends6 drop
        udp dport vmap @services
        udp dport 5003 accept
        udp dport 5004 reject
    }
    chain open { jump deeper
        counter accept
    }
    chain deeper { udp length > 100 return
        counter
    }
    chain aside { counter
    }
    chain back { return
    }
}
"""
"""5002 meets the policy: nothing follows a goto; 5003 goes on after the map."""

NAT = """
table {family} nat {{
    chain out {{
        type nat hook postrouting priority srcnat
        oifname "eth1" masquerade
    }}
    chain in {{
        type nat hook prerouting priority dstnat
        udp dport 5005 dnat to {target}
    }}
}}
"""


def load(netns: str, text: str) -> None:
    run("nft", "-f", "-", netns=netns, stdin=text)


def send(end: Endpoint, family: PacketFamily, to: str, *ports: int) -> None:
    with end.socket(AF[family], socket.SOCK_DGRAM) as opened:
        for port in ports:
            opened.sendto(b"native", (to, port))


def shown(path: PacketPath) -> list[tuple[object, ...]]:
    """Return the hops in the words of `monitored`."""
    return [
        (hop.chain.table_family, hop.chain.table, hop.chain.chain, hop.event, hop.number, said(hop))
        for hop in path.chain_hops
    ]


def said(hop: ChainHop) -> str:
    """Return the verdict as nf_tables has it: a rule that rejects sends its answer, and drops."""
    return {"REJECT": "DROP"}.get(str(hop.verdict), str(hop.verdict))


class NativeRules(Rules):
    """Rules with their handles, sets and maps left out."""

    def _read_listed(self, text: str) -> None:
        super()._read_listed(SET.sub("\n", text))


def heard(lines: Sequence[str], rules: Rules) -> list[tuple[object, ...]]:
    """Return what the monitor tells, in its order: that of packets sent one after the other."""
    spots = [(one.spot, one.verdict) for one in monitored(lines, rules)]
    return [
        (spot.family, spot.table, spot.chain, spot.event, spot.number, verdict)
        for spot, verdict in spots
        if spot is not None
    ]


def hop_at(path: PacketPath, chain: str, number: int | None) -> ChainHop:
    return next(h for h in path.chain_hops if (h.chain.chain, h.number) == (chain, number))


class Compared:
    """A watch, and `nft monitor trace` beside it, that must tell the same of each packet."""

    def __init__(self, netns: str, text: str, trigger: Trigger = Trigger.RAW) -> None:
        self._rules = NativeRules(netns, "ip")
        self._stack = ExitStack()
        self._netns, self._text, self._trigger = netns, text, trigger

    def __enter__(self) -> Self:
        self._monitor = self._stack.enter_context(Monitor(self._netns))
        self.watching = self._stack.enter_context(Watching(self._netns, self._text, self._trigger))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def agreed(self, *paths: PacketPath) -> None:
        """Fail unless both readers tell the same hops, in the same order."""
        told = [hop for path in paths for hop in shown(path)]

        def reported() -> list[tuple[object, ...]]:
            return heard(list(self._monitor.lines), self._rules)

        with suppress(AssertionError):
            wait_until(lambda: reported() == told)
        assert reported() == told, list(self._monitor.lines)


@pytest.fixture
def firewall(pair: Pair) -> Pair:
    know_each_other(pair)
    load(pair.server.netns, FIREWALL)
    return pair


@pytest.mark.parametrize("trigger", list(Trigger), ids=str)
def test_hops_are_those_of_nft_monitor(
    firewall: Pair, family: PacketFamily, trigger: Trigger, listen: Listeners
) -> None:
    server, client = firewall.server, firewall.client
    to = server.address(family)
    listen(server.netns, to, OPEN, "udp")
    listen(server.netns, to, BACK, "udp")
    with Compared(server.netns, "udp", trigger) as compared:
        send(client, family, to, OPEN, SHUT, ASIDE, BACK, OTHER)
        compared.watching.wait_for(6)  # the last is rejected: the error is traced, too
        paths = compared.watching.paths
        compared.agreed(*paths)
    assert [path.outcome for path in of_protocol(paths, "udp")] == [
        Outcome.DELIVERED,
        Outcome.DROPPED,
        Outcome.DROPPED,
        Outcome.DELIVERED,
        Outcome.REJECTED,
    ]
    result = compared.watching.result
    assert result is not None
    assert (result.warnings, result.totals.complete) == ((), 6)


def test_chains_of_one_hook_come_in_the_order_of_their_priorities(firewall: Pair) -> None:
    server = firewall.server
    with Watching(server.netns, "udp") as watching:
        send(firewall.client, V4, server.ipv4, OPEN)
        watching.wait_for(1)
    (path,) = of_protocol(watching.paths, "udp")
    chains = [(hop.hook, hop.chain.chain, hop.priority) for hop in path.chain_hops]
    assert list(dict.fromkeys(chains)) == [
        (Hook.PREROUTING, "first", -280),
        (Hook.INPUT, "early_input", -7),
        (Hook.INPUT, "input", 0),
        (Hook.INPUT, "open", 0),
        (Hook.INPUT, "deeper", 0),
        (Hook.INPUT, "late_input", 7),
    ]


def test_rules_read_as_nft_lists_them(firewall: Pair) -> None:
    server = firewall.server
    listed = run("nft", "-a", "list", "ruleset", netns=server.netns).splitlines()
    handled = [line.strip().rpartition(" # handle ") for line in listed if " # handle " in line]
    texts = {int(handle): text for text, _, handle in handled}
    with Watching(server.netns, "udp") as watching:
        send(firewall.client, V4, server.ipv4, OPEN, SHUT, OTHER)
        watching.wait_for(3)
    hops = [hop for path in watching.paths for hop in path.chain_hops if hop.number]
    assert len({hop.handle for hop in hops}) >= 8
    for hop in hops:
        assert hop.handle is not None
        assert without_counts(str(hop.rule)) == without_counts(texts[hop.handle])


def without_counts(text: str) -> str:
    return re.sub(r" packets \d+ bytes \d+", "", text).partition(" # handle")[0]


def test_what_a_verdict_map_decided_is_shown(firewall: Pair) -> None:
    server = firewall.server
    with Watching(server.netns, "udp") as watching:
        send(firewall.client, V4, server.ipv4, OPEN, SHUT, ASIDE)
        watching.wait_for(4)
    datagrams = of_protocol(watching.paths, "udp")
    hops = [hop_at(path, "input", 3) for path in datagrams]
    assert [(hop.verdict, hop.target) for hop in hops] == [
        ("JUMP", "open"),
        ("DROP", "vmap"),
        ("GOTO", "aside"),
    ]
    assert [hop_effects(hop) for hop in hops] == [
        ("JUMP open by 5000",),
        ("DROP by 5001",),
        ("GOTO aside by 5002",),
    ]
    lines = path_lines(datagrams[0], color=False, width=120)
    assert [line for line in lines if "vmap @services" in line and "JUMP open" in line]


def test_a_mark_by_a_map(firewall: Pair) -> None:
    server = firewall.server
    with Watching(server.netns, "udp") as watching:
        send(firewall.client, V4, server.ipv4, OPEN)
        watching.wait_for(1)
    changes = hop_at(watching.paths[0], "first", 1).changes
    assert [(change.field, change.old, change.new) for change in changes] == [("mark", 0, 7)]


def test_native_nat(namespaces: Namespaces, family: PacketFamily, listen: Listeners) -> None:
    routed = build_routed(namespaces)
    to = routed.backend.address(family)
    target = f"[{to}]:{OPEN}" if family is V6 else f"{to}:{OPEN}"
    load(routed.netns, NAT.format(family="ip6" if family is V6 else "ip", target=target))
    receiver = listen(routed.backend.netns, to, OPEN, "udp")
    receiver.settimeout(5)
    with Compared(routed.netns, f"udp and src {routed.client.address(family)}") as compared:
        send(routed.client, family, routed.router.address(family), MOVED)
        _, (source, *_) = receiver.recvfrom(9)
        compared.watching.wait_for(1)
        (path,) = compared.watching.paths
        compared.agreed(path)
    assert source == routed.outside.address(family)
    assert path.outcome is Outcome.FORWARDED
    changes = {c.field: (c.old, c.new) for hop in path.chain_hops for c in hop.changes}
    assert changes["dst"] == (routed.router.address(family), to)
    assert changes["dport"] == (MOVED, OPEN)
    last = path.last_packet
    assert last is not None
    assert (last.src, last.dst, last.dport) == (routed.outside.address(family), to, OPEN)


# ------------------------------------------------------------------ tables that are not just there


def test_a_dormant_table_has_no_hops(firewall: Pair) -> None:
    netns = firewall.server.netns
    load(netns, "table inet fw { flags dormant; }")
    load(netns, "table inet other { chain in { type filter hook input priority 0; counter; }; }")
    with Watching(netns, "udp") as watching:
        send(firewall.client, V4, firewall.server.ipv4, SHUT)
        watching.wait_for(2)
    (path,) = of_protocol(watching.paths, "udp")
    assert {hop.chain.table for hop in path.chain_hops} == {"other"}
    assert path.outcome is Outcome.REFUSED, "nobody takes it"


def test_egress_is_shown(firewall: Pair) -> None:
    netns = firewall.server.netns
    load(
        netns,
        'table netdev out { chain e { type filter hook egress device "eth0" priority 0; '
        "udp dport 5006 drop; }; }",
    )
    with Watching(netns, "udp dst port 5006") as watching:
        send(firewall.server, V4, firewall.client.ipv4, 5006)
        watching.wait_for(1)
    (path,) = watching.paths
    assert [(hop.hook, hop.verdict) for hop in path.chain_hops] == [(Hook.EGRESS, "DROP")]
    assert path.outcome is Outcome.DROPPED


# ------------------------------------------------------------------ rules that change meanwhile


def test_a_rule_that_is_added_while_watching(firewall: Pair) -> None:
    server, client = firewall.server, firewall.client
    with Watching(server.netns, "udp") as watching:
        send(client, V4, server.ipv4, SHUT)
        watching.wait_for(1)
        run("nft", "insert", "rule", "inet", "fw", "input", "udp", "dport", "5001", "accept",
            netns=server.netns)  # fmt: skip
        send(client, V4, server.ipv4, SHUT)
        watching.wait_for(2)
    before, after = of_protocol(watching.paths, "udp")
    assert (before.outcome, after.outcome) == (Outcome.DROPPED, Outcome.REFUSED)
    added = [hop for hop in after.chain_hops if hop.chain.chain == "input"]
    assert [(hop.verdict, hop.number) for hop in added] == [("ACCEPT", 1)]


def test_a_chain_that_is_deleted_while_watching(firewall: Pair) -> None:
    server, client = firewall.server, firewall.client
    with Watching(server.netns, "udp") as watching:
        run("nft", "flush", "chain", "inet", "fw", "late_input", netns=server.netns)
        run("nft", "delete", "chain", "inet", "fw", "late_input", netns=server.netns)
        send(client, V4, server.ipv4, OPEN)
        watching.wait_for(1)
    (path,) = of_protocol(watching.paths, "udp")
    assert path.outcome is Outcome.REFUSED, "nobody takes it"
    assert "late_input" not in {hop.chain.chain for hop in path.chain_hops}
