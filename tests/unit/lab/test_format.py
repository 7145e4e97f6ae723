"""Every field of the lab format arrives, and what two fields must not say together is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest

from ipttrace.errors import UsageError
from ipttrace.lab.parts import LabBackend
from ipttrace.lab.routing import RANGES, PolicyRule, Route
from ipttrace.lab.rules import file_sources
from ipttrace.lab.scenario import Verdict, parse_scenario
from ipttrace.lab.source import Source, path_text
from ipttrace.netfilter import Backend

ALL = """\
name: all-fields
title: All fields
group: causes
about: |
  What is here.
claims:
  - claim: the port is closed
    verdict: false
    why: It is open.
    probes: [first]
  - {claim: half of it, verdict: "half"}
backends: [legacy, nft, both]
namespaces:
  server:
    iptables: [-A INPUT -j ACCEPT, -P FORWARD DROP]
    ip6tables: ""
    iptables-legacy: ["-N mine"]
    ip6tables-nft: |
      *filter
      COMMIT
    nftables: |
      table ip mine {
      }
    rules-file: {iptables: rules.v4, nftables: rules.nft}
    sysctls: {net.ipv4.ip_forward: 1, net.ipv4.conf.eth0/100.rp_filter: "2"}
    routes:
      - {to: 203.0.113.0/24, type: blackhole}
      - {to: default, via: 198.51.100.2, interface: eth0, table: 100, metric: 5, mtu: 1400,
         source: 198.51.100.1, onlink: true}
      - {to: default, interface: eth0, family: ipv6}
    policy:
      - {from: 198.51.100.0/24, to: 203.0.113.0/24, mark: 0x10/0xff, in: eth0, out: br0,
         table: 100, priority: 50}
      - {action: prohibit, family: ipv6}
      - {action: prohibit, uidrange: 5-9, dsfield: 0x10, ipproto: tcp, sport: 80-90, dport: 443}
    neighbours: [{address: 198.51.100.9, mac: "02:00:00:00:00:09"}]
    bridges: {br0: {ports: [v1], addresses: [192.0.2.1/24], mtu: 1400, mac: "02:00:00:00:00:0a"}}
    services: [{port: 80, backlog: 0, accept: false, interface: eth0}, {port: 81, full: true}]
    twin: snapshot.json
  client: {rules-file: client.v4}
links:
  - - {namespace: server, interface: eth0, addresses: [198.51.100.1/24], mtu: 1400, up: false}
    - {namespace: client, mac: "02:00:00:00:00:02"}
  - [{namespace: server, interface: v1}, {namespace: client, interface: eth1}]
refused:
  - {namespace: server, run: iptables -t nat -A PREROUTING -j DROP, says: {legacy: a, nft: b}}
  - {namespace: server, run: nft add table ip mine, backends: [nft]}
probes:
  - name: first
    send: tcp 198.51.100.1:80
    netns: [server]
    backends: [legacy]
    change:
      - {namespace: server, iptables: [-F], link: {interface: eth0, up: true}}
      - {namespace: client, sysctls: {net.ipv4.ip_forward: 0}}
    expect:
      outcome: dropped
      rule: filter/INPUT policy
      nat: {destination: "198.51.100.1:81"}
      crosses: [mangle/PREROUTING, nat/PREROUTING 1]
      crosses-not: [filter/FORWARD]
      nft: {outcome: delivered, crosses: [filter/INPUT 2]}
"""


def test_all_fields_arrive() -> None:
    scenario = parse_scenario(ALL, "all.yaml")
    assert [claim.truth for claim in scenario.claims] == [Verdict.FALSE, Verdict.HALF]
    assert scenario.backends == tuple(LabBackend)
    server = scenario.namespaces["server"]
    assert server.routes[1].mtu == 1400
    assert [route.network for route in server.routes] == ["203.0.113.0/24", "0.0.0.0/0", "::/0"]
    assert server.policy[0].mark_and_mask() == (16, 255)
    assert [rule.version for rule in server.policy] == [4, 6, 4]
    third = server.policy[2]
    ranges = [third.range_of(field, most) for field, most in RANGES.items()]
    assert ranges == [(5, 9), (80, 90), (443, 443)]
    assert (third.field_bits(), third.protocol_number()) == (0x10, 6)
    assert [service.accepts for service in server.services] == [False, False]
    assert server.bridges["br0"].ports == ("v1",)
    assert scenario.topology.bridge_of("server", "v1") == "br0"
    assert scenario.refused[0].message_on("nft") == "b"
    assert [refusal.runs_on("legacy") for refusal in scenario.refused] == [True, False]
    probe = scenario.probes[0]
    assert [probe.runs_on(backend) for backend in LabBackend] == [True, False, False]
    assert probe.change[0].iptables == ("-F",)


def test_rules_go_to_the_backend_of_the_run_unless_they_name_one() -> None:
    server = parse_scenario(ALL, "all.yaml").namespaces["server"]
    loaded = {
        backend: [
            (each.program, each.backend, path_text(each.path))
            for each in server.rule_sources(backend)
        ]
        for backend in LabBackend
    }
    own = [
        ("iptables", Backend.LEGACY, "iptables-legacy"),
        ("ip6tables", Backend.NFT, "ip6tables-nft"),
        ("nft", None, "nftables"),
    ]
    assert loaded[LabBackend.LEGACY] == [("iptables", Backend.LEGACY, "iptables"), *own]
    assert loaded[LabBackend.NFT] == [("iptables", Backend.NFT, "iptables"), *own]
    assert loaded[LabBackend.BOTH][:2] == [
        ("iptables", Backend.LEGACY, "iptables"),
        ("iptables", Backend.NFT, "iptables"),
    ]


def test_rules_files() -> None:
    scenario = parse_scenario(ALL, "labs/all.yaml")
    named = [
        (each.program, each.file, path_text(each.path))
        for host in scenario.namespaces.values()
        for each in file_sources(host.rules_file, LabBackend.NFT)
    ]
    assert named == [
        ("iptables", "rules.v4", "rules-file.iptables"),
        ("nft", "rules.nft", "rules-file.nftables"),
        ("iptables", "client.v4", "rules-file"),
    ]
    assert str(scenario.source.folder) == "labs"


def test_fields_of_one_backend_stand_over_the_others() -> None:
    expect = parse_scenario(ALL, "all.yaml").probes[0].expect
    assert expect.on("legacy").outcome == expect.on("both").outcome == "dropped"
    nft = expect.on("nft")
    assert (nft.outcome, nft.crosses) == ("delivered", ("filter/INPUT 2",))
    assert nft.rule == "filter/INPUT policy"


def test_lines_of_fields() -> None:
    source = parse_scenario(ALL, "all.yaml").source
    server = ("namespaces", "server")
    assert source.line((*server, "iptables", 1)) == 15
    assert source.line((*server, "ip6tables-nft"), row=2) == 20
    assert source.line((*server, "nftables"), row=1) == 22
    assert source.line((*server, "no such field")) == 14
    assert source.place((*server, "iptables")) == "all.yaml line 15"
    assert Source().line(server) is None
    assert Source().place(server) == ""


REFUSED = {
    "a port of no link": ("ports: [v1]", "ports: [v2]", "port 'v2' of br0 is no end of a link"),
    "a port twice": ("ports: [v1]", "ports: [v1, v1]", "there are two ports 'v1'"),
    "a bridge like a link": ("{br0: {", "{eth0: {", "has two interfaces eth0"),
    "a loopback link": ("interface: v1}", "interface: lo}", "has two interfaces lo"),
    "an address twice": ("[192.0.2.1/24]", "[198.51.100.1/24]", "on eth0 and on br0"),
    "an address of both ends": (
        '{namespace: client, mac: "02:00:00:00:00:02"}',
        "{namespace: client, addresses: [198.51.100.1/25]}",
        "server and client have the same address 198.51.100.1 on one link",
    ),
    "an address behind a bridge": (
        "{namespace: client, interface: eth1}",
        "{namespace: client, interface: eth1, addresses: [192.0.2.1/24]}",
        "client and server have the same address 192.0.2.1 on one link",
    ),
    "a service twice": ("{port: 81, full: true}", "{port: 80, interface: eth0}", "two services"),
    "a full service of udp": ("{port: 81,", "{port: 81, protocol: udp,", "has no backlog"),
    "a way that leads nowhere": ("type: blackhole}", "type: blackhole, via: 192.0.2.9}",
                                 "a route of type blackhole leads nowhere"),
    "a way of the other family": ("via: 198.51.100.2,", 'via: "2001:db8::1",',
                                  "198.51.100.1 and a route to default are of different families"),
    "a network with a host": ("to: 203.0.113.0/24, type", "to: 203.0.113.1/24, type", "host bits"),
    "a rule without a table": ("table: 100, priority: 50", "priority: 50", "needs `table`"),
    "users": ("uidrange: 5-9", "uidrange: me", "'me' is no number, and no range like 5-9"),
    "users backwards": ("uidrange: 5-9", "uidrange: 9-5", "uidrange 5 is not a number from 9"),
    "a port": ("dport: 443", "dport: 65536", "dport 65536 is not a number from 0 to 65535"),
    "a field": ("dsfield: 0x10", "dsfield: 256", "dsfield 256 is not a number from 0 to 255"),
    "a protocol": ("ipproto: tcp", "ipproto: tpc", "'tpc' is neither a number nor one of icmp"),
    "a mark": ("0x10/0xff", "1x0", "'1x0' is no mark"),
    "a group's address": ('"02:00:00:00:00:09"', '"03:00:00:00:00:09"', "address of a group"),
    "no address": ('"02:00:00:00:00:09"', '"02-00-00-00-00-09"', "is no hardware address"),
    "mtu": ("mtu: 1400, up", "mtu: 14, up", "mtu 14 is not a number from 68 to 65535"),
    "include": ("table ip mine {\n", 'include "/etc/passwd"\n', "`include` reads another file"),
    "a shell": ("run: nft add table ip mine", "run: sh -c reboot", "only iptables, ip6tables"),
    "nft's options": ("run: nft add table", "run: nft -f x; add table", "and no options"),
    "modprobe": ("run: iptables -t nat", "run: iptables -nM/tmp/x -t nat", "would run a program"),
    "no change": (", sysctls: {net.ipv4.ip_forward: 0}}", "}", "nothing is changed"),
    "a changed namespace": ("- {namespace: client, sysctls", "- {namespace: clint, sysctls",
                            "line 55, probes[0].change[1].namespace: namespace 'clint' is not"),
    "a backend": ("backends: [legacy]", "backends: [nft, legacy, xt]", "Invalid enum value 'xt'"),
    "a claim's probe": ("probes: [first]", "probes: [second]", "there is no probe 'second'"),
    "a hop": ("[filter/FORWARD]", "[FORWARD]", "'FORWARD' names no chain"),
    "a rule's number": ("filter/INPUT policy", "filter/INPUT", "'filter/INPUT' names no rule"),
    "no translation": ('{destination: "198.51.100.1:81"}', "{}", "no translation is expected"),
    "a rules file elsewhere": ("rules.v4, n", "/etc/shadow, n", "is no file beside the lab file"),
    "a rules file above": ("client.v4", "a/../../b", "is no file beside the lab file"),
    "no rules file": ("{iptables: rules.v4, nftables: rules.nft}", "{}", "it names no file"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_together_is_refused(what: str) -> None:
    old, new, message = REFUSED[what]
    assert old in ALL
    with pytest.raises(UsageError) as refused:
        parse_scenario(ALL.replace(old, new, 1), "all.yaml")
    assert message in str(refused.value)


def test_a_lab_of_no_namespace_is_refused() -> None:
    with pytest.raises(UsageError, match="needs at least one namespace"):
        parse_scenario("name: none\ntitle: None\nnamespaces: {}\n", "none.yaml")


@pytest.mark.parametrize("cut", range(0, len(ALL), 97))
def test_a_cut_off_file_is_a_usage_error_or_a_lab(cut: int) -> None:
    """YAML has no end mark: what is cut between two parts may be whole."""
    with suppress(UsageError):
        assert parse_scenario(ALL[:cut], "all.yaml").name == "all-fields"


@pytest.mark.parametrize(
    "text",
    ["a: &a [*a]", "&a {name: *a}", "[" * 20000, "- " * 20000, "? " * 20000],
    ids=["itself", "key", "lists", "items", "keys"],
)
def test_text_that_holds_itself_or_is_deep(text: str) -> None:
    with pytest.raises(UsageError, match=r"x\.yaml"):
        parse_scenario(text, "x.yaml")


def test_values_of_routing() -> None:
    assert Route("2001:db8::/32", interface="eth0").version == 6
    assert PolicyRule(table=1).mark_and_mask() is None
