"""Labs on the real kernel: up in a moment, reachable, and gone whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipttrace.errors import KernelError
from ipttrace.lab.scenario import load_scenario, parse_scenario
from ipttrace.lab.topology import Topology
from ipttrace.netfilter import Backend, PacketFamily
from ipttrace.probe import ProbeSpec
from ipttrace.system import lab_links
from ipttrace.system.client import RealClient
from ipttrace.system.lab_builder import Lab, LabBuilder
from ipttrace.system.namespaces import NAMED
from ipttrace.system.netns_files import create_namespace, delete_namespace
from tests.root.kernel import in_namespace, run, unique_name
from tests.waiting import wait_until

TWO = """
name: two
title: Both families
namespaces:
  client: {routes: [{to: default, via: 198.51.100.1}, {to: default, via: "2001:db8::1"}]}
  server:
    sysctls: {net.ipv4.ip_forward: 1}
    services:
      - {port: 8443}
      - {port: 8443, address: "::"}
      - {port: 53, protocol: udp}
      - {port: 53, protocol: udp, address: "2001:db8::1"}
    iptables: |
      *filter
      :INPUT ACCEPT [0:0]
      -A INPUT -p tcp --dport 81 -j DROP
      COMMIT
    ip6tables: ["-A INPUT -p tcp --dport 81 -m comment --comment 'two words' -j DROP"]
links:
  - - {namespace: client, addresses: [198.51.100.2/24, "2001:db8::2/64"]}
    - {namespace: server, addresses: [198.51.100.1/24, "2001:db8::1/64"]}
"""
SERVER = {PacketFamily.IPV4: "198.51.100.1", PacketFamily.IPV6: "2001:db8::1"}

Up = Callable[[str, Backend], Lab]


def topology(text: str) -> Topology:
    return parse_scenario(text, "test.yaml").topology


@pytest.fixture
def builder() -> LabBuilder:
    """A builder whose names no other test has."""
    return LabBuilder(unique_name("lab"))


@pytest.fixture
def up(builder: LabBuilder) -> Iterator[Up]:
    """Builds labs from text: `up(TWO, backend)`; takes all of them down."""
    labs: list[Lab] = []

    def build(text: str, backend: Backend) -> Lab:
        labs.append(builder.up(topology(text), backend))
        return labs[-1]

    yield build
    for lab in labs:
        lab.down()


def names(prefix: str) -> list[str]:
    return sorted(path.name for path in NAMED.iterdir() if path.name.startswith(prefix))


def ask(netns: str, spec: ProbeSpec) -> str:
    client = RealClient(spec, in_namespace(netns))
    try:
        client.prepare()
        client.send()
        wait_until(client.poll)
        return str(client.poll())
    finally:
        client.finish()


def test_services_answer_the_first_packet(up: Up, backend: Backend, family: PacketFamily) -> None:
    lab = up(TWO, backend)
    client = lab.namespaces["client"]
    assert ask(client, ProbeSpec("tcp", SERVER[family], 8443)) == "CONNECTED"
    assert ask(client, ProbeSpec("udp", SERVER[family], 53)) == "REPLIED"
    assert ask(client, ProbeSpec("tcp", SERVER[family], 80)) == "ECONNREFUSED"


def test_rules_routes_and_settings_are_there(up: Up, backend: Backend) -> None:
    lab = up(TWO, backend)
    client, server = lab.namespaces["client"], lab.namespaces["server"]
    assert "--dport 81 -j DROP" in run(f"iptables-{backend}-save", netns=server)
    assert '--comment "two words"' in run(f"ip6tables-{backend}-save", netns=server)
    other = next(b for b in Backend if b is not backend)
    assert "DROP" not in run(f"iptables-{other}-save", netns=server)
    assert "default via 198.51.100.1" in run("ip", "route", netns=client)
    assert "default via 2001:db8::1" in run("ip", "-6", "route", netns=client)
    assert run("sysctl", "-n", "net.ipv4.ip_forward", netns=server) == "1\n"


def test_links_are_ready_when_it_is_up(up: Up, backend: Backend) -> None:
    for netns in up(TWO, backend).namespaces.values():
        shown = run("ip", "address", "show", "dev", "eth0", netns=netns)
        assert "state UP" in shown
        assert "tentative" not in shown
        assert shown.count("inet6") == 2, "the link-local address as well"


def test_links_that_never_come_up_are_an_error(
    monkeypatch: pytest.MonkeyPatch, builder: LabBuilder
) -> None:
    monkeypatch.setattr(lab_links, "READY_TIMEOUT", 0.01)
    monkeypatch.setattr(lab_links, "_forwards", lambda link: False)
    with pytest.raises(KernelError, match=r"cannot bring the links of \w+ up: not within 0\.01 s"):
        builder.up(topology(TWO), "legacy")
    assert names(builder.prefix) == []


def test_up_within_a_second(up: Up, backend: Backend) -> None:
    began = time.monotonic()
    up(TWO, backend)
    assert time.monotonic() - began < 1.0


def test_down_leaves_nothing(builder: LabBuilder, backend: Backend) -> None:
    mounts = directory_mounts()
    lab = builder.up(topology(TWO), backend)
    assert len(names(builder.prefix)) == 2
    assert lab.down() == []
    assert lab.down() == []
    assert names(builder.prefix) == []
    assert not Path("/proc", str(lab.keeper.pid)).exists()
    assert directory_mounts() == max(mounts, 1)


def directory_mounts() -> int:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return sum(line.split()[4] == str(NAMED) for line in lines)


def test_many_labs_of_one_kind_do_not_meet(up: Up, backend: Backend) -> None:
    first, second = up(TWO, backend), up(TWO, backend)
    assert set(first.namespaces.values()).isdisjoint(second.namespaces.values())
    first.down()
    assert ask(second.namespaces["client"], ProbeSpec("tcp", "198.51.100.1", 8443)) == "CONNECTED"


BROKEN = {
    "rule": (
        "--dport 81 -j DROP\n",
        "--dport 81 -j NOWHERE\n",
        "in server (test.yaml line 16): iptables v",
    ),
    "rule line": (
        "'two words' -j DROP",
        "'two words' -j NOWHERE",
        "two words -j NOWHERE' in server (test.yaml line 18): ip6tables v",
    ),
    "refused by the kernel": (
        "'two words' -j DROP",
        "x -j TCPMSS --clamp-mss-to-pmtu",
        "--clamp-mss-to-pmtu' in server (test.yaml line 18): ip6tables",
    ),
    "no commit": ("      COMMIT\n", "", "server (test.yaml line 17): "),
    "route": ("via: 198.51.100.1}", "via: 203.0.113.1}", "cannot add route to default"),
    "setting": ("net.ipv4.ip_forward", "net.ipv4.no_such", "cannot set net.ipv4.no_such to 1"),
    "service": (
        '53, protocol: udp, address: "2001:db8::1"',
        '53, protocol: udp, address: "::9"',
        "cannot listen on udp ::9 port 53 in namespace server (test.yaml line 12): ",
    ),
    "address": (
        '"2001:db8::2/64"',
        '"ff02::1/64"',
        "cannot add address ff02::1/64 to eth0 in client: ",
    ),
}


@pytest.mark.parametrize("part", BROKEN)
def test_broken_part_is_named_and_nothing_stays(part: str, builder: LabBuilder) -> None:
    old, new, message = BROKEN[part]
    assert old in TWO
    with pytest.raises(KernelError) as broken:
        builder.up(topology(TWO.replace(old, new)), Backend.LEGACY)
    assert message in str(broken.value)
    assert names(builder.prefix) == []


KILLED = """
import os, signal, sys
from ipttrace.lab.scenario import load_scenario
from ipttrace.netfilter import Backend
from ipttrace.system.lab_builder import LabBuilder

lab = LabBuilder(sys.argv[1]).up(load_scenario("article-complete").topology, Backend.LEGACY)
print(lab.keeper.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_sigkill_leaves_no_namespace_and_no_process() -> None:
    prefix = unique_name("killed")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, prefix], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    wait_until(lambda: names(prefix) == [], what="the namespaces gone")
    wait_until(lambda: not alive(int(done.stdout)), what="the keeper gone")


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that nobody has waited for yet does not."""
    try:
        return " Z " not in Path("/proc", str(pid), "stat").read_text()
    except FileNotFoundError:
        return False


def test_killed_keeper_is_noticed(builder: LabBuilder) -> None:
    lab = builder.up(load_scenario("article-complete").topology, Backend.LEGACY)
    os.kill(lab.keeper.pid, signal.SIGKILL)
    warnings = lab.down()
    assert len(warnings) == 2
    assert "was not deleted by the lab's keeper" in warnings[0]
    assert names(builder.prefix) == []


def test_article_complete_behaves_as_measured(builder: LabBuilder, backend: Backend) -> None:
    scenario = load_scenario("article-complete")
    lab = builder.up(scenario.topology, backend)
    try:
        client, server = lab.namespaces["client"], lab.namespaces["server"]
        assert ask(client, ProbeSpec("tcp", "198.51.100.1", 8445)) == "CONNECTED"
        local = RealClient(ProbeSpec("tcp", "198.51.100.1", 8445), in_namespace(server))
        local.prepare()
        local.send()
        wait_until(lambda: dropped(server, backend) == 1)
        assert local.poll() is None
        local.finish()
    finally:
        lab.down()


def dropped(netns: str, backend: Backend) -> int:
    saved = run(f"iptables-{backend}-save", "-c", "-t", "filter", netns=netns)
    (line,) = [line for line in saved.splitlines() if "-j DROP" in line]
    return int(line[1 : line.index(":")])


def test_namespace_name_that_is_taken(builder: LabBuilder) -> None:
    name = unique_name("taken")
    create_namespace(name)
    try:
        with pytest.raises(KernelError, match=f"cannot make namespace {name}: File exists"):
            create_namespace(name)
    finally:
        assert delete_namespace(name)
    assert not delete_namespace(name)
