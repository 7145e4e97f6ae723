"""Labs as files: what is read, and what is refused with file and field."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttrace.errors import UsageError
from ipttrace.lab.parts import LabBackend, words_of
from ipttrace.lab.scenario import library, load_scenario, parse_scenario
from ipttrace.path import Outcome

GOOD = """
name: small
title: A small lab
namespaces:
  client:
    routes: [{to: default, via: 198.51.100.1}, {to: "2001:db8:1::/64", interface: eth0}]
  server:
    sysctls: {net.ipv4.ip_forward: 1}
    services: [{port: 8443}, {protocol: udp, address: "::", port: 53}]
    iptables:
      - -A INPUT -m comment --comment "two words" -j ACCEPT
    ip6tables: |
      *filter
      COMMIT
links:
  - - {namespace: client, addresses: [198.51.100.2/24, "2001:db8::2/64"]}
    - {namespace: server, interface: veth0, addresses: [198.51.100.1/24]}
probes:
  - name: injected
    send: tcp 198.51.100.1:8443
    in: veth0
    src: 198.51.100.2:40000
    tcp-flags: SYN,ACK
    netns: [server]
    expect: {outcome: refused}
  - name: real
    send: icmp6 2001:db8::1
    from: client
    count: 2
    netns: [client, server]
    expect: {client: REPLIED, netns: client}
"""


def test_all_words_arrive() -> None:
    scenario = parse_scenario(GOOD, "small.yaml")
    client, server = scenario.namespaces["client"], scenario.namespaces["server"]
    assert [route.to for route in client.routes] == ["default", "2001:db8:1::/64"]
    assert server.sysctls == {"net.ipv4.ip_forward": 1}
    assert [(s.protocol, s.address, s.port) for s in server.services] == [
        ("tcp", "0.0.0.0", 8443),
        ("udp", "::", 53),
    ]
    assert server.ip6tables == "*filter\nCOMMIT\n"
    assert scenario.links[0][0].interface == "eth0"
    assert scenario.backends == (LabBackend.LEGACY, LabBackend.NFT)


def test_probes_are_specs() -> None:
    injected, real = (probe.spec() for probe in parse_scenario(GOOD, "small.yaml").probes)
    assert (injected.dst, injected.dport, injected.sport) == ("198.51.100.1", 8443, 40000)
    assert (injected.in_interface, injected.tcp_flags) == ("veth0", ("SYN", "ACK"))
    assert (real.protocol, real.from_netns, real.count) == ("icmp6", "client", 2)
    assert real.netns == ("client", "server")


def test_rule_lines_are_split_like_words() -> None:
    assert words_of('-A INPUT -m comment --comment "two words; $(x)"')[-1] == "two words; $(x)"


REFUSED = {
    ("title: A small lab", "titel: A small lab"): "line 3, titel: Object contains unknown field",
    ("port: 8443}", "port: 84430}"): "line 9, namespaces.server.services[0].port: "
    "port 84430 is not a number from 1 to 65535",
    ("port: 8443}", "port: http}"): "line 9, namespaces.server.services[0].port: Expected `int`, "
    "got `str`",
    ("198.51.100.2/24", "198.51.100.2"): "line 16, links[0][0].addresses[0]: "
    "address '198.51.100.2' lacks the length of its prefix",
    ("198.51.100.2/24", "198.51.100.256/24"): "addresses[0]: '198.51.100.256/24' does not appear",
    ("via: 198.51.100.1}", "via: gateway}"): "line 6, namespaces.client.routes[0].via: 'gateway'",
    (", via: 198.51.100.1}", "}"): "routes[0]: a route needs `via` or `interface`",
    ("namespace: client,", "namespace: cleint,"): "line 16, links[0][0].namespace: "
    "a link ends in namespace 'cleint', which is not there",
    ("interface: veth0", "interface: a/b"): "'a/b' cannot name an interface",
    ("interface: veth0", "interface: sixteen-bytes-xx"): "it has 16 bytes, and the kernel takes 15",
    ("interface: veth0", 'interface: "a\\e[1m"'): r"line 17, links[0][1].interface: "
    r"'a\x1b[1m' cannot name an interface",
    ("server:\n    sysctls", "Server:\n    sysctls"): "line 7, namespaces.Server: "
    "'Server' cannot name a namespace",
    ("server:\n    sysctls", '"s\\u202e":\n    sysctls'): r"'s\u202e' cannot name a namespace",
    (
        "server:\n    sysctls",
        "client:\n    sysctls",
    ): "line 7, namespaces.client: it is there twice",
    ("net.ipv4.ip_forward", "kernel.core_pattern"): "'kernel.core_pattern' is not a setting",
    ("net.ipv4.ip_forward", "net...ip_forward"): "'net...ip_forward' is not a setting below net.",
    ("net.ipv4.ip_forward", "net//ip_forward"): "'net//ip_forward' is not a setting below net.",
    ('"two words"', '"two words'): "line 11, namespaces.server.iptables[0]: No closing quotation",
    ('"two words"', "two --modprobe=/tmp/x"): "would run a program",
    ('"two words"', "two -M/tmp/x"): "would run a program",
    ("COMMIT\n", "-A INPUT -M /tmp/x\n"): "namespaces.server.ip6tables: '-M' would run a program",
    ("send: tcp 198.51.100.1:8443", "send: tcp 198.51.100.1"): "line 19, probes[0]: cannot send "
    "tcp to 198.51.100.1: the port is missing. Write A:P.",
    ("tcp-flags: SYN,ACK", "tcp-flags: SIN"): "there is no such flag",
    ("in: veth0", "in: lo"): "cannot inject on lo",
    ("from: client", "from: cleint"): "line 28, probes[1].from: namespace 'cleint' is not there",
    ("netns: [server]", "netns: []"): "line 24, probes[0].netns: `netns` is empty",
    ("outcome: refused", "outcome: refusd"): "line 25, probes[0].expect.outcome: "
    "Invalid enum value 'refusd'",
    ("{outcome: refused}", "{}"): "line 25, probes[0].expect: nothing is expected",
    ("netns: [client, server]", "netns: [server]"): "line 31, probes[1].expect.netns: "
    "probe 'real' is not traced in 'client'",
    ("name: real", "name: injected"): "there are two probes 'injected'",
    ("name: small", "name: Small lab"): "'Small lab' cannot name a lab",
    (
        "title: A small lab",
        "title: 17",
    ): "title: Expected `str`, got `int`. Put the value in quotes",
    ("title: A small lab", "title: t\nsource: /etc"): "source: Object contains unknown field",
    (
        "interface: veth0, addresses: [198.51.100.1/24]",
        "interface: veth0, addresses: [198.51.100.1/24, 198.51.100.1/25]",
    ): "namespace server has address 198.51.100.1 on veth0 and on veth0",
}


@pytest.mark.parametrize(("change", "message"), REFUSED.items(), ids=REFUSED.values())
def test_bad_field_is_named(change: tuple[str, str], message: str) -> None:
    assert change[0] in GOOD
    with pytest.raises(UsageError) as refused:
        parse_scenario(GOOD.replace(*change), "small.yaml")
    assert str(refused.value).startswith("cannot use lab small.yaml: ")
    assert message in str(refused.value)


@pytest.mark.parametrize("text", ["a: [", "\x00", b"\xff\xfe\xfa", "!!python/object:os.system {}"])
def test_no_yaml(text: str | bytes) -> None:
    with pytest.raises(UsageError, match=r"cannot read lab x\.yaml: not YAML: "):
        parse_scenario(text, "x.yaml")


@given(st.text(max_size=80))
def test_any_text_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_scenario(text, "x.yaml")


def test_absent_file_names_the_library(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"No such file.*'ipttrace lab list'"):
        load_scenario(str(tmp_path / "absent.yaml"))


@pytest.mark.parametrize("name", library())
def test_library_file_is_called_as_its_lab(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario.probes


def test_article_complete_expects_what_the_article_misses() -> None:
    probes = load_scenario("article-complete").probes
    assert [probe.expect.outcome for probe in probes] == [
        Outcome.DELIVERED,
        Outcome.DROPPED,
        Outcome.DROPPED,
    ]
    assert [probe.expect.cause for probe in probes] == [
        "delivered",
        "mark-drop",
        "mark-drop",
    ]
    assert probes[2].expect.client == "TIMEOUT"
