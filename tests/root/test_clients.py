"""Real clients on the real kernel: each answer of the network has its word."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from ipttrace.errors import UsageError
from ipttrace.netfilter import PacketFamily
from ipttrace.probe import ProbeSpec, validate
from ipttrace.system.client import RealClient
from tests.root.kernel import Iptables, Listeners, Pair, in_namespace, run, set_sysctl
from tests.waiting import wait_until

ECHO = {PacketFamily.IPV4: "icmp", PacketFamily.IPV6: "icmp6"}
NOWHERE = {PacketFamily.IPV4: "203.0.113.9", PacketFamily.IPV6: "2001:db8:ffff::9"}

Connect = Callable[..., RealClient]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Prepares clients: `connect(netns, spec)`; finishes all of them."""
    made: list[RealClient] = []

    def prepare(netns: str, spec: ProbeSpec) -> RealClient:
        client = RealClient(validate(spec), in_namespace(netns))
        made.append(client)
        client.prepare()
        return client

    yield prepare
    for client in made:
        client.finish()


def result(client: RealClient, seconds: float = 5.0) -> str:
    """Send, and wait on the client's own descriptor for the result."""
    client.send()
    while (word := client.poll()) is None:
        descriptor = client.fileno()
        assert descriptor is not None
        assert select.select([descriptor], [], [], seconds)[0], "no result"
    assert client.fileno() is None
    return word


def echo_spec(family: PacketFamily, dst: str, **words: object) -> ProbeSpec:
    return replace(ProbeSpec(ECHO[family], dst), **words)  # type: ignore[arg-type]


def test_tcp_open_port_connects_from_the_announced_flow(
    pair: Pair, family: PacketFamily, connect: Connect, listen: Listeners
) -> None:
    listener = listen(pair.server.netns, pair.server.address(family), 8443)
    client = connect(pair.client.netns, ProbeSpec("tcp", pair.server.address(family), 8443))
    assert result(client) == "CONNECTED"
    accepted, peer = listener.accept()
    accepted.close()
    assert peer[:2] == (client.flows[0].src, client.flows[0].sport)
    assert client.flows[0].src == pair.client.address(family)


def test_tcp_closed_port_is_refused(pair: Pair, family: PacketFamily, connect: Connect) -> None:
    client = connect(pair.client.netns, ProbeSpec("tcp", pair.server.address(family), 8443))
    assert result(client) == "ECONNREFUSED"


def test_tcp_local_port_is_refused_at_once(
    pair: Pair, family: PacketFamily, connect: Connect
) -> None:
    client = connect(pair.server.netns, ProbeSpec("tcp", pair.server.address(family), 8443))
    assert client.flows[0].src == pair.server.address(family)
    assert result(client) == "ECONNREFUSED"


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_dropped_packet_has_no_result(
    protocol: str,
    pair: Pair,
    family: PacketFamily,
    connect: Connect,
    listen: Listeners,
    iptables: Iptables,
) -> None:
    server, rule = pair.server, f"-A INPUT -p {protocol} -m {protocol} --dport 8443 -j DROP"
    listen(server.netns, server.address(family), 8443, protocol)
    iptables(server.netns, family, *rule.split())
    client = connect(pair.client.netns, ProbeSpec(protocol, server.address(family), 8443))
    client.send()
    saved = iptables.save
    wait_until(lambda: "[1:" in _rule_line(saved(server.netns, family)))
    assert client.poll() is None
    assert client.fileno() is not None


def _rule_line(saved: str) -> str:
    (line,) = [line for line in saved.splitlines() if "-A INPUT" in line]
    return line


REJECTIONS = {
    PacketFamily.IPV4: {
        "icmp-host-unreachable": "EHOSTUNREACH",
        "icmp-net-unreachable": "ENETUNREACH",
        "icmp-admin-prohibited": "EHOSTUNREACH",
        "icmp-port-unreachable": "ECONNREFUSED",
    },
    PacketFamily.IPV6: {
        "icmp6-adm-prohibited": "EACCES",
        "icmp6-no-route": "ENETUNREACH",
        "icmp6-addr-unreachable": "EHOSTUNREACH",
        "icmp6-port-unreachable": "ECONNREFUSED",
    },
}


@pytest.mark.parametrize("protocol", ["tcp", "udp", "echo"])
def test_icmp_error_is_named(
    protocol: str, pair: Pair, family: PacketFamily, connect: Connect, iptables: Iptables
) -> None:
    server, dst = pair.server, pair.server.address(family)
    for kind, word in REJECTIONS[family].items():
        iptables(server.netns, family, "-F", "INPUT")
        name = ECHO[family] if protocol == "echo" else protocol
        match = {"icmp6": ["icmpv6", "--icmpv6-type", "128"]}.get(name, [name])
        iptables(
            server.netns, family, "-A", "INPUT", "-p", *match, "-j", "REJECT", "--reject-with", kind
        )
        port = None if protocol == "echo" else 8443
        assert result(connect(pair.client.netns, ProbeSpec(name, dst, port))) == word, kind


def test_no_route_is_known_at_once(pair: Pair, family: PacketFamily, connect: Connect) -> None:
    for protocol, port in (("tcp", 80), ("udp", 53), (ECHO[family], None)):
        client = connect(pair.client.netns, ProbeSpec(protocol, NOWHERE[family], port))
        client.send()
        assert client.fileno() is None
        assert client.poll() == "ENETUNREACH"
        unspecified = "0.0.0.0" if family is PacketFamily.IPV4 else "::"
        assert client.flows[0].src == unspecified


def test_output_drop_is_eperm(
    pair: Pair, family: PacketFamily, connect: Connect, iptables: Iptables
) -> None:
    netns = pair.client.netns
    iptables(netns, family, "-A", "OUTPUT", "-p", "udp", "-j", "DROP")
    client = connect(netns, ProbeSpec("udp", pair.server.address(family), 53))
    assert result(client) == "EPERM"


def test_udp_answer_and_refusal(
    pair: Pair, family: PacketFamily, connect: Connect, listen: Listeners
) -> None:
    dst = pair.server.address(family)
    service = listen(pair.server.netns, dst, 53, "udp")
    client = connect(pair.client.netns, ProbeSpec("udp", dst, 53, size=100))
    client.send()
    data, peer = service.recvfrom(2048)
    assert data[:16] == client.identities[0].payload[:16]
    assert len(data) == 100 - (28 if family is PacketFamily.IPV4 else 48)
    service.sendto(b"answer", peer)
    wait_until(lambda: client.poll() == "REPLIED")
    assert result(connect(pair.client.netns, ProbeSpec("udp", dst, 54))) == "ECONNREFUSED"


@pytest.mark.parametrize("allowed", [False, True], ids=["raw socket", "ping socket"])
def test_echo(allowed: bool, pair: Pair, family: PacketFamily, connect: Connect) -> None:
    if allowed:
        set_sysctl(pair.client.netns, "net/ipv4/ping_group_range", "0 2147483647")
    client = connect(pair.client.netns, echo_spec(family, pair.server.address(family), size=200))
    assert client._attempts[0].socket.type == (socket.SOCK_DGRAM if allowed else socket.SOCK_RAW)
    (flow,) = client.flows
    assert (flow.sport, flow.dport) == (None, None)
    assert flow.icmp_id == client.identities[0].icmp.id  # type: ignore[union-attr]
    assert result(client) == "REPLIED"


def test_echo_to_this_very_host(pair: Pair, family: PacketFamily, connect: Connect) -> None:
    client = connect(pair.server.netns, echo_spec(family, pair.server.address(family), count=3))
    assert [result(client) for _ in range(3)] == ["REPLIED"] * 3
    assert len({flow.icmp_id for flow in client.flows}) == 3


def test_own_request_is_no_answer(
    pair: Pair, family: PacketFamily, connect: Connect, iptables: Iptables
) -> None:
    """A raw socket on the same host receives the request as well."""
    netns, dst = pair.server.netns, pair.server.address(family)
    reply = ["icmp", "--icmp-type", "0"]
    if family is PacketFamily.IPV6:
        reply = ["icmpv6", "--icmpv6-type", "129"]
    iptables(netns, family, "-A", "OUTPUT", "-p", *reply, "-j", "DROP")
    client = connect(netns, echo_spec(family, dst))
    client.send()
    wait_until(lambda: "[1:" in iptables.save(netns, family).split("-A OUTPUT")[0][-10:])
    assert select.select([client._attempts[0].socket], [], [], 1.0)[0], "no request seen"
    assert client.poll() is None


def test_headers_are_as_announced(
    pair: Pair, family: PacketFamily, connect: Connect, iptables: Iptables, listen: Listeners
) -> None:
    """The chosen sequence number, TTL and payload are what leaves: u32 and string see them."""
    netns, dst = pair.client.netns, pair.server.address(family)
    listen(pair.server.netns, dst, 8443)
    client = connect(netns, ProbeSpec("tcp", dst, 8443, ttl=9))
    (known,) = client.identities
    assert known.tcp_seq is not None
    offset = "0>>22&0x3C@4" if family is PacketFamily.IPV4 else "44"
    ttl = ["ttl", "--ttl-eq", "9"] if family is PacketFamily.IPV4 else ["hl", "--hl-eq", "9"]
    sequence = ["-m", "u32", "--u32", f"{offset}={known.tcp_seq}"]
    iptables(netns, family, "-A", "OUTPUT", "-p", "tcp", "--syn", "-m", *ttl, *sequence)
    assert result(client) == "CONNECTED"
    (line,) = [x for x in iptables.save(netns, family).splitlines() if "-A OUTPUT" in x]
    assert line.startswith("[1:")


def test_every_packet_has_a_port_of_its_own(
    pair: Pair, family: PacketFamily, connect: Connect
) -> None:
    client = connect(pair.client.netns, ProbeSpec("tcp", pair.server.address(family), 80, count=4))
    assert len({flow.sport for flow in client.flows}) == 4
    assert [result(client) for _ in range(4)] == ["ECONNREFUSED"] * 4


def test_expired_ttl_is_unreachable(pair: Pair, router: str, connect: Connect) -> None:
    client = connect(pair.client.netns, ProbeSpec("udp", "203.0.113.9", 53, ttl=1))
    assert result(client) == "EHOSTUNREACH"


@pytest.fixture
def router(pair: Pair) -> str:
    """Makes the server forward; returns its name."""
    for here, there in ((pair.client, pair.server), (pair.server, pair.client)):
        run("ip", "route", "add", "default", "via", there.ipv4, netns=here.netns)
    set_sysctl(pair.server.netns, "net/ipv4/ip_forward", "1")
    return pair.server.netns


def test_foreign_source_is_a_usage_error(pair: Pair) -> None:
    spec = ProbeSpec("tcp", pair.server.ipv4, 80, src="203.0.113.9")
    client = RealClient(spec, in_namespace(pair.client.netns))
    with pytest.raises(UsageError, match=r"Cannot assign requested address\..*--in"):
        client.prepare()
    assert client.finish() == ()


def test_used_source_port_is_a_usage_error(pair: Pair, listen: Listeners) -> None:
    listen(pair.client.netns, pair.client.ipv4, 40000)
    spec = ProbeSpec("tcp", pair.server.ipv4, 80, src=pair.client.ipv4, sport=40000)
    client = RealClient(spec, in_namespace(pair.client.netns))
    with pytest.raises(UsageError, match=f"port 40000: {os.strerror(errno.EADDRINUSE)}"):
        client.prepare()


def test_finish_leaves_no_socket(pair: Pair, connect: Connect) -> None:
    run("ip", "neigh", "add", "198.51.100.9", "lladdr", "02:00:00:00:00:09", "dev", "eth0",
        netns=pair.client.netns)  # fmt: skip
    client = connect(pair.client.netns, ProbeSpec("tcp", "198.51.100.9", 80))
    client.send()
    sockets = ("ss", "-Htan")
    assert "SYN-SENT" in run(*sockets, netns=pair.client.netns)
    client.finish()
    assert run(*sockets, netns=pair.client.netns) == ""
