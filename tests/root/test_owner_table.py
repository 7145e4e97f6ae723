"""The owner table on the real kernel: who owns it, what it traces, what it keeps inside."""

from __future__ import annotations

import json
import secrets
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Self

import pytest

from ipttrace.decode.netlink import decode_datagram
from ipttrace.errors import KernelError
from ipttrace.event import TraceEvent
from ipttrace.netfilter import Backend, Hook, PacketFamily
from ipttrace.own_table import IP_CHAINS
from ipttrace.packet import Flow
from ipttrace.request import TraceRequest, Trigger
from ipttrace.system import conntrack
from ipttrace.system.flow_selectors import FlowSelectors
from ipttrace.system.netlink_queue import NetlinkQueue
from ipttrace.system.owner_table import OwnerTable
from tests.root.kernel import (
    INTERFACE,
    Endpoint,
    Iptables,
    Listeners,
    Namespaces,
    Pair,
    in_namespace,
    run,
    set_sysctl,
    wait_for_addresses,
)
from tests.waiting import wait_until

V4 = PacketFamily.IPV4
AF = {V4: socket.AF_INET, PacketFamily.IPV6: socket.AF_INET6}
LOOPBACK = {V4: "127.0.0.1", PacketFamily.IPV6: "::1"}
FAR = {V4: "203.0.113.9", PacketFamily.IPV6: "2001:db8:1::9"}
FAR_SELF = {V4: "203.0.113.1/24", PacketFamily.IPV6: "2001:db8:1::1/64"}
SECOND = {V4: "198.51.100.77", PacketFamily.IPV6: "2001:db8::77"}
NOBODY = {V4: "198.51.100.200", PacketFamily.IPV6: "2001:db8::200"}
ICMP = {V4: "icmp", PacketFamily.IPV6: "icmp6"}
ETH_P_ALL = 3
PACKET_OUTGOING = 4
ETH_P_ARP, ETH_P_IPV6 = 0x0806, 0x86DD


class Tables:
    """Owner tables in namespaces, closed at the end."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, netns: str, request: TraceRequest, *, tracked: bool) -> OwnerTable:
        table = OwnerTable(request, conntrack_active=tracked)
        in_namespace(netns).run(table.create)
        self._stack.callback(table.close)
        return table


@pytest.fixture
def tables() -> Iterator[Tables]:
    with Tables() as made:
        yield made


class Talk:
    """A client's socket whose port is known before it sends."""

    def __init__(self, client: Endpoint, family: PacketFamily, protocol: str, to: tuple[str, int]):
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        self._to = to
        self.socket = client.socket(AF[family], kind)
        self.socket.bind(("", 0))
        self.socket.settimeout(0)
        port = self.socket.getsockname()[1]
        self.flow = Flow(family, protocol, client.address(family), to[0], port, to[1])

    def send(self) -> None:
        """Send a SYN or a datagram; wait for no answer."""
        with suppress(BlockingIOError):
            self.socket.connect(self._to)
        if self.flow.protocol == "udp":
            self.socket.send(b"hello")

    def error(self) -> int:
        """Return the errno that an answer left on the socket, 0 if none."""
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    @property
    def connected(self) -> bool:
        with suppress(OSError):
            self.socket.getpeername()
            return True
        return False


class Talks(ExitStack):
    def __call__(
        self, client: Endpoint, family: PacketFamily, protocol: str, address: str, port: int
    ) -> Talk:
        talk = Talk(client, family, protocol, (address, port))
        self.callback(talk.socket.close)
        return talk


@pytest.fixture
def talk() -> Iterator[Talks]:
    with Talks() as talks:
        yield talks


class Frames:
    """The frames that arrive at an interface, but for the namespace's own multicast chatter."""

    def __init__(self, end: Endpoint) -> None:
        self._socket = end.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.bind((end.interface, ETH_P_ALL))
        self._socket.settimeout(0)

    def close(self) -> None:
        self._socket.close()

    def arrived(self) -> list[str]:
        """Return what came since the last call, as hex."""
        found = []
        with suppress(BlockingIOError):
            while True:
                frame, (_, kind, direction, _, _) = self._socket.recvfrom(2048)
                listener_report = kind == ETH_P_IPV6 and frame[20] == 0
                if direction != PACKET_OUTGOING and not listener_report:
                    found.append(frame.hex())
        return found


@pytest.fixture
def watch() -> Iterator[Callable[[Endpoint], Frames]]:
    with ExitStack() as stack:

        def start(end: Endpoint) -> Frames:
            frames = Frames(end)
            stack.callback(frames.close)
            return frames

        yield start


class Reports:
    """What the chains of a namespace reported."""

    def __init__(self, netns: str) -> None:
        self._queue = NetlinkQueue(in_namespace(netns))
        self.events: list[TraceEvent] = []

    def close(self) -> None:
        self._queue.close()

    def points(self) -> list[tuple[Backend, str, str]]:
        """Return who spoke so far: backend, table, chain; tables of ours without their session."""
        for datagram in self._queue.drain()[0]:
            decoded = decode_datagram(datagram.data, datagram.time)
            self.events += [event for event in decoded if isinstance(event, TraceEvent)]
        return [(e.backend, e.table.partition("-")[0], e.chain) for e in self.events]


@pytest.fixture
def reports() -> Iterator[Callable[[str], Reports]]:
    with ExitStack() as stack:

        def listen_in(netns: str) -> Reports:
            opened = Reports(netns)
            stack.callback(opened.close)
            return opened

        yield listen_in


def request_for(flow: Flow, **options: object) -> TraceRequest:
    request = TraceRequest(secrets.token_hex(4), Hook.PREROUTING, flow, Trigger.OWNER)
    return replace(request, **options)  # type: ignore[arg-type]


def any_flow(family: PacketFamily) -> Flow:
    return Flow(family, "tcp", NOBODY[family], FAR[family], 40000, 443)


def listed(netns: str) -> str:
    return run("nft", "-a", "list", "ruleset", netns=netns)


def know_each_other(pair: Pair, family: PacketFamily) -> None:
    """Give the client the server's hardware address, so that it needs not ask."""
    link = json.loads(pair.server.run("ip", "-j", "link", "show", INTERFACE))[0]
    to = pair.server.address(family)
    pair.client.run(
        *("ip", "neigh", "replace", to, "lladdr", link["address"]),
        *("nud", "permanent", "dev", INTERFACE),
    )


def track(netns: str, family: PacketFamily, iptables: Iptables) -> None:
    """Switch connection tracking on, as a stateful firewall does."""
    established = ("-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT")
    iptables(netns, family, "-t", "mangle", "-A", "FORWARD", *established)


# ------------------------------------------------------------------ ownership


HOLDER = """
import sys
from ipttrace.netfilter import Hook, PacketFamily
from ipttrace.packet import Flow
from ipttrace.request import TraceRequest
from ipttrace.system.namespaces import find_namespace
from ipttrace.system.owner_table import OwnerTable
find_namespace(sys.argv[1]).enter()
flow = Flow(PacketFamily(sys.argv[2]), "tcp", sys.argv[3], sys.argv[3], 1, 2)
table = OwnerTable(TraceRequest("held", Hook.PREROUTING, flow), conntrack_active=False)
table.create()
print("ready", flush=True)
sys.stdin.read()
"""


def test_table_goes_with_its_process(namespaces: Namespaces, family: PacketFamily) -> None:
    netns = namespaces.add("owner")
    command = [sys.executable, "-c", HOLDER, netns, family, NOBODY[family]]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "ready\n"
            run("nft", "flush", "ruleset", netns=netns)
            assert "ipttrace-held" in listed(netns)
            delete = ("nft", "delete", "table", family.table_family, "ipttrace-held")
            with pytest.raises(AssertionError, match="Operation not permitted"):
                run(*delete, netns=netns)
        finally:
            holder.send_signal(signal.SIGKILL)
    wait_until(lambda: listed(netns) == "", what="the table gone")


def test_close_leaves_nothing(namespaces: Namespaces, family: PacketFamily, tables: Tables) -> None:
    netns = namespaces.add("close")
    table = tables(netns, request_for(any_flow(family), contain=True), tracked=True)
    assert table.table == (family.table_family, f"{listed(netns).split()[2]}")
    table.close()
    assert listed(netns) == ""
    table.close()


def test_refused_rule_leaves_nothing(
    namespaces: Namespaces, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    netns = namespaces.add("refused")
    monkeypatch.setattr(FlowSelectors, "errors", lambda _: [b"\x08\0\1\x80\4\0\1\0"])
    with pytest.raises(KernelError, match="cannot create nft table ip ipttrace-"):
        tables(netns, request_for(any_flow(V4)), tracked=False)
    assert listed(netns) == ""


def test_name_in_use_is_refused(namespaces: Namespaces, tables: Tables) -> None:
    netns = namespaces.add("twice")
    request = request_for(any_flow(V4))
    run("nft", "add", "table", "ip", f"ipttrace-{request.session}", netns=netns)
    with pytest.raises(KernelError, match="File exists"):
        tables(netns, request, tracked=False)
    assert "chain" not in listed(netns)


def test_chains_say_their_hook(namespaces: Namespaces, tables: Tables) -> None:
    netns = namespaces.add("chains")
    tables(netns, request_for(any_flow(V4)), tracked=True)
    objects = json.loads(run("nft", "-j", "list", "chains", netns=netns))["nftables"]
    chains = {o["chain"]["name"]: o["chain"] for o in objects if "chain" in o}
    assert chains.keys() == IP_CHAINS.keys()
    for name, chain in chains.items():
        own = IP_CHAINS[name]
        assert (own.hook.lower(), own.priority) == (chain["hook"], chain["prio"])


# ------------------------------------------------------------------ tracing


@pytest.mark.parametrize("replies", [True, False])
@pytest.mark.parametrize("trigger", list(Trigger))
def test_some_rule_always_sets_the_trace_bit(
    namespaces: Namespaces, tables: Tables, family: PacketFamily, trigger: Trigger, replies: bool
) -> None:
    netns = namespaces.add("key")
    request = request_for(any_flow(family), trigger=trigger, replies=replies)
    tables(netns, request, tracked=False)
    assert "meta nftrace set 1" in listed(netns)


def test_observers_report_what_a_legacy_trigger_marked(
    pair: Pair, family: PacketFamily, tables: Tables, talk: Talks, reports: Callable[[str], Reports]
) -> None:
    netns = pair.server.netns
    mark = ("-t", "raw", "-A", "PREROUTING", "-p", "udp", "--dport", "9", "-j", "TRACE")
    Iptables(Backend.LEGACY)(netns, family, *mark)
    said = reports(netns)
    client = talk(pair.client, family, "udp", pair.server.address(family), 9)
    request = request_for(client.flow, trigger=Trigger.RAW, replies=False)
    table = tables(netns, request, tracked=False)
    client.send()
    wait_until(lambda: (Backend.NFT, "ipttrace", "observe-input") in said.points())
    assert table.hits() == 0


def test_trigger_traces_every_table(
    pair: Pair,
    family: PacketFamily,
    backend: Backend,
    iptables: Iptables,
    tables: Tables,
    talk: Talks,
    reports: Callable[[str], Reports],
) -> None:
    netns = pair.server.netns
    for name, chain in (("mangle", "PREROUTING"), ("filter", "INPUT")):
        iptables(netns, family, "-t", name, "-A", chain, "-p", "udp", "--dport", "9")
    said = reports(netns)
    client = talk(pair.client, family, "udp", pair.server.address(family), 9)
    request = request_for(client.flow, in_interface=INTERFACE)
    table = tables(netns, request, tracked=False)
    talk(pair.client, family, "udp", pair.server.address(family), 9).send()
    client.send()
    wait_until(lambda: (backend, "filter", "INPUT") in said.points())
    assert (backend, "mangle", "PREROUTING") in said.points()
    ports = {e.packet.sport for e in said.events if e.packet and e.packet.protocol == "udp"}
    assert ports == {client.flow.sport}, "only the flow is traced"
    assert table.hits() == 2, "the datagram, and port unreachable"


def test_other_interface_is_not_traced_of_a_packet_that_cannot_come_back(
    pair: Pair, family: PacketFamily, tables: Tables, talk: Talks, listen: Listeners
) -> None:
    server = listen(pair.server.netns, pair.server.address(family), 9, "udp")
    client = talk(pair.client, family, "udp", pair.server.address(family), 9)
    request = request_for(client.flow, in_interface="eth1", replies=False, contain=True)
    table = tables(pair.server.netns, request, tracked=False)
    client.send()
    server.settimeout(5)
    assert server.recv(64)
    assert table.hits() == 0


@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_refusal_of_a_closed_port_is_caught_once(
    pair: Pair, family: PacketFamily, tables: Tables, talk: Talks, protocol: str, tracked: bool
) -> None:
    """RST, or ICMP port unreachable."""
    client = talk(pair.client, family, protocol, pair.server.address(family), 9)
    table = tables(pair.server.netns, request_for(client.flow), tracked=tracked)
    client.send()
    wait_until(client.error, what="refused at the client")
    assert table.hits() == 2


@pytest.mark.parametrize("tracked", [True, False])
def test_loopback_counts_each_packet_once(
    pair: Pair, family: PacketFamily, tables: Tables, talk: Talks, tracked: bool
) -> None:
    here = replace(pair.server, ipv4=LOOPBACK[V4], ipv6=LOOPBACK[PacketFamily.IPV6])
    client = talk(here, family, "udp", LOOPBACK[family], 9)
    request = request_for(client.flow, hook=Hook.OUTPUT, contain=True)
    table = tables(pair.server.netns, request, tracked=tracked)
    client.send()
    wait_until(client.error, what="refused over lo, which is no way out")
    assert (table.hits(), table.contained()) == (2, 0)


def test_first_answer_behind_redirect_is_caught(
    pair: Pair,
    family: PacketFamily,
    iptables: Iptables,
    tables: Tables,
    talk: Talks,
    listen: Listeners,
    reports: Callable[[str], Reports],
) -> None:
    netns = pair.server.netns
    redirect = ("-p", "tcp", "--dport", "8445", "-j", "REDIRECT", "--to-ports", "8443")
    iptables(netns, family, "-t", "nat", "-A", "PREROUTING", *redirect)
    listen(netns, pair.server.address(family), 8443)
    said = reports(netns)
    client = talk(pair.client, family, "tcp", pair.server.address(family), 8445)
    table = tables(netns, request_for(client.flow), tracked=True)
    client.send()
    wait_until(lambda: client.connected)
    wait_until(lambda: table.hits() == 3, what="SYN, SYN-ACK, ACK")
    wait_until(lambda: (Backend.NFT, "ipttrace", "observe-postrouting") in said.points())
    first = next(e for e in said.events if e.chain == "observe-postrouting" and e.packet)
    assert first.packet is not None
    assert first.packet.tcp_flags == ("SYN", "ACK")
    assert first.packet.sport == 8445, "as it leaves: rewritten back"


def test_echo_reply_behind_dnat_is_caught(
    pair: Pair, family: PacketFamily, iptables: Iptables, tables: Tables
) -> None:
    to_second_address(pair, family, iptables)
    to = pair.server.address(family)
    flow = Flow(family, ICMP[family], pair.client.address(family), to, icmp_id=77)
    table = tables(pair.server.netns, request_for(flow), tracked=True)
    echo(pair.client, flow)
    wait_until(lambda: table.hits() == 2, what="request and reply")


def to_second_address(pair: Pair, family: PacketFamily, iptables: Iptables) -> None:
    pair.server.run("ip", "address", "add", SECOND[family], "dev", INTERFACE, "nodad")
    wait_for_addresses(pair.server.netns)
    dnat = ("-d", pair.server.address(family), "-j", "DNAT", "--to-destination", SECOND[family])
    iptables(pair.server.netns, family, "-t", "nat", "-A", "PREROUTING", *dnat)


def echo(client: Endpoint, flow: Flow) -> None:
    """Send one echo request with the flow's id; the kernel takes the replies."""
    protocol = socket.IPPROTO_ICMP if flow.family is V4 else socket.IPPROTO_ICMPV6
    kind = 8 if flow.family is V4 else 128
    assert flow.icmp_id is not None
    # RFC 1071; a raw ICMPv6 socket fills in its own (RFC 3542).
    total = (kind << 8) + flow.icmp_id + 1
    message = struct.pack(">BBHHH", kind, 0, ~total & 0xFFFF, flow.icmp_id, 1)
    with client.socket(AF[flow.family], socket.SOCK_RAW, protocol) as opened:
        opened.sendto(message, (flow.dst, 0))


def test_namespace_without_conntrack_stays_without(
    pair: Pair, family: PacketFamily, tables: Tables, talk: Talks, listen: Listeners
) -> None:
    netns = pair.server.netns
    listen(netns, pair.server.address(family), 8443)
    client = talk(pair.client, family, "tcp", pair.server.address(family), 8443)
    tables(netns, request_for(client.flow, contain=False), tracked=False)
    other = replace(client.flow, sport=1)
    tables(netns, request_for(other, contain=True), tracked=False)
    client.send()
    wait_until(lambda: client.connected)
    assert " ct " not in listed(netns)
    assert in_namespace(netns).run(conntrack.entry_count) == 0


# ------------------------------------------------------------------ containment


def redirected(netns: str, family: PacketFamily, iptables: Iptables) -> None:
    for protocol in ("tcp", "udp"):
        rule = ("-p", protocol, "--dport", "8445", "-j", "REDIRECT", "--to-ports", "8443")
        iptables(netns, family, "-t", "nat", "-A", "PREROUTING", *rule)


def plain(netns: str, family: PacketFamily, iptables: Iptables) -> None:
    """Leave the namespace as it is."""


def notracked(netns: str, family: PacketFamily, iptables: Iptables) -> None:
    for chain in ("PREROUTING", "OUTPUT"):
        iptables(netns, family, "-t", "raw", "-A", chain, "-j", "CT", "--notrack")
    track(netns, family, iptables)


def rejected_behind_redirect(netns: str, family: PacketFamily, iptables: Iptables) -> None:
    redirected(netns, family, iptables)
    iptables(netns, family, "-A", "INPUT", "-p", "tcp", "--dport", "8443", "-j", "REJECT")
    iptables(netns, family, "-A", "INPUT", "-p", "udp", "--dport", "8443", "-j", "REJECT")


def copied_behind_redirect(netns: str, family: PacketFamily, iptables: Iptables) -> None:
    redirected(netns, family, iptables)
    gateway = ("--gateway", NOBODY[family])
    for protocol in ("tcp", "udp"):
        tee = ("-p", protocol, "--dport", "8443", "-j", "TEE", *gateway)
        iptables(netns, family, "-t", "mangle", "-A", "INPUT", *tee)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("rules", "port", "tracked"),
    [
        (plain, 8443, False),
        (plain, 9, False),
        (plain, 8443, True),
        (notracked, 8443, True),
        (redirected, 8445, True),
        (rejected_behind_redirect, 8445, True),
        (copied_behind_redirect, 8445, True),
    ],
)
def test_no_answer_leaves(
    *,
    pair: Pair,
    family: PacketFamily,
    iptables: Iptables,
    tables: Tables,
    talk: Talks,
    listen: Listeners,
    watch: Callable[[Endpoint], Frames],
    rules: Callable[[str, PacketFamily, Iptables], None],
    port: int,
    tracked: bool,
    protocol: str,
) -> None:
    netns = pair.server.netns
    rules(netns, family, iptables)
    know_each_other(pair, family)
    if protocol == "tcp":
        listen(netns, pair.server.address(family), 8443)
    client = talk(pair.client, family, protocol, pair.server.address(family), port)
    table = tables(netns, request_for(client.flow, contain=True), tracked=tracked)
    frames = watch(pair.client)
    client.send()
    wait_until(table.contained, what="an answer contained")
    table.quiet()
    hits, contained = table.hits(), table.contained()
    client.send()
    if protocol == "udp":
        wait_until(lambda: table.contained() > contained, what="contained when quiet")
    assert hits == table.hits()
    assert frames.arrived() == []
    table.close()
    talk(pair.client, family, protocol, pair.server.address(family), port).send()
    wait_until(frames.arrived, what="frames when nothing contains")


@pytest.mark.parametrize("translated", [True, False])
def test_no_echo_reply_leaves(
    *,
    pair: Pair,
    family: PacketFamily,
    iptables: Iptables,
    tables: Tables,
    watch: Callable[[Endpoint], Frames],
    translated: bool,
) -> None:
    know_each_other(pair, family)
    if translated:
        to_second_address(pair, family, iptables)
    to = pair.server.address(family)
    flow = Flow(family, ICMP[family], pair.client.address(family), to, icmp_id=77)
    table = tables(pair.server.netns, request_for(flow, contain=True), tracked=translated)
    frames = watch(pair.client)
    echo(pair.client, flow)
    wait_until(table.contained, what="the reply contained")
    assert frames.arrived() == []
    echo(pair.client, replace(flow, icmp_id=78))
    wait_until(frames.arrived, what="the reply to another's echo")


def test_masqueraded_packet_does_not_leave(
    pair: Pair,
    family: PacketFamily,
    iptables: Iptables,
    tables: Tables,
    talk: Talks,
    namespaces: Namespaces,
    watch: Callable[[Endpoint], Frames],
    reports: Callable[[str], Reports],
) -> None:
    far = forwards_to(namespaces, pair, family)
    iptables(pair.server.netns, family, "-t", "nat", "-A", "POSTROUTING", "-j", "MASQUERADE")
    client = talk(pair.client, family, "udp", FAR[family], 9)
    said = reports(pair.server.netns)
    table = tables(pair.server.netns, request_for(client.flow, contain=True), tracked=True)
    frames = watch(far)
    client.send()
    wait_until(table.contained, what="the packet contained")
    assert frames.arrived() == []
    assert (Backend.NFT, "ipttrace", "observe-forward") in said.points()
    (last,) = (e for e in said.events if e.chain == "observe-postrouting" and e.packet)
    assert last.packet is not None
    assert last.packet.src == FAR_SELF[family].partition("/")[0], "the SNAT result"
    count = in_namespace(pair.server.netns).run(conntrack.entry_count)
    assert count == 0, "dropped before conntrack confirms"
    table.close()
    client.send()
    wait_until(frames.arrived, what="frames when nothing contains")


def test_time_exceeded_does_not_leave(
    pair: Pair,
    family: PacketFamily,
    tables: Tables,
    talk: Talks,
    namespaces: Namespaces,
    watch: Callable[[Endpoint], Frames],
) -> None:
    forwards_to(namespaces, pair, family)
    client = talk(pair.client, family, "udp", FAR[family], 9)
    level = (socket.IPPROTO_IP, socket.IP_TTL)
    if family is not V4:
        level = (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
    client.socket.setsockopt(*level, 1)
    table = tables(pair.server.netns, request_for(client.flow, contain=True), tracked=False)
    frames = watch(pair.client)
    client.send()
    wait_until(table.contained, what="the error contained")
    assert table.hits() == 2, "the packet and the error"
    assert frames.arrived() == []
    table.close()
    client.send()
    wait_until(frames.arrived, what="frames when nothing contains")


def forwards_to(namespaces: Namespaces, pair: Pair, family: PacketFamily) -> Endpoint:
    """Make a network behind the server, to which it forwards; return the far end."""
    far = Endpoint(namespaces.add("far"), FAR[V4], FAR[PacketFamily.IPV6])
    netns = pair.server.netns
    link = f"link add out type veth peer name {INTERFACE} netns {far.netns}"
    run("ip", "-n", netns, *link.split())
    run("ip", "-n", netns, "address", "add", FAR_SELF[family], "dev", "out", "nodad")
    for name, device in ((netns, "out"), (far.netns, INTERFACE)):
        run("ip", "-n", name, "link", "set", device, "up")
    wait_for_addresses(netns)
    set_sysctl(netns, "net/ipv4/ip_forward", "1")
    set_sysctl(netns, "net/ipv6/conf/all/forwarding", "1")
    know_each_other(pair, family)
    route = ("ip", "route", "add", FAR[family], "via", pair.server.address(family))
    pair.client.run(*route)
    return far


# ------------------------------------------------------------------ conntrack entries


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_entry_is_deleted_by_the_original_flow(
    pair: Pair,
    family: PacketFamily,
    iptables: Iptables,
    talk: Talks,
    listen: Listeners,
    protocol: str,
) -> None:
    netns = pair.server.netns
    redirected(netns, family, iptables)
    listen(netns, pair.server.address(family), 8443, protocol)
    client = talk(pair.client, family, protocol, pair.server.address(family), 8445)
    client.send()
    space = in_namespace(netns)
    wait_until(lambda: space.run(conntrack.entry_count) == 1)
    assert not space.run(lambda: conntrack.delete_entry(client.flow.reversed()))
    assert not space.run(lambda: conntrack.delete_entry(replace(client.flow, sport=None)))
    assert space.run(lambda: conntrack.delete_entry(client.flow))
    assert not space.run(lambda: conntrack.delete_entry(client.flow))
    assert space.run(conntrack.entry_count) == 0


def test_entry_of_an_echo_is_deleted(pair: Pair, family: PacketFamily, iptables: Iptables) -> None:
    track(pair.server.netns, family, iptables)
    source, to = pair.client.address(family), pair.server.address(family)
    flow = Flow(family, ICMP[family], source, to, icmp_id=77)
    echo(pair.client, flow)
    space = in_namespace(pair.server.netns)
    wait_until(lambda: space.run(conntrack.entry_count) == 1)
    assert not space.run(lambda: conntrack.delete_entry(replace(flow, icmp_id=None)))
    assert space.run(lambda: conntrack.delete_entry(flow))
    assert not space.run(lambda: conntrack.delete_entry(flow))
