"""What is known of a packet that left the traced namespace, and of the one where it came to.

Client -- router -- backend: the router is traced; ports are the test's own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from ipttrace.netfilter import PacketFamily
from ipttrace.path import Outcome, ResetHop
from ipttrace.probe import ProbeSpec
from tests.root.causes import Probed, probe
from tests.root.kernel import (
    Endpoint,
    Iptables,
    Listeners,
    Namespaces,
    run,
    set_sysctl,
    wait_for_addresses,
)
from tests.root.routed import Routed, build_routed

V4, V6 = PacketFamily.IPV4, PacketFamily.IPV6
ECHO = {V4: "icmp", V6: "icmp6"}
LOOPBACK = {V4: "127.0.0.1", V6: "::1"}
WAIT, QUICK = 12.0, 8.0
"""Seconds: what a probe may wait, and much less: enough where the cause is proved early."""
SILENCE = 0.7
SHUT = """table inet t {
    chain i {
        type filter hook input priority 0; policy drop;
    }
}
"""

full = pytest.mark.full
WAYS = ["injected", "client"]
MATRIX = [
    pytest.param(family, way, marks=() if (family, way) == (V4, "injected") else full)
    for family in PacketFamily
    for way in WAYS
]
every_way = pytest.mark.parametrize(("family", "way"), MATRIX)
both_protocols = pytest.mark.parametrize("protocol", ["tcp", pytest.param("udp", marks=full)])

Send = Callable[..., Probed]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks into other namespaces as long as a busy machine needs."""
    for module in ("neighbour_namespaces", "socket_table"):
        monkeypatch.setattr(f"ipttrace.system.{module}.PATIENCE", 5.0)


@pytest.fixture
def routed(namespaces: Namespaces, iptables: Iptables) -> Routed:
    """The three namespaces; the router's FORWARD has a rule of the backend under test."""
    made = build_routed(namespaces)
    for family in PacketFamily:
        iptables(made.netns, family, "-A", "FORWARD", "-j", "ACCEPT")
    return made


@pytest.fixture
def port() -> int:
    """A port that no other test run listens on, most likely: from the process id."""
    return 30_000 + os.getpid() % 2_000


@pytest.fixture
def send(routed: Routed) -> Send:
    """Probes the backend through the router: `send(family, way, protocol, port)`."""

    def probed(
        family: PacketFamily, way: str, protocol: str, port: int | None, **words: object
    ) -> Probed:
        known: dict[str, object] = {"from_netns": routed.client.netns}
        if way == "injected":
            source = routed.client.address(family)
            known = {"in_interface": "eth0", "src": source, "let_out": True}
        elif way == "here":
            known = {}
        spec = ProbeSpec(protocol, routed.backend.address(family), port)
        return probe(spec, routed.netns, **{"wait": WAIT, **known, **words})

    return probed


def left(way: str) -> Outcome:
    """Return the fate of a packet that left the router."""
    return Outcome.SENT if way == "here" else Outcome.FORWARDED


@every_way
@both_protocols
def test_another_host_refuses(
    family: PacketFamily, way: str, protocol: str, port: int, routed: Routed, send: Send
) -> None:
    probed = send(family, way, protocol, port)
    probed.check("remote-refused", left(way), within=QUICK)
    assert f"{routed.backend.address(family)} refused it" in probed.diagnosis.summary
    where = f"in namespace {routed.backend.netns}: no socket is on {protocol} port {port}"
    assert where in probed.diagnosis.summary
    resets = [hop.by for hop in probed.path.hops if isinstance(hop, ResetHop)]
    assert resets == (["remote"] if protocol == "tcp" else [])
    if way == "client":
        assert probed.result.client == ("ECONNREFUSED",)


def rename_far_end(routed: Routed) -> None:
    """Give the backend's interface a name that the router has none of: its events are not seen."""
    end, gateway = routed.backend, routed.outside
    lines = (
        f"link set {end.interface} down",
        f"link set {end.interface} name far0",
        "link set far0 up",
        f"address replace {end.ipv6}/64 dev far0 nodad",
        f"neighbour replace {gateway.ipv4} lladdr {mac(gateway)} dev far0",
        f"neighbour replace {gateway.ipv6} lladdr {mac(gateway)} dev far0",
        f"route replace default via {gateway.ipv4}",
        f"route replace ::/0 via {gateway.ipv6}",
    )
    run("ip", "-n", end.netns, "-batch", "-", stdin="\n".join(lines))
    wait_for_addresses(end.netns)


def mac(end: Endpoint) -> str:
    (link,) = json.loads(run("ip", "-n", end.netns, "-json", "link", "show", end.interface))
    return str(link["address"])


@pytest.mark.parametrize(
    ("family", "there"),
    [(V4, "nobody"), (V4, "dropped"), (V4, "filtered")]
    + [pytest.param(V6, there, marks=full) for there in ("nobody", "dropped")],
)
def test_what_befalls_it_in_the_next_namespace_is_not_told_of_this_one(
    family: PacketFamily, there: str, port: int, routed: Routed, send: Send, listen: Listeners
) -> None:
    """The kernel's events name its buffer there, too: who received it is not looked at."""
    rename_far_end(routed)
    if there != "nobody":
        listen(routed.backend.netns, routed.backend.address(family), port)
    if there == "dropped":
        table = (
            "table inet t {\n chain i {\n type filter hook input priority 0; policy drop;\n }\n}\n"
        )
        run("nft", "-f", "-", netns=routed.backend.netns, stdin=table)
    if there == "filtered":
        set_sysctl(routed.backend.netns, "net/ipv4/conf/far0/rp_filter", "1")
        run("ip", "-n", routed.backend.netns, "route", "del", "default")
    probed = send(family, "client", "tcp", port)
    cause = "remote-refused" if there == "nobody" else "remote-silent"
    probed.check(cause, Outcome.FORWARDED)
    kinds = [type(hop).__name__ for hop in probed.path.hops]
    assert "DropHop" not in kinds
    assert "SocketHop" not in kinds


@every_way
def test_what_is_wrong_there_is_said(
    family: PacketFamily, way: str, port: int, routed: Routed, send: Send, listen: Listeners
) -> None:
    listen(routed.backend.netns, LOOPBACK[family], port)
    probed = send(family, way, "tcp", port)
    probed.check("remote-refused", left(way), within=QUICK)
    shown = f"{LOOPBACK[family]}:{port}" if family is V4 else f"[::1]:{port}"
    assert f"open only on {shown} (" in probed.diagnosis.summary
    assert f"(pid {os.getpid()})" in probed.diagnosis.summary
    assert f"namespace {routed.backend.netns}" in probed.diagnosis.summary


@pytest.mark.parametrize("way", ["client", pytest.param("here", marks=full)])
@pytest.mark.parametrize("family", [V4, pytest.param(V6, marks=full)])
def test_an_answer_that_came_back(
    family: PacketFamily, way: str, port: int, routed: Routed, send: Send, listen: Listeners
) -> None:
    listen(routed.backend.netns, routed.backend.address(family), port)
    probed = send(family, way, "tcp", port)
    probed.check("answered", left(way), within=QUICK)
    assert probed.result.client == ("CONNECTED",)


@full
@every_way
def test_an_echo_that_came_back(family: PacketFamily, way: str, send: Send) -> None:
    send(family, way, ECHO[family], None).check("answered", left(way), within=QUICK)


@every_way
@both_protocols
def test_another_host_is_silent(
    family: PacketFamily,
    way: str,
    protocol: str,
    port: int,
    routed: Routed,
    send: Send,
    listen: Listeners,
    iptables: Iptables,
) -> None:
    listen(routed.backend.netns, routed.backend.address(family), port, protocol)
    iptables(routed.backend.netns, family, "-A", "INPUT", "-p", protocol, "-j", "DROP")
    probed = send(family, way, protocol, port, wait=SILENCE)
    probed.check("remote-silent", left(way))
    assert "given to eth1 to be sent (reported)" in probed.evidence()
    assert f"in namespace {routed.backend.netns}: " in probed.evidence()
    if way == "client":
        assert probed.result.client == ("TIMEOUT",)


@full
def test_a_queue_that_is_full_there_is_said(
    port: int, routed: Routed, send: Send, listen: Listeners
) -> None:
    listener = listen(routed.backend.netns, routed.backend.ipv4, port)
    listener.listen(0)
    with routed.client.socket(listener.family, listener.type) as first:
        first.connect((routed.backend.ipv4, port))
        probed = send(V4, "client", "tcp", port, wait=SILENCE)
    probed.check("remote-silent", Outcome.FORWARDED)
    assert "does not accept fast enough" in probed.diagnosis.summary


@pytest.mark.parametrize("family", [V4, pytest.param(V6, marks=full)])
def test_a_contained_probe_knows_nothing_of_what_lies_beyond(
    family: PacketFamily, port: int, send: Send
) -> None:
    probed = send(family, "injected", "tcp", port, let_out=False)
    probed.check("unknown", Outcome.FORWARDED, within=QUICK)
    assert probed.diagnosis.summary == "left by eth1 (contained); use --let-out to go further"


@full
def test_a_router_that_rejects_is_not_remote(
    port: int, routed: Routed, send: Send, iptables: Iptables
) -> None:
    iptables(routed.netns, V4, "-I", "FORWARD", "-j", "REJECT")
    send(V4, "client", "tcp", port).check("rule-reject", Outcome.REJECTED, within=QUICK)


@full
def test_both_namespaces_traced_tell_the_whole_way(
    port: int, routed: Routed, send: Send, iptables: Iptables
) -> None:
    iptables(routed.backend.netns, V4, "-A", "INPUT", "-j", "ACCEPT")
    spec = ProbeSpec("tcp", routed.backend.ipv4, port, from_netns=routed.client.netns, wait=WAIT)
    probed = probe(spec, routed.netns, routed.backend.netns)
    probed.check("no-listener", Outcome.REFUSED, within=QUICK)
    first = next(path for path in probed.result.paths if path.netns == routed.netns)
    assert first.diagnosis is not None
    assert first.diagnosis.cause == "remote-refused"
