"""Frames on a bridge: which chains they meet, by which ports, and that none gets out."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count

import pytest

from ipttrace.cli.compose import trace_probe
from ipttrace.cli.watching import Watch, watch
from ipttrace.netfilter import Backend, PacketFamily, TableFamily
from ipttrace.path import ChainHop, Outcome, PacketPath, Role, WireHop
from ipttrace.probe import ProbeSpec, validate
from ipttrace.render.text import path_lines
from ipttrace.request import Trigger
from ipttrace.result import TraceResult
from tests.root.kernel import Iptables, Listeners, Namespaces, in_namespace, run, wait_for_addresses
from tests.root.switched import Switched, build_switched, call_iptables
from tests.waiting import wait_until

OPEN = 8080
V4 = PacketFamily.IPV4
HOST = {V4: "203.0.113.9", PacketFamily.IPV6: "2001:db8:2::9"}
"""What the switch's own bridge is called in tests that need an address there."""

Probe = Callable[..., TraceResult]

CHAINS = """
table bridge watched {
    chain early { type filter hook prerouting priority -250
        tcp dport 8080 counter
    }
    chain late { type filter hook prerouting priority 250
        tcp dport 8080 counter jump inner
    }
    chain inner {
        tcp dport 8080 counter
    }
    chain up { type filter hook input priority 0
        tcp dport 8080 counter
    }
    chain across { type filter hook forward priority -250
        tcp dport 8080 counter
    }
    chain after { type filter hook forward priority 250
        tcp dport 8080 counter
    }
    chain made { type filter hook output priority 0
        tcp dport 8080 counter
    }
    chain gone { type filter hook postrouting priority 250
        tcp dport 8080 counter
    }
}
"""


@pytest.fixture
def row(namespaces: Namespaces) -> Switched:
    """Return client -- router -- switch -- server."""
    return build_switched(namespaces)


@pytest.fixture
def probe(row: Switched, family: PacketFamily) -> Probe:
    """Traces a TCP probe in the switch, from the client's address unless told otherwise."""

    def send(**words: object) -> TraceResult:
        known = {
            "src": row.client.address(family),
            "netns": (row.switch,),
            "in_interface": "p1",
        } | words
        dst = str(known.pop("dst", row.server.address(family)))
        spec = validate(ProbeSpec("tcp", dst, OPEN, **known))  # type: ignore[arg-type]
        notes: list[str] = []
        result = trace_probe(spec, answer=lambda _: None, note=notes.append)
        assert (notes, result.warnings, result.clean) == ([], (), True)
        return result

    return send


def the_probe(result: TraceResult) -> PacketPath:
    (path,) = [path for path in result.paths if path.role is Role.PROBE]
    return path


def the_reply(result: TraceResult) -> PacketPath:
    """Return the answer; a SYN-ACK that is sent again, a second later, has the same way."""
    reply, *again = [path for path in result.paths if path.role is Role.REPLY]
    assert all((met(path), path.outcome) == (met(reply), reply.outcome) for path in again)
    return reply


def met(path: PacketPath) -> list[str]:
    """Return the rules that matched, in order, with the family where it is the bridge's."""
    return [_word(hop) for hop in path.chain_hops if hop.number is not None]


def _word(hop: ChainHop) -> str:
    bridged = hop.chain.table_family is TableFamily.BRIDGE
    return f"{'bridge ' if bridged else ''}{hop.chain.chain} {hop.number}"


def ports(path: PacketPath) -> tuple[str | None, ...]:
    return path.in_interface, path.physical_in, path.out_interface, path.physical_out


def load(row: Switched, iptables: Iptables, family: PacketFamily, *, chains: str = CHAINS) -> None:
    """Load nft's chains of the bridge, and one rule in each chain of the filter table."""
    if chains:
        run("nft", "-f", "-", netns=row.switch, stdin=chains)
    for chain in ("INPUT", "FORWARD", "OUTPUT"):
        iptables(row.switch, family, "-A", chain, "-p", "tcp", "-j", "ACCEPT")


def give_address(row: Switched, family: PacketFamily) -> str:
    """Give the bridge an address in the server's network, and a way back to the client."""
    bits, nodad = ("24", []) if family is V4 else ("64", ["nodad"])
    run("ip", "-n", row.switch, "address", "add", f"{HOST[family]}/{bits}", "dev", "br0", *nodad)
    wait_for_addresses(row.switch)
    gateway = row.outside.address(family)
    version = "-4" if family is V4 else "-6"
    run("ip", "-n", row.switch, version, "route", "add", "default", "via", gateway)
    return HOST[family]


# ------------------------------------------------------------------ which chains, in which order


@pytest.mark.parametrize("trigger", list(Trigger), ids=str)
@pytest.mark.parametrize("called", [True, False], ids=["br_netfilter", "bridge alone"])
def test_a_bridged_frame_meets_the_bridges_chains_and_ips_inside_them(
    row: Switched,
    backend: Backend,
    family: PacketFamily,
    iptables: Iptables,
    probe: Probe,
    called: bool,
    trigger: Trigger,
) -> None:
    load(row, iptables, family)
    call_iptables(row.switch, family, on=called)
    path = the_probe(probe(trigger=trigger))
    inside = ["FORWARD 1"] if called else []
    assert met(path) == [
        "bridge early 1",
        "bridge late 1",
        "bridge inner 1",
        "bridge across 1",
        *inside,
        "bridge after 1",
        "bridge gone 1",
    ]
    assert ports(path) == ("br0", "p1", "br0", "p2")
    assert path.outcome is Outcome.FORWARDED
    assert {hop.chain.backend for hop in path.chain_hops} <= {Backend.NFT, backend}


def test_a_frame_for_this_host_goes_up_to_ip(
    row: Switched,
    backend: Backend,
    family: PacketFamily,
    iptables: Iptables,
    listen: Listeners,
    probe: Probe,
) -> None:
    load(row, iptables, family)
    call_iptables(row.switch, family, on=False)
    host = give_address(row, family)
    listen(row.switch, host, OPEN)
    result = probe(dst=host)
    path = the_probe(result)
    assert met(path) == [
        "bridge early 1",
        "bridge late 1",
        "bridge inner 1",
        "bridge up 1",
        "INPUT 1",
    ]
    assert ports(path) == ("br0", "p1", None, None)
    assert path.outcome is Outcome.DELIVERED
    reply = the_reply(result)
    assert met(reply) == ["OUTPUT 1"]
    assert reply.hops[-1] == WireHop(reply.hops[-1].time, "contained", "br0")


def test_a_packet_made_here_meets_the_bridges_chains_after_ips(
    row: Switched,
    backend: Backend,
    family: PacketFamily,
    iptables: Iptables,
    listen: Listeners,
    probe: Probe,
) -> None:
    load(row, iptables, family)
    call_iptables(row.switch, family, on=True)
    give_address(row, family)
    listen(row.server.netns, row.server.address(family), OPEN)
    result = probe(in_interface=None, src=None)
    assert result.client == ("CONNECTED",)
    path = the_probe(result)
    assert met(path) == ["OUTPUT 1", "bridge made 1", "bridge gone 1"]
    assert ports(path) == (None, None, "br0", "p2")
    assert path.outcome is Outcome.SENT
    reply = the_reply(result)
    assert met(reply) == ["INPUT 1"]
    assert ports(reply) == ("br0", "p2", None, None)


def test_a_packet_injected_on_the_bridge_itself_meets_none_of_its_chains(
    row: Switched, family: PacketFamily, iptables: Iptables, listen: Listeners, probe: Probe
) -> None:
    load(row, iptables, family)
    host = give_address(row, family)
    listen(row.switch, host, OPEN)
    path = the_probe(probe(dst=host, in_interface="br0"))
    assert met(path) == ["INPUT 1"]
    assert ports(path) == ("br0", None, None, None)


@pytest.fixture(params=["early", "across", "after", "gone"])
def hook(request: pytest.FixtureRequest) -> str:
    """A chain of the bridge that drops."""
    return str(request.param)


def test_a_bridges_rule_that_drops_is_the_end(
    row: Switched, family: PacketFamily, iptables: Iptables, probe: Probe, hook: str
) -> None:
    load(row, iptables, family)
    run("nft", "add", "rule", "bridge", "watched", hook, "drop", netns=row.switch)
    path = the_probe(probe())
    assert path.outcome is Outcome.DROPPED
    assert met(path)[-1] == f"bridge {hook} 2"
    assert path.diagnosis is not None
    assert path.diagnosis.cause == "rule-drop"
    assert "nft delete rule bridge watched" in path.diagnosis.remedy[-1]


def test_ips_rule_that_drops_a_bridged_frame_is_the_end(
    row: Switched, backend: Backend, family: PacketFamily, iptables: Iptables, probe: Probe
) -> None:
    call_iptables(row.switch, family, on=True)
    physical = ("-m", "physdev", "--physdev-in", "p1")
    iptables(row.switch, family, "-A", "FORWARD", *physical, "-p", "tcp", "-j", "DROP")
    path = the_probe(probe())
    assert (path.outcome, met(path)) == (Outcome.DROPPED, ["FORWARD 1"])
    assert ports(path) == ("br0", "p1", None, None)
    heading = path_lines(path, width=None, color=False)[0]
    assert "in on br0 (port p1)" in heading


# ------------------------------------------------------------------ containment


@contextmanager
def capture(netns: str, interface: str) -> Iterator[Callable[[], list[bytes]]]:
    """Listen to all frames of an interface; the value returns those so far."""

    def opened() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        made.bind((interface, 3))
        return made

    with in_namespace(netns).run(opened) as sniffer:

        def seen() -> list[bytes]:
            frames = []
            while select.select([sniffer], [], [], 0)[0]:
                frames.append(sniffer.recv(2048))
            return frames

        yield seen


@pytest.mark.parametrize("called", [True, False], ids=["br_netfilter", "bridge alone"])
def test_a_bridged_probe_does_not_get_out(
    row: Switched,
    backend: Backend,
    family: PacketFamily,
    iptables: Iptables,
    listen: Listeners,
    probe: Probe,
    called: bool,
) -> None:
    load(row, iptables, family, chains="")
    call_iptables(row.switch, family, on=called)
    listen(row.server.netns, row.server.address(family), OPEN)
    with ExitStack() as stack:
        ends = (row.server, row.outside)
        heard = [stack.enter_context(capture(end.netns, end.interface)) for end in ends]
        path = the_probe(probe())
        assert [frame for seen in heard for frame in seen() if _is_ip(frame)] == []
    assert path.outcome is Outcome.FORWARDED
    wire = path.hops[-1]
    assert isinstance(wire, WireHop)
    assert (wire.event, wire.interface) == ("contained", "br0" if called else "p2")


def test_a_probe_that_is_let_out_gets_to_the_server(
    row: Switched, family: PacketFamily, listen: Listeners, probe: Probe
) -> None:
    listen(row.server.netns, row.server.address(family), OPEN)
    with capture(row.server.netns, row.server.interface) as seen:
        path = the_probe(probe(let_out=True))
        assert [frame for frame in seen() if _is_ip(frame)]
    assert path.outcome is Outcome.FORWARDED
    wires = [hop.event for hop in path.hops if isinstance(hop, WireHop)]
    assert wires == ["received", "sent"]


def _is_ip(frame: bytes) -> bool:
    """Tell whether it is TCP over IPv4 or IPv6: other frames come of their own accord."""
    version = {b"\x08\x00": 23, b"\x86\xdd": 20}.get(frame[12:14])
    return version is not None and frame[version] == 6


def test_one_bridge_that_calls_ip_by_itself(
    row: Switched, backend: Backend, family: PacketFamily, iptables: Iptables, probe: Probe
) -> None:
    load(row, iptables, family, chains="")
    option = "nf_call_iptables" if family is V4 else "nf_call_ip6tables"
    bridge = ("link", "set", "br0", "type", "bridge", option, "1")
    run("ip", "-n", row.switch, *bridge)
    path = the_probe(probe())
    assert met(path) == ["FORWARD 1"]
    wire = path.hops[-1]
    assert isinstance(wire, WireHop)
    assert (wire.event, wire.interface) == ("contained", "br0")


def test_each_bridge_is_contained_where_its_frames_are_seen(
    row: Switched, namespaces: Namespaces, family: PacketFamily, iptables: Iptables, probe: Probe
) -> None:
    """Frames of br0 meet IP's chains, those of br1 do not."""
    load(row, iptables, family, chains="")
    option = "nf_call_iptables" if family is V4 else "nf_call_ip6tables"
    lines = [f"link set br0 type bridge {option} 1", "link add br1 type bridge"]
    lines += ["link set br1 up"]
    far = namespaces.add("far")
    for port in ("p3", "p4"):
        lines += [f"link add {port} type veth peer name {port} netns {far}"]
        lines += [f"link set {port} master br1", f"link set {port} up"]
    run("ip", "-n", row.switch, "-batch", "-", stdin="\n".join(lines))
    for port in ("p3", "p4"):
        run("ip", "-n", far, "link", "set", port, "up")
    seen = {way_in: the_probe(probe(in_interface=way_in)) for way_in in ("p1", "p3")}
    assert {way_in: met(path) for way_in, path in seen.items()} == {"p1": ["FORWARD 1"], "p3": []}
    ends = {way_in: path.hops[-1] for way_in, path in seen.items()}
    assert [hop.interface for hop in ends.values() if isinstance(hop, WireHop)] == ["br0", "p4"]


# ------------------------------------------------------------------ the host stays as it was


def test_nothing_of_ours_stays(row: Switched, family: PacketFamily, probe: Probe) -> None:
    before = run("nft", "-a", "list", "ruleset", netns=row.switch)
    probe()
    assert run("nft", "-a", "list", "ruleset", netns=row.switch) == before


@pytest.mark.parametrize("called", [True, False], ids=["br_netfilter", "bridge alone"])
@pytest.mark.parametrize("devices", ["p1, p2", "p1"], ids=["all ports", "one port"])
def test_what_an_ingress_chain_of_a_port_has_seen_counts_once(
    row: Switched, family: PacketFamily, probe: Probe, called: bool, devices: str
) -> None:
    call_iptables(row.switch, family, on=called)
    hook = f"type filter hook ingress devices = {{ {devices} }} priority 0"
    rules = f"table netdev guard {{\nchain in {{\n{hook}\ntcp dport {OPEN} counter\n}}\n}}\n"
    run("nft", "-f", "-", netns=row.switch, stdin=rules)
    result = probe()
    assert met(the_probe(result))[0] == "in 1"
    assert result.totals.hits == result.totals.packets


def test_frames_that_are_only_bridged_are_counted(
    row: Switched, family: PacketFamily, listen: Listeners, probe: Probe
) -> None:
    listen(row.server.netns, row.server.address(family), OPEN)
    result = probe(from_netns=row.client.netns, in_interface=None, src=None)
    assert result.client == ("CONNECTED",)
    assert result.totals.hits == result.totals.packets == result.totals.complete == 3


@pytest.mark.parametrize("called", [True, False], ids=["br_netfilter", "bridge alone"])
def test_a_watch_sees_bridged_frames_once(
    row: Switched, family: PacketFamily, listen: Listeners, called: bool
) -> None:
    call_iptables(row.switch, family, on=called)
    server = row.server.address(family)
    listen(row.server.netns, server, OPEN, "udp")
    wanted = Watch(f"udp dst port {OPEN}", (row.switch,), Trigger.RAW, None, 3, 20.0)
    version = socket.AF_INET if family is V4 else socket.AF_INET6
    numbers = count()
    given: list[PacketPath] = []
    notes: list[str] = []
    with ThreadPoolExecutor(1) as pool, row.client.socket(version, socket.SOCK_DGRAM) as client:
        watching = pool.submit(watch, wanted, give=given.append, note=notes.append)

        def sends() -> bool:
            client.sendto(f"{next(numbers):08}".encode(), (server, OPEN))
            return watching.done()

        wait_until(sends, what="three datagrams", seconds=20)
        result, _ = watching.result()
    assert notes == ["watching without a limit for 20 s; Ctrl-C ends it"]
    assert result.warnings == ()
    assert {(*ports(path), path.outcome) for path in given} == {
        ("br0", "p1", "br0", "p2", Outcome.FORWARDED)
    }
    assert len({path.packet.payload for path in given}) == len(given) == 3


def test_the_json_names_the_ports(row: Switched, family: PacketFamily) -> None:
    program = [sys.executable, "-m", "ipttrace.cli.main", "probe", "--json", "--netns", row.switch]
    server = row.server.address(family)
    to = f"{server}:{OPEN}" if family is V4 else f"[{server}]:{OPEN}"
    words = ["--in", "p1", "--src", row.client.address(family), "tcp", to]
    done = subprocess.run([*program, *words], capture_output=True, text=True, check=True)
    record = json.loads(done.stdout.splitlines()[0])
    fields = ("in", "physical_in", "out", "physical_out")
    assert [record["packet"][field] for field in fields] == ["br0", "p1", "br0", "p2"]
