# ruff: noqa: E501
"""The picture of a topology: where boxes stand and wires run, as text under review."""

from __future__ import annotations

from inline_snapshot import snapshot

from ipttrace.lab.drawing import draw
from ipttrace.lab.listing import claims_lines, list_lines, show_lines, topology_lines
from ipttrace.lab.packet_ways import ways
from ipttrace.lab.scenario import Scenario, parse_scenario

ROUTED = """
name: routed
title: Through a router
group: causes
claims:
  - {claim: a router forwards, verdict: true, why: ip_forward is on}
  - {claim: "a router rewrites, always and everywhere, whatever its rules are", verdict: false}
namespaces:
  client: {}
  router:
    sysctls: {net.ipv4.ip_forward: 1}
    nftables: |
      table ip mine {
      }
  switch:
    bridges: {br0: {ports: [eth0, eth1], addresses: [192.0.2.9/24]}}
    services: [{port: 80, full: true}, {port: 53, protocol: udp, address: 192.0.2.9}]
  server: {iptables: [-P INPUT DROP]}
links:
  - - {namespace: client, addresses: [198.51.100.2/24, "2001:db8::2/64"]}
    - {namespace: router, addresses: [198.51.100.1/24]}
  - - {namespace: router, interface: eth1, addresses: [192.0.2.1/24]}
    - {namespace: switch}
  - [{namespace: switch, interface: eth1}, {namespace: server, up: false}]
probes:
  - name: real
    say: A real client.
    send: tcp 192.0.2.9:80
    from: client
    netns: [router, switch]
    expect: {outcome: forwarded, client: TIMEOUT}
  - name: injected
    send: udp 192.0.2.9:53
    in: eth0
    netns: [router]
    expect: {outcome: forwarded}
  - {name: local, send: tcp 192.0.2.9:80, netns: [switch], expect: {cause: accept-queue-full}}
"""

STAR = """
name: star
title: A star
namespaces: {hub: {}, a: {}, b: {}, c: {}, alone: {}}
links:
  - [{namespace: a}, {namespace: hub}]
  - [{namespace: b, addresses: [10.0.2.2/24]}, {namespace: hub, interface: eth1}]
  - [{namespace: hub, interface: eth2, addresses: [10.0.3.1/24]}, {namespace: c}]
  - [{namespace: c, interface: eth1}, {namespace: b, interface: eth1}]
"""


def scenario(text: str) -> Scenario:
    return parse_scenario(text, "x.yaml")


def picture(text: str, width: int | None = None) -> str:
    return "\n" + "\n".join(draw(scenario(text).topology, width).lines()) + "\n"


def test_a_row_of_namespaces() -> None:
    assert picture(ROUTED) == snapshot("""\

┌─ client ─────────────┐       ┌─ router ─────────────────────────────────┐       ┌─ switch ─────────────────────┐       ┌─ server ────┐
│ 198.51.100.2/24 eth0 ├───────┤ eth0 198.51.100.1/24   192.0.2.1/24 eth1 ├───────┤ eth0                    eth1 ├───────┤ eth0 (down) │
│  2001:db8::2/64      │       └──────────────────────────────────────────┘       │ br0 [eth0 eth1] 192.0.2.9/24 │       └─────────────┘
└──────────────────────┘                                                          │ (tcp 80, full)               │
                                                                                  │ (udp 53 on 192.0.2.9)        │
                                                                                  └──────────────────────────────┘
""")


def test_a_narrow_row() -> None:
    assert picture(ROUTED, 120) == snapshot("""\

┌─ client ─────────────┐   ┌─ router ─────────────┐   ┌─ switch ─────────────────────┐   ┌─ server ────┐
│ 198.51.100.2/24 eth0 ├───┤ eth0 198.51.100.1/24 │ ┌─┤ eth0                         │ ┌─┤ eth0 (down) │
│  2001:db8::2/64      │   │    192.0.2.1/24 eth1 ├─┘ │                         eth1 ├─┘ └─────────────┘
└──────────────────────┘   └──────────────────────┘   │ br0 [eth0 eth1] 192.0.2.9/24 │
                                                      │ (tcp 80, full)               │
                                                      │ (udp 53 on 192.0.2.9)        │
                                                      └──────────────────────────────┘
""")


def test_a_star_and_what_hangs_alone() -> None:
    assert picture(STAR) == snapshot("""\

┌─ hub ────────────┐           ┌─ a ─────────────────────┐
│             eth0 ├───────────┤ eth0                    │
│             eth1 ├───┐       └─────────────────────────┘
│ 10.0.3.1/24 eth2 ├───┼─┐
└──────────────────┘   │ │     ┌─ b ─────────────────────┐
                       └─┼─────┤ eth0 10.0.2.2/24   eth1 ├─┐
┌─ alone ──────────┐     │     └─────────────────────────┘ │
└──────────────────┘     │                                 │
                         │     ┌─ c ─────────────────────┐ │
                         └─────┤ eth0               eth1 ├─┘
                               └─────────────────────────┘
""")


def test_too_wide_for_any_picture() -> None:
    assert list(topology_lines(scenario(ROUTED).topology, width=60)) == snapshot(
        [
            "client eth0 198.51.100.2/24 2001:db8::2/64 --- router eth0",
            "  198.51.100.1/24",
            "router eth1 192.0.2.1/24 --- switch eth0",
            "switch eth1 --- server eth0",
        ]
    )


def test_the_size_is_that_of_the_text() -> None:
    for text in (ROUTED, STAR):
        drawing = draw(scenario(text).topology)
        lines = drawing.lines()
        assert len(lines) == drawing.height
        assert max(map(len, lines)) == drawing.width


def test_ways() -> None:
    assert list(ways(scenario(ROUTED))) == snapshot(
        [
            ("real", "client ==> [router] ==> [switch]"),
            ("injected", "outside ==> eth0 [router]"),
            ("local", "made in [switch]"),
        ]
    )


def test_a_lab_by_itself() -> None:
    lines = list(show_lines(scenario(ROUTED), width=None, color=False))
    assert "\n".join(lines[lines.index("claims") :]) == snapshot("""\
claims
  true   a router forwards
         ip_forward is on
  false  a router rewrites, always and everywhere, whatever its rules are

in router
  nft: table ip mine {
  nft: }
  sysctl net.ipv4.ip_forward=1

in server
  iptables -P INPUT DROP

probes
  real  client ==> [router] ==> [switch]: tcp 192.0.2.9:80 -> forwarded, TIMEOUT
    A real client.
  injected  outside ==> eth0 [router]: udp 192.0.2.9:53 -> forwarded
  local  made in [switch]: tcp 192.0.2.9:80 -> accept-queue-full\
""")


def test_a_restore_text_and_what_changes_before_a_probe() -> None:
    text = """
name: changing
title: Changing
namespaces:
  box:
    iptables-nft: |
      *filter
      -A INPUT -j DROP
      COMMIT
links: [[{namespace: box}, {namespace: box, interface: eth1}]]
probes:
  - name: later
    send: tcp 192.0.2.9:80
    netns: [box]
    change:
      - {namespace: box, iptables: [-F], sysctls: {net.ipv4.ip_forward: 1}}
      - {namespace: box, link: {interface: eth1, up: false}}
    expect: {outcome: delivered, cause: delivered}
"""
    lines = list(show_lines(scenario(text), width=None, color=False))
    assert "\n".join(lines[lines.index("in box") :]) == snapshot("""\
in box
  iptables-nft-restore: *filter
  iptables-nft-restore: -A INPUT -j DROP
  iptables-nft-restore: COMMIT

probes
  later  made in [box]: tcp 192.0.2.9:80 -> delivered
    first in box: iptables -F
    first in box: sysctl net.ipv4.ip_forward=1
    first in box: eth1 down\
""")


def test_the_list() -> None:
    labs = [scenario(STAR), scenario(ROUTED)]
    lines = list_lines(labs, {"star"}, width=70, color=False)
    assert "\n".join(lines) == snapshot("""\
from what people ask
  star    A star                                                  (up)

one for each other cause
  routed  Through a router                             1 true, 1 false

2 labs; claims: 1 true, 1 false\
""")


def test_the_claims() -> None:
    lines = claims_lines([scenario(STAR), scenario(ROUTED)], width=60, color=False)
    assert "\n".join(lines) == snapshot("""\
true   routed  a router forwards
false  routed  a router rewrites, always and everywhere,
               whatever its rules are

2 claims: 1 true, 1 false\
""")
