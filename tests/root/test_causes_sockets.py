"""Who takes a packet that every chain lets in, and why nobody does.

Ports are the test's own: whoever listens on the same one in another namespace would be found.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ipttrace.cli.compose import trace_probe
from ipttrace.errors import NotSupportedError
from ipttrace.netfilter import PacketFamily
from ipttrace.path import DropHop, Outcome, ResetHop, Role, SocketHop
from ipttrace.probe import ProbeSpec, validate
from ipttrace.system import attempts
from ipttrace.system.packets import Identity
from ipttrace.system.sockets_elsewhere import listeners_elsewhere
from tests.root.causes import TELLS_RESETS, Probed, probe
from tests.root.kernel import (
    Endpoint,
    Iptables,
    Listeners,
    Namespaces,
    Pair,
    in_namespace,
    set_sysctl,
)
from tests.waiting import wait_until

V4, V6 = PacketFamily.IPV4, PacketFamily.IPV6
ECHO = {V4: "icmp", V6: "icmp6"}
LOOPBACK = {V4: "127.0.0.1", V6: "::1"}
EVERY = {V4: "0.0.0.0", V6: "::"}
WAIT, QUICK = 12.0, 8.0
"""Seconds: what a probe may wait, and much less: enough where the cause is proved early."""
WHO = f"(pid {os.getpid()})"

WAYS = ["injected", "client"]
full = pytest.mark.full

MATRIX = [
    pytest.param(family, way, marks=() if (family, way) == (V4, "injected") else full)
    for family in PacketFamily
    for way in WAYS
]
"""One of them in the default run."""
every_way = pytest.mark.parametrize(("family", "way"), MATRIX)
every_family = pytest.mark.parametrize("family", [V4, pytest.param(V6, marks=full)])
both_protocols = pytest.mark.parametrize("protocol", ["tcp", pytest.param("udp", marks=full)])


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks into other namespaces as long as a busy machine needs."""
    monkeypatch.setattr("ipttrace.system.sockets_elsewhere.PATIENCE", 5.0)
    monkeypatch.setattr("ipttrace.system.socket_table.PATIENCE", 5.0)


@pytest.fixture
def port() -> int:
    """A port that no other test run listens on, most likely: from the process id."""
    return 20_000 + os.getpid() % 10_000


@pytest.fixture
def server(pair: Pair, iptables: Iptables) -> Endpoint:
    """Where packets come in, with a rule of the backend under test that each of them meets."""
    for family in PacketFamily:
        iptables(pair.server.netns, family, "-A", "INPUT", "-j", "ACCEPT")
    return pair.server


Send = Callable[..., Probed]


@pytest.fixture
def send(pair: Pair, server: Endpoint) -> Send:
    """Probes the server: `send(family, way, protocol, port)`; `way` is one of WAYS, or `local`."""

    def probed(
        family: PacketFamily, way: str, protocol: str, port: int | None, **words: object
    ) -> Probed:
        known: dict[str, object] = {}
        if way == "injected":
            known = {"in_interface": server.interface, "src": pair.client.address(family)}
        elif way == "client":
            known = {"from_netns": pair.client.netns}
        spec = ProbeSpec(protocol, server.address(family), port)
        return probe(spec, server.netns, **{"wait": WAIT, **known, **words})

    return probed


def reason(probed: Probed) -> list[tuple[str, str | None]]:
    """Return what the kernel said of the packet's death."""
    return [(hop.reason, hop.location) for hop in probed.path.hops if isinstance(hop, DropHop)]


# ---------------------------------------------------------------- delivered


@every_way
@both_protocols
def test_the_socket_that_took_it_is_named(
    family: PacketFamily,
    way: str,
    protocol: str,
    port: int,
    server: Endpoint,
    send: Send,
    listen: Listeners,
) -> None:
    listen(server.netns, EVERY[family], port, protocol)
    probed = send(family, way, protocol, port, wait=0.5)
    probed.check("delivered", Outcome.DELIVERED)
    (hop,) = probed.hops(SocketHop)
    assert (hop.address, hop.port, hop.pid) == (EVERY[family], port, os.getpid())  # type: ignore[union-attr]
    assert WHO in probed.diagnosis.summary


@full
def test_a_dual_stack_listener_takes_ipv4(
    port: int, server: Endpoint, send: Send, listen: Listeners
) -> None:
    listen(server.netns, "::", port)
    probed = send(V4, "client", "tcp", port)
    probed.check("delivered", Outcome.DELIVERED, within=QUICK)
    assert f"listening on [::]:{port}" in probed.diagnosis.summary


@every_way
def test_the_kernel_answers_an_echo(family: PacketFamily, way: str, send: Send) -> None:
    probed = send(family, way, ECHO[family], None)
    probed.check("delivered", Outcome.DELIVERED, within=QUICK)
    assert "the kernel answered the echo" in probed.diagnosis.summary


@pytest.mark.parametrize("family", PacketFamily)
def test_the_answer_to_an_echo_of_this_host_is_not_refused(
    family: PacketFamily, server: Endpoint
) -> None:
    """After ping's raw socket had it, ping_rcv frees it for NO_SOCKET."""
    spec = ProbeSpec(ECHO[family], server.address(family), netns=(server.netns,))
    result = trace_probe(validate(spec), answer=lambda _: None, note=print)
    assert {path.role: path.outcome for path in result.paths} == {
        Role.PROBE: Outcome.DELIVERED,
        Role.REPLY: Outcome.DELIVERED,
    }


# ---------------------------------------------------------------- nobody there


@every_way
@both_protocols
def test_nobody_listens(
    family: PacketFamily, way: str, protocol: str, port: int, server: Endpoint, send: Send
) -> None:
    probed = send(family, way, protocol, port)
    probed.check("no-listener", Outcome.REFUSED, within=QUICK)
    number = "4" if family is V4 else "6"
    where = f"tcp_v{number}_rcv" if protocol == "tcp" else f"__udp{number}_lib_rcv"
    assert reason(probed) == [("NO_SOCKET", where)]
    assert [hop.state for hop in probed.hops(SocketHop)] == ["none"]  # type: ignore[union-attr]
    resets = [(hop.by, hop.reason) for hop in probed.hops(ResetHop)]  # type: ignore[union-attr]
    told = "NO_SOCKET" if TELLS_RESETS else None
    assert resets == ([("kernel", told)] if protocol == "tcp" else [])
    if way == "client":
        assert probed.result.client == ("ECONNREFUSED",)
    assert "ECONNREFUSED" in probed.text
    assert "NO_SOCKET" in probed.evidence()


def test_nobody_listens_for_a_local_client(port: int, send: Send) -> None:
    probed = send(V4, "local", "tcp", port)
    probed.check("no-listener", Outcome.REFUSED, within=QUICK)
    assert probed.result.client == ("ECONNREFUSED",)


@full
@every_family
def test_a_reset_to_nobody_is_not_answered(family: PacketFamily, port: int, send: Send) -> None:
    probed = send(family, "injected", "tcp", port, tcp_flags=("RST",))
    probed.check("no-listener", Outcome.REFUSED, within=QUICK)
    assert not probed.replies
    assert "a client sees" not in probed.text


@every_way
@both_protocols
def test_the_port_is_open_on_another_address(
    family: PacketFamily,
    way: str,
    protocol: str,
    port: int,
    server: Endpoint,
    send: Send,
    listen: Listeners,
) -> None:
    listen(server.netns, LOOPBACK[family], port, protocol)
    probed = send(family, way, protocol, port)
    probed.check("listener-other-address", Outcome.REFUSED, within=QUICK)
    assert LOOPBACK[family] in probed.diagnosis.summary
    assert WHO in probed.evidence()


def test_the_port_is_open_for_ipv4_only(
    port: int, server: Endpoint, send: Send, listen: Listeners
) -> None:
    listen(server.netns, "0.0.0.0", port)
    probed = send(V6, "injected", "tcp", port)
    probed.check("listener-other-address", Outcome.REFUSED, within=QUICK)
    assert f"only on 0.0.0.0:{port}" in probed.diagnosis.summary


@pytest.fixture
def listener_of_its_own(server: Endpoint) -> Iterator[Callable[..., socket.socket]]:
    """Opens TCP listeners with options: `(family, address, port, (level, name, value))`."""
    with ExitStack() as stack:

        def opened(
            family: int,
            address: str,
            port: int,
            option: tuple[int, int, int | bytes] | None,
            backlog: int = 8,
        ) -> socket.socket:
            made = stack.enter_context(server.socket(family, socket.SOCK_STREAM))
            if option is not None:
                made.setsockopt(*option)
            made.bind((address, port))
            made.listen(backlog)
            return made

        yield opened


def test_the_port_is_open_for_ipv6_only(
    port: int, send: Send, listener_of_its_own: Callable[..., socket.socket]
) -> None:
    only = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener_of_its_own(socket.AF_INET6, "::", port, only)
    probed = send(V4, "injected", "tcp", port)
    probed.check("listener-other-address", Outcome.REFUSED, within=QUICK)
    assert f"[::]:{port} (IPv6 only)" in probed.diagnosis.summary


def test_the_port_is_open_on_another_interface(
    port: int, server: Endpoint, send: Send, listener_of_its_own: Callable[..., socket.socket]
) -> None:
    bound = (socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
    listener_of_its_own(socket.AF_INET, "0.0.0.0", port, bound)
    probed = send(V4, "injected", "tcp", port)
    probed.check("listener-other-address", Outcome.REFUSED, within=QUICK)
    assert f"0.0.0.0:{port} (bound to lo)" in probed.diagnosis.summary


@every_way
@both_protocols
def test_the_port_is_open_in_another_namespace(
    family: PacketFamily,
    way: str,
    protocol: str,
    port: int,
    pair: Pair,
    send: Send,
    listen: Listeners,
) -> None:
    listen(pair.client.netns, EVERY[family], port, protocol)
    probed = send(family, way, protocol, port)
    probed.check("listener-other-netns", Outcome.REFUSED, within=QUICK)
    assert f"namespace {pair.client.netns}" in probed.diagnosis.summary
    assert "(inferred)" in probed.evidence().splitlines()[-1]


def test_of_several_namespaces_the_linked_one_is_likely_meant(
    port: int, pair: Pair, namespaces: Namespaces, send: Send, listen: Listeners
) -> None:
    for netns in (namespaces.add("a-far"), pair.client.netns):
        listen(netns, "0.0.0.0", port)
    probed = send(V4, "injected", "tcp", port)
    probed.check("listener-other-netns", Outcome.REFUSED, within=QUICK)
    assert "2 other namespaces" in probed.diagnosis.summary
    assert f"likely meant is namespace {pair.client.netns}" in probed.diagnosis.summary


def test_this_namespace_comes_before_others(
    port: int, pair: Pair, server: Endpoint, send: Send, listen: Listeners
) -> None:
    listen(pair.client.netns, "0.0.0.0", port)
    listen(server.netns, "127.0.0.1", port)
    probed = send(V4, "injected", "tcp", port)
    probed.check("listener-other-address", Outcome.REFUSED, within=QUICK)
    assert f"in namespace {pair.client.netns}" in probed.evidence()


@full
def test_an_icmp_error_that_the_rate_limit_held_back(
    port: int, pair: Pair, server: Endpoint, send: Send
) -> None:
    set_sysctl(server.netns, "net/ipv4/icmp_ratelimit", "60000")
    with pair.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        counted = Path("/proc/thread-self/net/snmp")
        for number in range(1, 8):  # XRLIM_BURST_FACTOR in net/ipv4/icmp.c is 6
            other.sendto(b"x", (server.ipv4, port))
            wait_until(
                lambda wanted=number: _no_ports(server, counted) >= wanted,  # type: ignore[misc]
                what="the datagram to be counted",
            )
    probed = send(V4, "client", "udp", port)
    probed.check("no-listener", Outcome.REFUSED, within=QUICK)
    assert probed.result.client == ("TIMEOUT",)
    assert "rate limit held its ICMP error back" in probed.evidence()


def _no_ports(server: Endpoint, counted: Path) -> int:
    text = in_namespace(server.netns).run(counted.read_text)
    names, numbers = [line.split() for line in text.splitlines() if line.startswith("Udp:")]
    return int(numbers[names.index("NoPorts")])


# ---------------------------------------------------------------- listeners that say no


@pytest.fixture
def fill(pair: Pair, server: Endpoint) -> Iterator[Callable[..., None]]:
    """Lets connections to a listener wait until its queue is too long."""
    with ExitStack() as stack:

        def filled(listener: socket.socket, address: str, port: int, backlog: int) -> None:
            listener.listen(backlog)
            for _ in range(backlog + 1):
                one = stack.enter_context(pair.client.socket(listener.family, socket.SOCK_STREAM))
                one.connect((address, port))
            wait_until(
                lambda: f" {backlog + 1} " in server.run("ss", "-tlnH", f"sport = :{port}"),
                what="the queue to be full",
            )

        yield filled


@every_way
def test_an_accept_queue_that_is_full(
    family: PacketFamily,
    way: str,
    port: int,
    server: Endpoint,
    send: Send,
    listen: Listeners,
    fill: Callable[..., None],
) -> None:
    address = server.address(family)
    fill(listen(server.netns, address, port), address, port, 1)
    probed = send(family, way, "tcp", port)
    probed.check("accept-queue-full", Outcome.DROPPED, within=QUICK)
    assert "2 connections wait" in probed.diagnosis.summary
    assert WHO in probed.diagnosis.summary
    assert "TcpExt.ListenOverflows rose by" in probed.evidence()
    if way == "client":
        assert probed.result.client == ("TIMEOUT",)


@full
def test_a_queue_that_is_only_just_full_takes_one_more(
    port: int, server: Endpoint, send: Send, listen: Listeners, fill: Callable[..., None]
) -> None:
    listener = listen(server.netns, server.ipv4, port)
    fill(listener, server.ipv4, port, 1)
    listener.listen(2)
    send(V4, "client", "tcp", port).check("delivered", Outcome.DELIVERED, within=QUICK)


@every_family
def test_the_kernels_own_reset_is_quoted(
    family: PacketFamily, port: int, server: Endpoint, send: Send, listen: Listeners
) -> None:
    listen(server.netns, server.address(family), port)
    probed = send(family, "injected", "tcp", port, tcp_flags=("ACK",))
    probed.check("protocol-reset", Outcome.REFUSED, within=QUICK)
    assert ("TCP_FLAGS" if TELLS_RESETS else "gives no reason") in probed.diagnosis.summary
    assert [hop.by for hop in probed.hops(ResetHop)] == ["kernel"]  # type: ignore[union-attr]


@every_way
def test_a_rules_reset_is_not_the_kernels(
    family: PacketFamily, way: str, port: int, server: Endpoint, send: Send, iptables: Iptables
) -> None:
    words = ["-I", "INPUT", "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"]
    iptables(server.netns, family, *words)
    probed = send(family, way, "tcp", port)
    probed.check("rule-reject", Outcome.REJECTED, within=QUICK)
    assert [hop.by for hop in probed.hops(ResetHop)] == ["rule"]  # type: ignore[union-attr]


# ---------------------------------------------------------------- with less evidence


@full
@both_protocols
def test_what_the_socket_table_alone_proves(
    protocol: str,
    port: int,
    server: Endpoint,
    send: Send,
    listen: Listeners,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: str) -> None:
        raise NotSupportedError("no tracefs here")

    monkeypatch.setattr("ipttrace.cli.compose.TraceInstance", refuse)
    probed = send(V4, "injected", protocol, port)
    probed.check("no-listener", Outcome.REFUSED, within=QUICK)
    assert [hop.state for hop in probed.path.hops if isinstance(hop, SocketHop)] == ["none"]
    resets = [hop.by for hop in probed.path.hops if isinstance(hop, ResetHop)]
    assert resets == (["kernel"] if protocol == "tcp" else [])
    listen(server.netns, "127.0.0.1", port, protocol)
    probed = send(V4, "client", protocol, port)
    probed.check("listener-other-address", Outcome.REFUSED, within=QUICK)


@full
def test_without_evidence_nothing_is_claimed(port: int, send: Send) -> None:
    probed = send(V4, "injected", "tcp", port, evidence="none")
    probed.check("unknown", Outcome.REFUSED, within=QUICK)


def test_many_namespaces_take_no_longer(
    namespaces: Namespaces, port: int, listen: Listeners
) -> None:
    here = in_namespace(namespaces.add("here"))
    names = [namespaces.add(f"n{number}") for number in range(20)]
    for name in names:
        listen(name, "127.0.0.1", port)
    found, complete = listeners_elsewhere(here, "tcp", port)
    assert complete
    assert {f"namespace {name}" for name in names} <= {entry.netns for entry in found}
    assert all(entry.pid == os.getpid() for entry in found)


@pytest.mark.parametrize("family", [V4, pytest.param(V6, marks=full)])
def test_a_clients_port_whose_last_connection_is_not_over(
    family: PacketFamily,
    port: int,
    pair: Pair,
    server: Endpoint,
    send: Send,
    listen: Listeners,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client that died without a word comes back from its old port.

    The server has closed, and still waits for the client's FIN (FIN_WAIT2): a SYN beyond the
    sequence numbers of that connection is reset (tcp_timewait_state_process).
    """
    address = server.address(family)
    listener = listen(server.netns, address, port)
    with pair.client.socket(listener.family, socket.SOCK_STREAM) as dying:
        dying.connect((address, port))
        listener.accept()[0].close()
        assert dying.recv(1) == b""
        states = ("ss", "-tanH", f"sport = :{port}")
        wait_until(lambda: "FIN-WAIT-2" in server.run(*states), what="the server's half to end")
        old = dying.getsockname()[1]
        for name, value in ((attempts.TCP_REPAIR, 1), (attempts.TCP_REPAIR_QUEUE, 2)):
            dying.setsockopt(socket.IPPROTO_TCP, name, value)
        last = dying.getsockopt(socket.IPPROTO_TCP, attempts.TCP_QUEUE_SEQ)
    beyond = (last + 1000) & 0xFFFFFFFF
    monkeypatch.setattr("ipttrace.system.attempts.Identity", lambda: Identity(tcp_seq=beyond))
    probed = send(family, "client", "tcp", port, sport=old)
    probed.check("protocol-reset", Outcome.REFUSED, within=QUICK)
    why = "TCP_TIMEWAIT_SOCKET" if TELLS_RESETS else "gives no reason"
    assert why in probed.diagnosis.summary
    assert probed.result.client == ("ECONNREFUSED",)
