"""One packet through several namespaces is one journey, its legs in the order of its way."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from ipttrace.cli.compose import trace_probe
from ipttrace.netfilter import Backend, PacketFamily, TableFamily
from ipttrace.path import NatHop, Outcome, PacketPath, Role
from ipttrace.probe import ProbeSpec, validate
from ipttrace.result import TraceResult
from ipttrace.system.namespaces import find_namespace
from ipttrace.system.neighbour_namespaces import PATIENCE as REAL_PATIENCE
from ipttrace.system.neighbour_namespaces import find_onward
from tests.root.kernel import (
    Iptables,
    Listeners,
    Namespaces,
    in_namespace,
    run,
    set_sysctl,
    wait_for_addresses,
)
from tests.root.switched import Switched, build_switched, call_iptables

OPEN, PUBLISHED = 8080, 80
V4 = PacketFamily.IPV4

Trace = Callable[..., TraceResult]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks for the way on as long as a busy machine needs."""
    monkeypatch.setattr("ipttrace.system.neighbour_namespaces.PATIENCE", 5.0)


@pytest.fixture
def row(namespaces: Namespaces) -> Switched:
    """Return client -- router -- switch -- server."""
    return build_switched(namespaces)


@pytest.fixture
def trace() -> Trace:
    """Traces a TCP probe: `trace(netns, ..., dst=..., dport=...)`; all must have been seen."""

    def send(*netns: str, dst: str, dport: int, **words: object) -> TraceResult:
        spec = ProbeSpec("tcp", dst, dport, netns=netns, **words)  # type: ignore[arg-type]
        notes: list[str] = []
        result = trace_probe(validate(spec), answer=lambda _: None, note=notes.append)
        assert (notes, result.warnings, result.clean) == ([], (), True)
        assert (result.totals.lost_events, result.totals.undecoded) == (0, 0)
        return result

    return send


def legs(result: TraceResult, role: Role) -> list[PacketPath]:
    """Return the paths of a role, as the result orders them; one journey."""
    found = [path for path in result.paths if path.role is role]
    assert len({path.journey for path in found}) == 1
    assert [path.leg for path in found] == list(range(1, len(found) + 1))
    return found


def way(result: TraceResult, role: Role) -> list[tuple[str | None, Outcome]]:
    """Return namespace and fate of each leg."""
    return [(path.netns, path.outcome) for path in legs(result, role)]


def rules_met(path: PacketPath) -> list[str]:
    """Return the rules that matched, as `table/chain number`, without those of a bridge."""
    return [
        str(hop.ref)
        for hop in path.chain_hops
        if hop.number is not None and hop.chain.table_family is not TableFamily.BRIDGE
    ]


def wanted(address: str, family: PacketFamily, port: int) -> str:
    """Return `address:port` as DNAT wants it."""
    return f"{address}:{port}" if family is V4 else f"[{address}]:{port}"


def accept_everywhere(row: Switched, iptables: Iptables, family: PacketFamily) -> None:
    """Give each namespace one rule that all its packets meet."""
    chains = {row.client.netns: "OUTPUT", row.router: "FORWARD", row.switch: "FORWARD"}
    for netns, chain in (*chains.items(), (row.server.netns, "INPUT")):
        iptables(netns, family, "-A", chain, "-p", "tcp", "-j", "ACCEPT")


@pytest.mark.parametrize("called", [True, False], ids=["br_netfilter", "bridge alone"])
def test_a_packet_is_one_journey_from_client_to_server(
    row: Switched,
    backend: Backend,
    family: PacketFamily,
    iptables: Iptables,
    listen: Listeners,
    trace: Trace,
    called: bool,
) -> None:
    accept_everywhere(row, iptables, family)
    call_iptables(row.switch, family, on=called)
    server = row.server.address(family)
    listen(row.server.netns, server, OPEN)
    result = trace(*row.everywhere, dst=server, dport=OPEN)
    assert result.client == ("CONNECTED",)
    client, router, switch, end = row.everywhere
    assert way(result, Role.PROBE) == [
        (client, Outcome.SENT),
        (router, Outcome.FORWARDED),
        (switch, Outcome.FORWARDED),
        (end, Outcome.DELIVERED),
    ]
    assert [rules_met(path) for path in legs(result, Role.PROBE)] == [
        ["filter/OUTPUT 1"],
        ["filter/FORWARD 1"],
        ["filter/FORWARD 1"] if called else [],
        ["filter/INPUT 1"],
    ]
    assert way(result, Role.REPLY) == [
        (end, Outcome.SENT),
        (switch, Outcome.FORWARDED),
        (router, Outcome.FORWARDED),
        (client, Outcome.DELIVERED),
    ]
    asked = {path.netns: path.id for path in legs(result, Role.PROBE)}
    assert all(path.request == asked[path.netns] for path in legs(result, Role.REPLY))
    assert {hop.chain.backend for path in result.paths for hop in path.chain_hops} == {backend}


def test_the_order_of_the_options_is_not_that_of_the_way(
    row: Switched, family: PacketFamily, listen: Listeners, trace: Trace
) -> None:
    server = row.server.address(family)
    listen(row.server.netns, server, OPEN)
    mixed = (row.server.netns, row.router, row.client.netns)
    result = trace(*mixed, dst=server, dport=OPEN, from_netns=row.client.netns)
    names = [netns for netns, _ in way(result, Role.PROBE)]
    assert names == [row.client.netns, row.router, row.server.netns]
    names = [netns for netns, _ in way(result, Role.REPLY)]
    assert names == [row.server.netns, row.router, row.client.netns]


def test_new_addresses_do_not_end_a_journey(
    row: Switched,
    backend: Backend,
    family: PacketFamily,
    iptables: Iptables,
    listen: Listeners,
    trace: Trace,
) -> None:
    inside, outside = row.inside.address(family), row.outside.address(family)
    server = row.server.address(family)
    dnat = f"-p tcp --dport {PUBLISHED} -j DNAT --to-destination {wanted(server, family, OPEN)}"
    nat = ("-t", "nat", "-A")
    iptables(row.router, family, *nat, "PREROUTING", *dnat.split())
    iptables(row.router, family, *nat, "POSTROUTING", "-o", "eth1", "-j", "MASQUERADE")
    iptables(row.server.netns, family, "-A", "INPUT", "-s", outside, "-j", "ACCEPT")
    listen(row.server.netns, server, OPEN)
    where = (row.client.netns, row.router, row.server.netns)
    result = trace(*where, dst=inside, dport=PUBLISHED)
    assert result.client == ("CONNECTED",)
    assert [netns for netns, _ in way(result, Role.PROBE)] == list(where)
    assert [netns for netns, _ in way(result, Role.REPLY)] == list(reversed(where))
    client, router, end = legs(result, Role.PROBE)
    sport = client.packet.sport
    assert (client.packet.dst, client.packet.dport) == (inside, PUBLISHED)
    assert rules_met(router) == ["nat/PREROUTING 1", "nat/POSTROUTING 1"]
    assert (end.packet.src, end.packet.sport) == (outside, sport)
    assert (end.packet.dst, end.packet.dport) == (server, OPEN)
    assert rules_met(end) == ["filter/INPUT 1"]
    assert {hop.chain.backend for path in result.paths for hop in path.chain_hops} == {backend}
    back = legs(result, Role.REPLY)[1]
    rewritten = [hop for hop in back.hops if isinstance(hop, NatHop)]
    assert {hop.destination[1] for hop in rewritten if hop.destination} == {
        wanted(row.client.address(family), family, sport or 0)
    }


def test_a_drop_on_the_way_ends_the_journey(
    row: Switched, backend: Backend, family: PacketFamily, iptables: Iptables, trace: Trace
) -> None:
    iptables(row.router, family, "-A", "FORWARD", "-p", "tcp", "-j", "DROP")
    server = row.server.address(family)
    result = trace(*row.everywhere, dst=server, dport=OPEN, wait=0.3)
    assert result.client == ("TIMEOUT",)
    assert way(result, Role.PROBE) == [
        (row.client.netns, Outcome.SENT),
        (row.router, Outcome.DROPPED),
    ]
    assert rules_met(legs(result, Role.PROBE)[1]) == ["filter/FORWARD 1"]


# ------------------------------------------------------------------ the same namespace twice


LOOP = {
    V4: (("203.0.113.129/30", "203.0.113.130/30"), ("203.0.113.133/30", "203.0.113.134/30")),
    PacketFamily.IPV6: (
        ("2001:db8:7::1/64", "2001:db8:7::2/64"),
        ("2001:db8:8::1/64", "2001:db8:8::2/64"),
    ),
}
"""The router's and the middle's addresses on `m0`, and on `m1`."""
ASIDE = "77"
"""A routing table that leads through the middle."""


def bare(address: str) -> str:
    """Return an address without its prefix length."""
    return address.partition("/")[0]


@pytest.fixture
def middle(row: Switched, namespaces: Namespaces, family: PacketFamily) -> str:
    """A namespace through which the router sends the client's packets, and gets them back."""
    name = namespaces.add("middle")
    version = "-4" if family is V4 else "-6"
    for port, addresses in zip(("m0", "m1"), LOOP[family], strict=True):
        link = f"link add {port} type veth peer name {port} netns {name}"
        run("ip", "-n", row.router, *link.split())
        for netns, address in zip((row.router, name), addresses, strict=True):
            nodad = [] if family is V4 else ["nodad"]
            run("ip", "-n", netns, version, "address", "add", address, "dev", port, *nodad)
            run("ip", "-n", netns, "link", "set", port, "up")
    for netns in (row.router, name):
        wait_for_addresses(netns)
    for netns in (row.router, name):
        for port in ("all", "m0", "m1"):
            set_sysctl(netns, f"net/ipv4/conf/{port}/rp_filter", "0")
    set_sysctl(name, "net/ipv4/ip_forward", "1")
    set_sysctl(name, "net/ipv6/conf/all/forwarding", "1")
    (_, there), (back, _) = LOOP[family]
    aside = ("route", "add", "default", "via", bare(there), "table", ASIDE)
    run("ip", "-n", row.router, version, *aside)
    run("ip", "-n", row.router, version, "rule", "add", "iif", "eth0", "lookup", ASIDE)
    server = row.server.address(family)
    run("ip", "-n", name, version, "route", "add", server, "via", bare(back))
    return name


def test_a_packet_that_comes_back_has_two_legs_there(
    row: Switched,
    middle: str,
    backend: Backend,
    family: PacketFamily,
    iptables: Iptables,
    listen: Listeners,
    trace: Trace,
) -> None:
    for number, way_in in enumerate(("eth0", "m1"), 1):
        mark = ("-p", "tcp", "-i", way_in, "-j", "MARK", "--set-mark", str(number))
        iptables(row.router, family, "-t", "mangle", "-A", "FORWARD", *mark)
    server = row.server.address(family)
    listen(row.server.netns, server, OPEN)
    result = trace(
        row.router, middle, dst=server, dport=OPEN, from_netns=row.client.netns, wait=1.0
    )
    there = legs(result, Role.PROBE)
    assert [path.netns for path in there] == [row.router, middle, row.router]
    assert [path.packet.ttl for path in there] == [64, 63, 62]
    assert [(path.in_interface, path.out_interface) for path in there] == [
        ("eth0", "m0"),
        ("m0", "m1"),
        ("m1", "eth1"),
    ]
    assert [rules_met(path) for path in there] == [
        ["mangle/FORWARD 1"],
        [],
        ["mangle/FORWARD 2"],
    ]
    assert not any(path.ambiguous for path in result.paths)
    answers = [path for path in result.paths if path.role is Role.REPLY]
    assert [path.netns for path in answers] == [row.router]
    assert answers[0].request == there[2].id, "the answer came in where the third leg went out"
    assert {hop.chain.backend for hop in there[0].chain_hops} == {backend}


def test_a_packet_made_here_that_comes_back_is_seen_again(
    row: Switched, middle: str, family: PacketFamily, trace: Trace
) -> None:
    version = "-4" if family is V4 else "-6"
    server = row.server.address(family)
    aside = ("rule", "add", "iif", "lo", "to", server, "lookup", ASIDE)
    run("ip", "-n", row.router, version, *aside)
    set_sysctl(row.router, "net/ipv4/conf/m1/accept_local", "1")
    source = bare(LOOP[family][0][0])
    result = trace(row.router, middle, dst=server, dport=OPEN, src=source, wait=0.3)
    there = legs(result, Role.PROBE)[:3]
    assert [path.netns for path in there] == [row.router, middle, row.router]
    assert [path.in_interface for path in there] == [None, "m0", "m1"]


# ------------------------------------------------------------------ where it goes on


@pytest.fixture
def inhabitant(row: Switched) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the server's namespace."""
    process = in_namespace(row.server.netns).run(
        lambda: subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    )
    yield process
    process.communicate()


def remedy(result: TraceResult) -> str:
    (probe,) = [path for path in result.paths if path.role is Role.PROBE]
    assert probe.diagnosis is not None
    return probe.diagnosis.remedy[0]


def test_the_namespaces_that_a_packet_goes_on_to_are_named(
    row: Switched,
    family: PacketFamily,
    listen: Listeners,
    trace: Trace,
    inhabitant: subprocess.Popen[bytes],
) -> None:
    server = row.server.address(family)
    listen(row.server.netns, server, OPEN)
    result = trace(row.client.netns, dst=server, dport=OPEN)
    client, router, switch, end = row.everywhere
    assert remedy(result) == (
        f"it goes on in namespace {router}, by links from there to namespace {switch} "
        f"and then to namespace {end} (pid {inhabitant.pid}, cat); to follow it there, repeat "
        f"with: --netns {client} --netns {router} --netns {switch} --netns {end}"
    )
    followed = trace(*row.everywhere, dst=server, dport=OPEN)
    (last,) = [path for path in followed.paths if path.role is Role.PROBE and path.leg == 4]
    assert last.diagnosis is not None
    assert last.diagnosis.remedy == ()


def test_a_contained_packet_would_go_on(row: Switched, family: PacketFamily, trace: Trace) -> None:
    server, client = row.server.address(family), row.client.address(family)
    result = trace(row.router, dst=server, dport=OPEN, src=client, in_interface="eth0")
    assert remedy(result) == (
        f"it would go on in namespace {row.switch}, by links from there to namespace "
        f"{row.server.netns}; to follow it there, repeat with: "
        f"--let-out --netns {row.router} --netns {row.switch} --netns {row.server.netns}"
    )


def test_only_namespaces_that_links_lead_to_are_named(
    row: Switched, namespaces: Namespaces, trace: Trace
) -> None:
    """Another lab has the same address, and nobody behind the router has it."""
    stranger, address = namespaces.add("stranger"), "203.0.113.77"
    run("ip", "-n", stranger, "address", "add", f"{address}/32", "dev", "lo")
    result = trace(row.router, dst=address, dport=OPEN, src=row.client.ipv4, in_interface="eth0")
    text = remedy(result)
    assert stranger not in text
    assert text.startswith(f"it would go on in namespace {row.switch}; ")


def test_looking_for_the_way_on_is_quick_among_many_namespaces(
    row: Switched, namespaces: Namespaces, listen: Listeners, trace: Trace
) -> None:
    for number in range(20):
        namespaces.add(f"other{number}")
    listen(row.server.netns, row.server.ipv4, OPEN)
    result = trace(row.client.netns, dst=row.server.ipv4, dport=OPEN)
    (path,) = legs(result, Role.PROBE)
    traced = [find_namespace(row.client.netns)]
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        assert find_onward(traced, path).arrives
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < REAL_PATIENCE
