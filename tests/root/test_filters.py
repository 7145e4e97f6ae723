"""Packet filters as triggers on the real kernel: exactly what matches, at the rate asked for."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest

from ipttrace.errors import NotSupportedError, UsageError
from ipttrace.netfilter import Backend, Hook, PacketFamily
from ipttrace.packet import Flow
from ipttrace.request import Armed, Disarmed, PacketFilter, TraceRequest, Trigger
from ipttrace.system import commands, conntrack, nft_expressions, nft_filtering
from ipttrace.system.arming import Arming
from ipttrace.system.namespaces import Namespace
from ipttrace.system.pcap_filter import compile_filter
from ipttrace.system.rulesets import NamespaceRules
from tests.root.kernel import (
    Endpoint,
    Iptables,
    Listeners,
    Namespaces,
    Pair,
    in_namespace,
    run,
)
from tests.root.mixed_traffic import AF, Mixed, Sniffer, connect_and_reset, echo, flood
from tests.root.sessions import new_session, nft_tables, saved_raw
from tests.waiting import wait_until

LIMIT = 20
WAYS = ["raw-legacy", "raw-nft", "owner"]
LOOPBACK = {PacketFamily.IPV4: "127.0.0.1", PacketFamily.IPV6: "::1"}
AWAY = {PacketFamily.IPV4: "203.0.113.9", PacketFamily.IPV6: "2001:db8:1::9"}
REDIRECT = ("-p", "tcp", "--dport", "8445", "-j", "REDIRECT", "--to-ports", "8443")
BUSY = ("-p", "udp", "--dport", "8445", "-j", "REDIRECT", "--to-ports", "8443")


@dataclass(frozen=True, slots=True)
class Watch:
    """What stands in a namespace; made by this process, not by a guardian, which costs a start."""

    space: Namespace
    arming: Arming
    armed: Armed

    def disarm(self) -> Disarmed:
        return self.space.run(self.arming.take_back)


class Watches(ExitStack):
    """Arms filters in namespaces; all are taken back at the end."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def request(self, text: str, **options: object) -> TraceRequest:
        request = TraceRequest(
            session=new_session(),
            filter=compile_filter(text),
            trigger=Trigger.OWNER if self.way == "owner" else Trigger.RAW,
            backends=frozenset({Backend.LEGACY if self.way == "raw-legacy" else Backend.NFT}),
        )
        return replace(request, **options)  # type: ignore[arg-type]

    def start(self, netns: str, text: str, **options: object) -> Watch:
        return self.arm(netns, self.request(text, **options))

    def arm(self, netns: str, request: TraceRequest) -> Watch:
        if self.way == "raw-legacy":
            for family in PacketFamily:  # in use, as where a trigger would be put into it
                Iptables(Backend.LEGACY)(netns, family, "-t", "mangle", "-A", "FORWARD")
        space, arming = in_namespace(netns), Arming(print)
        watch = Watch(space, arming, space.run(lambda: arming.arm(request)))
        self.callback(watch.disarm)
        return watch


@pytest.fixture(params=WAYS)
def watches(request: pytest.FixtureRequest) -> Iterator[Watches]:
    """Each kind of trigger, one after the other."""
    with Watches(request.param) as made:
        yield made


@pytest.fixture
def netns(namespaces: Namespaces) -> str:
    """A namespace with `lo` only."""
    return namespaces.add("filtered")


@pytest.fixture
def sniff() -> Iterator[Callable[[Endpoint, str], Sniffer]]:
    with ExitStack() as stack:

        def start(end: Endpoint, text: str) -> Sniffer:
            sniffer = Sniffer(end, text)
            stack.callback(sniffer.close)
            return sniffer

        yield start


# ------------------------------------------------------------------ exactly what matches


MATCHING = {
    "tcp port 8445": 8,
    "udp and dst port 53": 8,
    "icmp": 2,
    "host 198.51.100.2 and not port 22": 12,
    "host 2001:db8::2 and tcp": 8,
    "tcp[tcpflags] & tcp-syn != 0": 4,
    "ip6 and udp": 7,
    "less 100 and (tcp or udp or icmp)": 30,
    "tcp or udp or icmp": 32,
    "src port 53": 4,
    "sctp": 0,
}
"""How many packets of the mixed traffic a filter takes."""


def test_exactly_what_tcpdump_sees_is_traced(
    pair: Pair, watches: Watches, sniff: Callable[[Endpoint, str], Sniffer]
) -> None:
    """All filters at once: they do not get into each other's way, either."""
    with Mixed(pair) as traffic:
        sniffers = {text: sniff(pair.server, text) for text in MATCHING}
        netns = pair.server.netns
        started = {text: watches.start(netns, text, replies=False) for text in MATCHING}
        traffic.send()
        for text, packets in MATCHING.items():
            wait_until(lambda: sniffers[text].seen() >= packets, what=f"{packets} of {text}")  # noqa: B023
        ended = {text: watch.disarm() for text, watch in started.items()}
    assert {text: sniffer.seen() for text, sniffer in sniffers.items()} == MATCHING
    assert {text: disarmed.hits for text, disarmed in ended.items()} == MATCHING
    assert not [disarmed for disarmed in ended.values() if not disarmed.clean or disarmed.warnings]


def test_all_packets_without_a_filter(netns: str, watches: Watches) -> None:
    watch = watches.start(netns, "")
    send_over_lo(netns, PacketFamily.IPV4, 3)
    send_over_lo(netns, PacketFamily.IPV6, 2)
    assert watch.disarm().hits >= 5


def test_other_direction_by_the_headers_where_nothing_is_tracked(
    netns: str, watches: Watches
) -> None:
    texts = ("udp dst port 8445", "udp src port 8445")
    one_way = [watches.start(netns, text, replies=False) for text in texts]
    both = [watches.start(netns, text) for text in texts]
    for family in PacketFamily:
        talk_over_lo(netns, family)
    assert [watch.disarm().hits for watch in one_way + both] == [2, 2, 4, 4]
    assert in_namespace(netns).run(conntrack.entry_count) == 0


def test_a_filter_too_long_for_both_directions_is_said(netns: str, watches: Watches) -> None:
    text = " or ".join(f"src port {port}" for port in range(8430, 8454))
    watch = watches.arm(netns, watches.request(text))
    assert len(watch.armed.warnings) == len(PacketFamily)
    assert "the filter swapped is too long" in watch.armed.warnings[0]
    talk_over_lo(netns, PacketFamily.IPV4)
    assert watch.disarm().hits == 1


def test_longest_program_is_taken(netns: str, watches: Watches) -> None:
    program = (*[(0x80, 0, 0, 0)] * 63, (6, 0, 0, 0xFFFF))
    request = replace(watches.request(""), filter=PacketFilter("long", program, program))
    watch = watches.arm(netns, request)
    send_over_lo(netns, PacketFamily.IPV4, 1)
    assert watch.disarm().hits == 1


def test_packet_that_meets_both_backends_counts_once(netns: str) -> None:
    with Watches("raw-legacy") as watches:
        watch = watches.start(netns, "udp", backends=frozenset(Backend))
        send_over_lo(netns, PacketFamily.IPV4, 3)
        send_over_lo(netns, PacketFamily.IPV6, 2)
        assert watch.disarm().hits == 5


def test_own_rules_are_known_as_ours(netns: str, watches: Watches) -> None:
    watches.start(netns, "udp", limit=LIMIT)
    found = NamespaceRules(in_namespace(netns)).read()
    raw = [rule for rule in found.rules() if rule.chain.table == "raw"]
    assert [rule.own for rule in raw] == [True] * (0 if watches.way == "owner" else 4)
    others = [chain for ref, chain in found.chains.items() if not ref.table.startswith("ipttrace-")]
    assert not any(chain.user_rules for chain in others if chain.ref.table != "mangle")


# ------------------------------------------------------------------ the limit


def test_limit_holds_over_both_hooks(pair: Pair, watches: Watches) -> None:
    """A raw trigger has a bucket in each chain, our table one for all."""
    before = time.monotonic()
    watch = watches.start(pair.server.netns, "udp port 8445", limit=LIMIT)
    flood(pair.client, pair.server, 1000)
    flood(pair.server, pair.client, 1000)
    hits = watch.disarm().hits
    buckets = 1 if watches.way == "owner" else 2
    assert buckets * LIMIT <= hits <= buckets * most(time.monotonic() - before)


def test_limit_holds_for_the_rest_of_connections(
    pair: Pair, watches: Watches, iptables: Iptables
) -> None:
    netns = pair.server.netns
    iptables(netns, PacketFamily.IPV4, "-t", "nat", "-A", "PREROUTING", *BUSY)
    before = time.monotonic()
    watch = watches.start(netns, "udp dst port 8445", limit=LIMIT, conntrack_active=True)
    flood(pair.client, pair.server, 1000, answers=1000)
    hits = watch.disarm().hits
    assert 2 * LIMIT <= hits <= 2 * most(time.monotonic() - before)


@pytest.mark.parametrize("connections", [1, 400])
def test_limit_holds_for_tracked_packets_over_lo(
    netns: str, watches: Watches, connections: int
) -> None:
    """Neither those that came too late nor those that come again are traced for another reason."""
    track(netns)
    before = time.monotonic()
    watch = watches.start(netns, "udp", limit=LIMIT, conntrack_active=True)
    for _ in range(connections):
        send_over_lo(netns, PacketFamily.IPV4, 400 // connections)
    hits = watch.disarm().hits
    assert LIMIT <= hits <= most(time.monotonic() - before)


def test_no_limit(pair: Pair, watches: Watches) -> None:
    watch = watches.start(pair.server.netns, "udp port 8445")
    flood(pair.client, pair.server, 500)
    assert watch.disarm().hits == 500


def test_limit_beyond_what_a_rule_can_count(netns: str) -> None:
    with Watches("raw-nft") as watches:
        with pytest.raises(UsageError, match="cannot limit a TRACE rule to 10001 packets/s"):
            watches.start(netns, "udp", limit=10_001)
        assert nft_tables(netns) == []
    with Watches("owner") as watches:
        watches.start(netns, "udp", limit=10_001)


def most(seconds: float) -> float:
    """Return how many packets one bucket lets pass: its burst, its rate, and a rounded tick."""
    return LIMIT + LIMIT * seconds + 1


# ------------------------------------------------------------------ whole connections


def test_whole_connection_behind_redirect(
    pair: Pair, watches: Watches, family: PacketFamily, iptables: Iptables, listen: Listeners
) -> None:
    """Only packets from the client match: of the answers, headers and ports are other ones."""
    netns = pair.server.netns
    iptables(netns, family, "-t", "nat", "-A", "PREROUTING", *REDIRECT)
    listen(netns, pair.server.address(family), 8443)
    text = "tcp dst port 8445"
    one_way = watches.start(netns, text, conntrack_active=True, replies=False)
    whole = watches.start(netns, text, conntrack_active=True)
    connect_and_reset(pair.client, family, pair.server.address(family), 8445)
    listen(netns, pair.server.address(family), 8446)
    connect_and_reset(pair.client, family, pair.server.address(family), 8446)
    assert (one_way.disarm().hits, whole.disarm().hits) == (3, 4)
    assert not any("ipttrace" in table for table in nft_tables(netns))


@pytest.mark.parametrize("port", [8445, 8443])
def test_redirected_packets_over_lo_count_once(
    netns: str,
    watches: Watches,
    family: PacketFamily,
    iptables: Iptables,
    listen: Listeners,
    port: int,
) -> None:
    """Also where they match only after they were redirected."""
    iptables(netns, family, "-t", "nat", "-A", "OUTPUT", "-o", "lo", *REDIRECT)
    listen(netns, LOOPBACK[family], 8443)
    watch = watches.start(netns, f"tcp port {port}", conntrack_active=True)
    connect_and_reset(Endpoint(netns, "127.0.0.1", "::1"), family, LOOPBACK[family], 8445)
    assert watch.disarm().hits == 4


def track(netns: str) -> None:
    """Switch connection tracking on for IPv4."""
    tracking = ("-t", "mangle", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "NEW")
    Iptables(Backend.NFT)(netns, PacketFamily.IPV4, *tracking)


def test_family_that_is_not_tracked_stays_so(netns: str, watches: Watches) -> None:
    track(netns)
    only_ipv4 = frozenset({PacketFamily.IPV6})
    watch = watches.start(netns, "udp", conntrack_active=True, untracked=only_ipv4)
    talk_over_lo(netns, PacketFamily.IPV6)
    assert in_namespace(netns).run(conntrack.entry_count) == 0
    talk_over_lo(netns, PacketFamily.IPV4)
    assert in_namespace(netns).run(conntrack.entry_count) == 1
    assert watch.disarm().hits == 4


# ------------------------------------------------------------------ what a kernel may lack


@pytest.fixture
def without_xt_bpf(monkeypatch: pytest.MonkeyPatch) -> None:
    def matches(_: object) -> bytes:
        return nft_expressions.expression("nonesuch")

    monkeypatch.setattr(nft_filtering, "matches", matches)


@pytest.mark.usefixtures("without_xt_bpf")
def test_no_filter_in_our_table(netns: str) -> None:
    with (
        Watches("owner") as watches,
        pytest.raises(NotSupportedError, match=r"lacks nft_compat.*use --trigger raw"),
    ):
        watches.start(netns, "udp")
    assert nft_tables(netns) == []


@pytest.mark.usefixtures("without_xt_bpf")
def test_raw_trigger_does_without_the_rest_of_connections(
    netns: str,
) -> None:
    track(netns)
    with Watches("raw-nft") as watches:
        watch = watches.start(netns, "udp", conntrack_active=True)
        assert watch.armed.trigger is Trigger.RAW
        assert "answers that the filter does not match are not" in watch.armed.warnings[0]
        send_over_lo(netns, PacketFamily.IPV4, 2)
        assert watch.disarm().hits == 2


def test_our_table_where_there_is_no_iptables(netns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = commands.find
    monkeypatch.setattr(commands, "find", lambda name: None if "tables" in name else found(name))
    with Watches("raw-nft") as watches:
        watch = watches.start(netns, "udp")
        assert watch.armed.trigger is Trigger.OWNER
        assert "there is no iptables-nft" in watch.armed.warnings[0]
        send_over_lo(netns, PacketFamily.IPV4, 2)
        assert watch.disarm().hits == 2
    assert nft_tables(netns) == []


# ------------------------------------------------------------------ gone, however it ends


PARENT = """
import sys
from ipttrace.netfilter import Backend
from ipttrace.request import TraceRequest, Trigger
from ipttrace.system.guardian import Guardian
from ipttrace.system.namespaces import find_namespace
from ipttrace.system.pcap_filter import compile_filter
netns, session, way = sys.argv[1:]
guardian = Guardian.start(find_namespace(netns), session=session, legacy=True)
guardian.arm(TraceRequest(
    session=session, filter=compile_filter("udp"), limit=20, conntrack_active=True,
    trigger=Trigger.OWNER if way == "owner" else Trigger.RAW,
    backends=frozenset({Backend.LEGACY if way == "raw-legacy" else Backend.NFT})))
print("armed", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("way", WAYS)
def test_all_goes_when_the_main_process_is_killed(netns: str, way: str) -> None:
    for family in PacketFamily:
        Iptables(Backend.LEGACY)(netns, family, "-t", "raw", "-A", "PREROUTING", "-j", "ACCEPT")
    before = state(netns)
    command = [sys.executable, "-c", PARENT, netns, new_session(), way]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "armed\n"
        send_over_lo(netns, PacketFamily.IPV4, 2)
        assert "set connections" in run("nft", "list", "ruleset", netns=netns)
        assert state(netns) != before
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: state(netns) == before, what="the namespace as it was")


def state(netns: str) -> list[list[str]]:
    saved = [saved_raw(netns, Backend.LEGACY, family) for family in PacketFamily]
    rules = [[line for line in lines if not line.startswith(":")] for lines in saved]
    return [[line.partition("] ")[2] for line in lines] for lines in rules] + [nft_tables(netns)]


# ------------------------------------------------------------------ a flow behind NAT


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_leg_behind_dnat_is_known_by_its_source_port(
    pair: Pair, watches: Watches, family: PacketFamily, listen: Listeners, protocol: str
) -> None:
    """The probe was sent to another address and port; here it comes in rewritten."""
    listen(pair.server.netns, pair.server.address(family), 8443, protocol)
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    to = (pair.server.address(family), 8443)
    with pair.client.socket(AF[family], kind) as client:
        client.bind((pair.client.address(family), 0))
        port = client.getsockname()[1]
        flow = Flow(family, protocol, "203.0.113.1", AWAY[family], port, 443)
        watch = watches.start(pair.server.netns, "", **leg(flow))
        if protocol == "tcp":
            connect_and_reset(pair.client, family, *to)
        client.settimeout(5)
        client.connect(to)
        if protocol == "udp":
            client.send(b"probe")
        hits = watch.disarm().hits
    assert hits == (1 if protocol == "udp" else 3), "the other connection is not traced"


def test_echo_behind_dnat_is_known_by_its_id(
    pair: Pair, watches: Watches, family: PacketFamily
) -> None:
    name = "icmp" if family is PacketFamily.IPV4 else "icmp6"
    flow = Flow(family, name, "203.0.113.1", AWAY[family], icmp_id=4242)
    watch = watches.start(pair.server.netns, "", **leg(flow))
    for echo_id in (4242, 4243):
        echo(pair.client, family, pair.server.address(family), echo_id)
    assert watch.disarm().hits == 2, "request and reply"


def leg(flow: Flow) -> dict[str, object]:
    """Return the options of a request for a flow in a later namespace."""
    return {
        "filter": None,
        "flow": flow,
        "hook": Hook.PREROUTING,
        "any_source": True,
        "any_destination": True,
    }


# ------------------------------------------------------------------ traffic over lo


def send_over_lo(netns: str, family: PacketFamily, packets: int) -> None:
    """Send datagrams to somebody who takes them: to a closed socket an ICMP error would answer."""
    with ExitStack() as stack:
        here = Endpoint(netns, "127.0.0.1", "::1")
        ends = [stack.enter_context(here.socket(AF[family], socket.SOCK_DGRAM)) for _ in range(2)]
        ends[0].bind((LOOPBACK[family], 0))
        ends[0].settimeout(5)
        for _ in range(packets):
            ends[1].sendto(b"ipttrace", ends[0].getsockname()[:2])
            ends[0].recv(16)


def talk_over_lo(netns: str, family: PacketFamily) -> None:
    """Send a datagram to port 8445 and one back."""
    here = Endpoint(netns, "127.0.0.1", "::1")
    with (
        here.socket(AF[family], socket.SOCK_DGRAM) as server,
        here.socket(AF[family], socket.SOCK_DGRAM) as client,
    ):
        server.bind((LOOPBACK[family], 8445))
        server.settimeout(5)
        client.sendto(b"question", (LOOPBACK[family], 8445))
        server.sendto(b"answer", server.recvfrom(16)[1])
