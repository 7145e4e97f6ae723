"""Every field of a lab file does on the real kernel what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipttrace.errors import IptTraceError, KernelError, UsageError
from ipttrace.lab.parts import LabBackend
from ipttrace.lab.scenario import Scenario, parse_scenario
from ipttrace.netfilter import Backend
from ipttrace.probe import ProbeSpec
from ipttrace.system.client import RealClient
from ipttrace.system.lab_builder import Lab, LabBuilder
from ipttrace.system.namespaces import NAMED
from tests.root.kernel import in_namespace, run, unique_name
from tests.waiting import wait_until

HEAD = "name: a-lab\ntitle: A lab\nbackends: [legacy, nft, both]\n"

Up = Callable[..., Lab]


@pytest.fixture
def builder() -> LabBuilder:
    """A builder whose names no other test has."""
    return LabBuilder(unique_name("lab"))


@pytest.fixture
def up(builder: LabBuilder) -> Iterator[Up]:
    """Builds a lab from text, `up(text, backend)`, and takes it down."""
    labs: list[Lab] = []

    def build(text: str, backend: str = "legacy", file: str = "test.yaml") -> Lab:
        labs.append(builder.up(scenario(text, file).topology, backend))
        return labs[-1]

    yield build
    for lab in labs:
        lab.down()


def scenario(text: str, file: str = "test.yaml") -> Scenario:
    return parse_scenario(HEAD + text, file)


def show(lab: Lab, namespace: str, *command: str) -> str:
    return run(*command, netns=lab.namespaces[namespace])


def ask(lab: Lab, namespace: str, spec: ProbeSpec) -> str | None:
    """Return what a real client gets, None if it is nothing within a quarter of a second."""
    client = RealClient(spec, in_namespace(lab.namespaces[namespace]))
    try:
        client.prepare()
        client.send()
        try:
            wait_until(client.poll, 0.25)
        except AssertionError:
            return None
        return client.poll()
    finally:
        client.finish()


ROUTED = """
namespaces:
  host:
    routes:
      - {to: default, via: 198.51.100.2}
      - {to: 203.0.113.0/24, type: blackhole}
      - {to: 192.0.2.0/24, via: 198.51.100.2, table: 100, metric: 7, mtu: 1300,
         source: 198.51.100.1}
      - {to: 192.0.2.128/25, via: 203.0.113.9, interface: eth0, onlink: true}
      - {to: "2001:db8:9::/48", type: prohibit}
      - {to: default, interface: eth0, family: ipv6, table: 200}
    policy:
      - {from: 198.51.100.0/24, mark: 0x10/0xff, in: eth0, table: 100, priority: 50}
      - {to: 203.0.113.0/24, out: eth0, action: unreachable, priority: 60}
      - {to: "2001:db8::/32", table: 200, priority: 70}
    neighbours: [{address: 198.51.100.9, mac: "02:00:00:00:00:09"}]
    sysctls: {net.ipv4.ip_forward: 1, net.ipv4.conf.v/1.rp_filter: "2"}
  far: {}
links:
  - - {namespace: host, addresses: [198.51.100.1/24], mac: "02:00:00:00:00:aa", mtu: 1400}
    - {namespace: far, addresses: [198.51.100.2/24]}
  - - {namespace: host, interface: v.1}
    - {namespace: far, interface: v1, up: false}
"""


def test_routes_rules_and_neighbours(up: Up) -> None:
    lab = up(ROUTED)
    routes = show(lab, "host", "ip", "route", "show", "table", "all")
    assert "default via 198.51.100.2 dev eth0" in routes
    assert "blackhole 203.0.113.0/24" in routes
    assert "192.0.2.0/24 via 198.51.100.2 dev eth0 table 100" in routes
    assert "src 198.51.100.1 metric 7 mtu 1300" in routes
    assert "192.0.2.128/25 via 203.0.113.9 dev eth0 proto static onlink" in routes
    assert "prohibit 2001:db8:9::/48" in routes
    assert "default dev eth0 table 200" in routes
    rules = show(lab, "host", "ip", "rule")
    assert "50:\tfrom 198.51.100.0/24 fwmark 0x10/0xff iif eth0 lookup 100" in rules
    assert "60:\tfrom all to 203.0.113.0/24 oif eth0 unreachable" in rules
    assert "70:\tfrom all to 2001:db8::/32 lookup 200" in show(lab, "host", "ip", "-6", "rule")
    neighbours = show(lab, "host", "ip", "neighbour", "show", "198.51.100.9")
    assert "lladdr 02:00:00:00:00:09 PERMANENT" in neighbours


def test_links_have_their_mac_mtu_and_state(up: Up) -> None:
    lab = up(ROUTED)
    shown = show(lab, "host", "ip", "link", "show", "eth0")
    assert "mtu 1400" in shown
    assert "02:00:00:00:00:aa" in shown
    assert "state DOWN" in show(lab, "far", "ip", "link", "show", "v1")
    assert show(lab, "host", "sysctl", "-n", "net.ipv4.conf.v/1.rp_filter") == "2\n"


SWITCHED = """
namespaces:
  one: {}
  switch:
    bridges: {br0: {ports: [p1, p2], addresses: [192.0.2.1/24, "2001:db8::1/64"], mtu: 1400}}
  two: {services: [{port: 80}, {port: 80, address: "::"}]}
links:
  - [{namespace: one, addresses: [192.0.2.2/24, "2001:db8::2/64"]}, {namespace: switch, interface: p1}]
  - [{namespace: switch, interface: p2}, {namespace: two, addresses: [192.0.2.3/24, "2001:db8::3/64"]}]
"""  # noqa: E501


def test_the_first_packet_crosses_a_bridge(up: Up) -> None:
    lab = up(SWITCHED)
    for address in ("192.0.2.3", "2001:db8::3"):
        assert ask(lab, "one", ProbeSpec("tcp", address, 80)) == "CONNECTED"
        assert ask(lab, "switch", ProbeSpec("tcp", address, 80)) == "CONNECTED"


BACKLOGS = """
namespaces:
  server:
    services:
      - {port: 80, accept: false, backlog: 0}
      - {port: 81, full: true, backlog: 2}
      - {port: 82, interface: lo}
      - {port: 83, full: true, address: "::1", backlog: 0}
    iptables: [-A INPUT -i lo -p tcp --dport 82 -j ACCEPT]
  client: {}
links:
  - - {namespace: client, addresses: [198.51.100.2/24]}
    - {namespace: server, addresses: [198.51.100.1/24]}
"""


def test_services_that_accept_nothing(up: Up) -> None:
    lab = up(BACKLOGS)
    assert ask(lab, "client", ProbeSpec("tcp", "198.51.100.1", 80)) == "CONNECTED"
    listening = show(lab, "server", "ss", "-Hltn").split("\n")
    queues = {line.split()[3].rpartition(":")[2]: line.split()[1:3] for line in listening if line}
    assert queues["81"] == ["3", "2"]
    assert queues["83"] == ["1", "0"]
    assert ask(lab, "client", ProbeSpec("tcp", "198.51.100.1", 81)) is None
    assert ask(lab, "client", ProbeSpec("tcp", "198.51.100.1", 82)) == "ECONNREFUSED"
    assert ask(lab, "server", ProbeSpec("tcp", "127.0.0.1", 82)) == "CONNECTED"


BOTH = """
namespaces:
  server:
    rules-file: {iptables: first.v4, nftables: native.nft}
    iptables: [-A INPUT -p udp --dport 1 -j DROP]
    iptables-legacy: [-A INPUT -p udp --dport 2 -j DROP]
    ip6tables-nft: [-A INPUT -p udp --dport 3 -j DROP]
    nftables: |
      table inet mine {
        chain input { type filter hook input priority 0; }
      }
"""
FIRST = "*filter\r\n:INPUT ACCEPT [0:0]\r\n-A INPUT -p udp --dport 9 -j DROP\r\nCOMMIT\r\n"


@pytest.mark.parametrize("backend", list(LabBackend))
def test_rules_stand_where_they_are_said_to(up: Up, backend: LabBackend, tmp_path: Path) -> None:
    (tmp_path / "first.v4").write_text(FIRST, newline="")
    (tmp_path / "native.nft").write_text("table ip from_file {\n}\n")
    lab = up(BOTH, backend, str(tmp_path / "lab.yaml"))
    for each in Backend:
        saved = show(lab, "server", f"iptables-{each}-save").splitlines()
        ports = [line.split()[-3] for line in saved if line.startswith("-A INPUT")]
        generic = ["9", "1"] if each in backend.backends else []
        assert ports == generic + (["2"] if each is Backend.LEGACY else [])
    assert "--dport 3" in show(lab, "server", "ip6tables-nft-save")
    assert "--dport 3" not in show(lab, "server", "ip6tables-legacy-save")
    tables = show(lab, "server", "nft", "list", "tables")
    assert "table ip from_file\n" in tables
    assert "table inet mine\n" in tables


LIST = """
namespaces:
  server:
    iptables:
      - -N mine
      - --table nat --append PREROUTING -p tcp --dport 1 -j REDIRECT --to-ports 2
      - -A INPUT -m comment --comment 'a "quoted" \\ $(word); `x`#' -j mine
      - -I INPUT 1 -p udp -j ACCEPT
      - -P FORWARD DROP
      - -t mangle -A INPUT -j MARK --set-mark 1
"""


def test_a_list_of_calls_does_what_the_calls_do(up: Up, backend: Backend) -> None:
    lab, plain = up(LIST, backend), up("namespaces: {server: {}}", backend)
    for line in scenario(LIST).namespaces["server"].iptables:
        plain.refused("server", ("iptables", *words(line)))
    for table in ("filter", "nat", "mangle"):
        save = (f"iptables-{backend}-save", "-t", table)
        rules = [
            [line for line in show(each, "server", *save).splitlines() if line[0] != "#"]
            for each in (lab, plain)
        ]
        assert rules[0] == rules[1]


def words(line: str) -> tuple[str, ...]:
    from ipttrace.lab.parts import words_of

    return words_of(line)


def test_calls_that_no_text_can_hold_are_made_one_by_one(up: Up, backend: Backend) -> None:
    long = "x" * 250
    text = f"namespaces: {{server: {{iptables: [-v -A INPUT -m comment --comment {long}]}}}}"
    assert long in show(up(text, backend), "server", f"iptables-{backend}-save")


CHANGED = """
namespaces:
  server:
    services: [{port: 80}]
    iptables: [-A INPUT -p tcp --dport 80 -j DROP]
  client: {}
links:
  - - {namespace: client, addresses: [198.51.100.2/24]}
    - {namespace: server, addresses: [198.51.100.1/24]}
probes:
  - name: later
    send: tcp 198.51.100.1:80
    netns: [server]
    change:
      - {namespace: server, iptables: [-F], sysctls: {net.ipv4.ip_forward: 1}}
      - {namespace: client, link: {interface: eth0, up: false}}
      - {namespace: client, link: {interface: eth0, up: true}}
      - {namespace: server, iptables: [-A NOWHERE -j DROP]}
    expect: {outcome: delivered}
"""


def test_changes(up: Up, backend: Backend) -> None:
    lab = up(CHANGED, backend)
    target = ProbeSpec("tcp", "198.51.100.1", 80)
    assert ask(lab, "client", target) is None
    rules, down, up_again, wrong = scenario(CHANGED).probes[0].change
    lab.change(rules)
    assert show(lab, "server", "sysctl", "-n", "net.ipv4.ip_forward") == "1\n"
    assert ask(lab, "client", target) == "CONNECTED"
    lab.change(down)
    assert ask(lab, "client", target) == "ENETUNREACH"
    lab.change(up_again)
    assert ask(lab, "client", target) == "CONNECTED"
    with pytest.raises(KernelError, match=r"\(test\.yaml line 21\)"):
        lab.change(wrong, "probes", 0, "change", 3)


REFUSALS = [
    ("iptables -t nat -A PREROUTING -j DROP", 'The "nat" table is not intended for filtering'),
    ("iptables -A INPUT -j ACCEPT", None),
    ("ip6tables-nft -A NOWHERE -j DROP", "No chain/target/match by that name"),
    ("nft add rule ip none none accept", "No such file or directory"),
]


@pytest.mark.parametrize(("command", "message"), REFUSALS)
def test_refused_commands(up: Up, backend: Backend, command: str, message: str | None) -> None:
    complaint = up("namespaces: {server: {}}", backend).refused("server", words(command))
    if message is None:
        assert complaint is None
    else:
        assert complaint is not None
        assert message in complaint


TWICE = """
namespaces:
  server:
    iptables: |
      *mangle
      :mine - [0:0]
      -A mine -j MARK --set-mark 1
      COMMIT
      *filter
      :mine - [0:0]
"""
SEVEN = "".join(f"      -A mine -p udp --dport {port} -j DROP\n" for port in range(1, 8))


@pytest.mark.parametrize("place", range(8))
def test_the_line_that_the_kernel_refuses_is_found(
    builder: LabBuilder, backend: Backend, place: int
) -> None:
    """Only at COMMIT does the kernel look at it; iptables-legacy does not say which it was."""
    lines = SEVEN.splitlines(keepends=True)
    lines.insert(place, "      -A mine -p udp -j REDIRECT --to-ports 1\n")
    text = TWICE + "".join(lines) + "      COMMIT\n"
    with pytest.raises(KernelError) as refused:
        builder.up(scenario(text).topology, backend)
    assert f"(test.yaml line {14 + place})" in str(refused.value)
    assert "-A mine -p udp -j REDIRECT --to-ports 1" in str(refused.value)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("iptables: |\n      *filter\n      -A INPUT -d ! 192.0.2.1\n      COMMIT", "line 8"),
        ("iptables: |\n      *filter\n      -A INPUT -m nosuch\n      COMMIT", "nosuch"),
        ("iptables: |\n      *filter\n      COMMIT now", "line 8"),
        ("iptables: |\n      *nosuch\n      COMMIT", "line 7"),
        ("nftables: |\n      table ip x {\n        chain y { bogus; }\n      }", "line 8"),
        ("nftables: |\n      table ip x {", "unexpected end of file"),
        (
            "rules-file: absent.v4",
            "cannot read rules file 'absent.v4' (test.yaml line 6) absent.v4",
        ),
        ("sysctls: {net.core.no_such_thing: 1}", "No such file"),
        ("services: [{port: 80, interface: eth9}]", "(test.yaml line 6): No such device"),
        ("services: [{port: 80, address: 192.0.2.9}]", "Cannot assign requested address"),
        ("routes: [{to: default, interface: eth9}]", "cannot find interface eth9 in server"),
        (
            "neighbours: [{address: 192.0.2.1, mac: '02:00:00:00:00:01'}]",
            "cannot find interface eth0 in server",
        ),
        ("twin: snapshot.json", "cannot read snapshot or save file snapshot.json: No such file"),
    ],
)
def test_what_is_refused_is_one_clear_message_and_leaves_nothing(
    builder: LabBuilder, backend: Backend, field: str, message: str
) -> None:
    text = f"namespaces:\n  server:\n    {field}\n"
    with pytest.raises(IptTraceError) as refused:
        builder.up(scenario(text).topology, backend)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert [path for path in NAMED.iterdir() if path.name.startswith(builder.prefix)] == []


@pytest.mark.parametrize("text", ["*filter\n-A INPUT -M /tmp/x\nCOMMIT\n", "\0\xff*filter"])
def test_a_rules_file_that_cannot_be_used(builder: LabBuilder, text: str, tmp_path: Path) -> None:
    (tmp_path / "rules.v4").write_text(text)
    lab = scenario("namespaces: {server: {rules-file: rules.v4}}", str(tmp_path / "lab.yaml"))
    with pytest.raises((UsageError, KernelError), match=r"rules\.v4"):
        builder.up(lab.topology, "legacy")
