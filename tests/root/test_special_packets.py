"""Packets that are not one frame from wire to socket, on the real kernel: each has its right path.

Each chain of mangle has one rule that matches the packets of the test, so that a path's rules tell
which hooks the packet met, in order.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

import pytest

from ipttrace.event import TraceKind
from ipttrace.netfilter import Backend, PacketFamily
from ipttrace.path import Outcome, PacketPath
from ipttrace.request import Trigger
from tests.root.kernel import (
    Endpoint,
    Iptables,
    Listeners,
    Namespaces,
    Pair,
    in_namespace,
    run,
    set_sysctl,
)
from tests.root.mixed_traffic import AF, know_each_other
from tests.root.routed import build_routed
from tests.root.watching import Watching, of_protocol

V4, V6 = PacketFamily.IPV4, PacketFamily.IPV6
CHAINS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
RECEIVED = ["PREROUTING", "INPUT"]
SENT = ["OUTPUT", "POSTROUTING"]
PORT = 5000
LARGE = 4000
"""Bytes of a datagram that needs three frames."""
IP_HEADER = {V4: 20, V6: 40}
LEVEL = {V4: socket.IPPROTO_IP, V6: socket.IPPROTO_IPV6}

Engine = tuple[Backend, ...]
ENGINES: tuple[Engine, ...] = ((Backend.LEGACY,), (Backend.NFT,), tuple(Backend))


@pytest.fixture(params=ENGINES, ids=["legacy", "nft", "both"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Rules in either backend, and in both at once."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def known(pair: Pair) -> Pair:
    """A pair whose ends need not ask for each other's hardware address."""
    know_each_other(pair)
    return pair


def program(backend: Backend, family: PacketFamily) -> str:
    return f"{'iptables' if family is V4 else 'ip6tables'}-{backend}-restore"


def watch_hooks(netns: str, engine: Iterable[Backend], family: PacketFamily, *match: str) -> None:
    """Put a rule that matches `match` into each chain of mangle."""
    rules = "".join(f"-A {chain} {' '.join(match)}\n" for chain in CHAINS)
    for backend in engine:
        run(program(backend, family), "-n", netns=netns, stdin=f"*mangle\n{rules}COMMIT\n")


def hooks(path: PacketPath) -> list[str]:
    """Return the hooks whose rule in mangle the packet met; two backends' as one."""
    rules = [hop for hop in path.chain_hops if hop.event is TraceKind.RULE]
    met = [str(hop.hook) for hop in rules if hop.chain.table == "mangle"]
    return [hook for place, hook in enumerate(met) if met[place - 1 : place] != [hook]]


def ways(paths: Iterable[PacketPath]) -> list[tuple[list[str], Outcome]]:
    return [(hooks(path), path.outcome) for path in paths]


def backends(path: PacketPath) -> set[str]:
    return {str(hop.chain.backend) for hop in path.chain_hops}


def complete(watching: Watching, packets: int) -> bool:
    """Tell whether that many packets were seen to their ends, none of them doubtful."""
    result = watching.result
    assert result is not None
    assert not any(path.ambiguous for path in watching.paths)
    assert (result.warnings, result.totals.lost_events, watching.notes) == ((), 0, [])
    return (result.totals.packets, result.totals.complete) == (packets, packets)


def datagram(end: Endpoint, family: PacketFamily) -> socket.socket:
    opened = end.socket(AF[family], socket.SOCK_DGRAM)
    opened.bind((end.address(family), 0))
    opened.settimeout(5)
    return opened


# ------------------------------------------------------------------ fragments


def send_large(pair: Pair, family: PacketFamily, listen: Listeners) -> None:
    """Send a datagram in three fragments, and return when it was received as one."""
    to = pair.server.address(family)
    receiver = listen(pair.server.netns, to, PORT, "udp")
    receiver.settimeout(5)
    with datagram(pair.client, family) as sender:
        sender.sendto(bytes(range(250)) * (LARGE // 250), (to, PORT))
        assert len(receiver.recv(LARGE + 1)) == LARGE


def large_from(pair: Pair, family: PacketFamily) -> str:
    """Return a filter that takes all fragments of the datagram: only the first has ports."""
    if family is V4:
        return f"ip proto 17 and src {pair.client.ipv4}"
    return f"ip6 src {pair.client.ipv6} and not icmp6"


def test_each_fragment_has_its_own_path(
    known: Pair, engine: Engine, family: PacketFamily, listen: Listeners
) -> None:
    """IPv4 joins them behind PREROUTING, IPv6 behind INPUT: there each is seen to the end."""
    watch_hooks(known.server.netns, engine, family, "-s", known.client.address(family))
    with Watching(known.server.netns, large_from(known, family)) as watching:
        send_large(known, family, listen)
    later = RECEIVED if family is V6 else ["PREROUTING"]
    assert ways(watching.paths) == [
        (RECEIVED, Outcome.DELIVERED),
        (later, Outcome.DELIVERED),
        (later, Outcome.DELIVERED),
    ]
    assert [backends(path) for path in watching.paths] == [set(engine)] * 3
    assert complete(watching, 3)
    payloads = [path.packet.length - IP_HEADER[family] for path in watching.paths]
    assert sum(payloads) == LARGE + 8 + (8 * 3 if family is V6 else 0)


def test_the_offset_of_each_fragment_is_known_where_legacy_reports(
    known: Pair, family: PacketFamily, listen: Listeners
) -> None:
    """Both backends: nft alone does not tell an IPv6 fragment's offset."""
    watch_hooks(known.server.netns, Backend, family, "-s", known.client.address(family))
    with Watching(known.server.netns, large_from(known, family)) as watching:
        send_large(known, family, listen)
    packets = [path.packet for path in watching.paths]
    size = {V4: 1480, V6: 1448}[family]
    assert [packet.fragment_offset for packet in packets] == [0, size, 2 * size]
    assert [packet.dport for packet in packets] == [PORT, None, None]
    assert {packet.protocol for packet in packets} == {"udp"}


def test_what_connection_tracking_joined_is_one_packet(
    known: Pair, engine: Engine, family: PacketFamily, listen: Listeners
) -> None:
    netns = known.server.netns
    watch_hooks(netns, engine, family, "-s", known.client.address(family))
    tracking = ("-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT")
    Iptables(engine[0])(netns, family, "-A", "INPUT", *tracking)
    with Watching(netns, large_from(known, family)) as watching:
        send_large(known, family, listen)
    assert ways(watching.paths) == [(RECEIVED, Outcome.DELIVERED)]
    assert complete(watching, 1)
    (path,) = watching.paths
    assert (path.packet.dport, path.packet.length > LARGE) == (PORT, True)
    assert not path.packet.more_fragments


def test_fragments_share_the_fate_of_the_whole(
    known: Pair, backend: Backend, iptables: Iptables
) -> None:
    netns = known.server.netns
    watch_hooks(netns, (backend,), V4, "-p", "udp")
    iptables(netns, V4, "-A", "INPUT", "-p", "udp", "--dport", str(PORT), "-j", "REJECT")
    with Watching(netns, large_from(known, V4)) as watching, datagram(known.client, V4) as sender:
        sender.connect((known.server.ipv4, PORT))
        sender.send(bytes(LARGE))
        with pytest.raises(ConnectionRefusedError):
            sender.recv(1)
    datagrams = of_protocol(watching.paths, "udp")
    assert [path.outcome for path in datagrams] == [Outcome.REJECTED] * 3


EARLY = """table inet early {
    chain p {
        type filter hook prerouting priority -500
        tcp dport 1 drop
    }
}
"""


@pytest.mark.parametrize("way", ["raw", "owner", "early", "early, tracked"])
def test_later_fragments_are_known_by_the_first(
    known: Pair, iptables: Iptables, listen: Listeners, way: str
) -> None:
    """Only the first has ports; others from the same sender are left alone."""
    netns = known.server.netns
    iptables(netns, V4, "-A", "INPUT", "-p", "udp", "-j", "ACCEPT")
    if way.startswith("early"):
        run("nft", "-f", "-", netns=netns, stdin=EARLY)
    if way.endswith("tracked"):
        iptables(netns, V4, "-I", "INPUT", "-m", "conntrack", "--ctstate", "NEW")
    trigger = Trigger.OWNER if way == "owner" else Trigger.RAW
    with Watching(netns, f"udp dst port {PORT}", trigger) as watching:
        with datagram(known.client, V4) as sender:
            sender.sendto(bytes(LARGE), (known.server.ipv4, PORT + 1))
        send_large(known, V4, listen)
        watching.wait_for(3)
    offsets = [path.packet.fragment_offset for path in watching.paths]
    assert offsets == [0, 1480, 2960]
    assert {path.outcome for path in watching.paths} == {Outcome.DELIVERED}
    assert complete(watching, 3)


# ------------------------------------------------------------------ extension headers


def test_packets_with_extension_headers(known: Pair, engine: Engine, listen: Listeners) -> None:
    """Two of one length: only the ports and the payload tell them apart."""
    from scapy.layers.inet import UDP
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop

    client, server = known.client, known.server
    watch_hooks(server.netns, engine, V6, "-d", server.ipv6)
    receiver = listen(server.netns, server.ipv6, PORT, "udp")
    receiver.settimeout(5)
    head = IPv6(src=client.ipv6, dst=server.ipv6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt()
    with (
        Watching(server.netns, f"dst {server.ipv6} and not icmp6") as watching,
        client.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender,
    ):
        for number in (1, 2):
            packet = head / UDP(sport=4000 + number, dport=PORT) / f"hello {number}".encode()
            sender.sendto(bytes(packet), (server.ipv6, 0))
            assert receiver.recv(99) == f"hello {number}".encode()
    assert ways(watching.paths) == [(RECEIVED, Outcome.DELIVERED)] * 2
    assert [backends(path) for path in watching.paths] == [set(engine)] * 2
    assert complete(watching, 2)
    if Backend.LEGACY in engine:
        assert [path.packet.sport for path in watching.paths] == [4001, 4002]
    else:
        assert {path.packet.protocol for path in watching.paths} == {"0"}


# ------------------------------------------------------------------ GSO


def test_a_packet_of_many_segments_is_one(
    known: Pair, backend: Backend, family: PacketFamily, listen: Listeners
) -> None:
    server = known.server
    watch_hooks(server.netns, (backend,), family, "-p", "tcp", "--dport", str(PORT))
    listener = listen(server.netns, server.address(family), PORT)
    with known.client.socket(AF[family], socket.SOCK_STREAM) as client:
        client.connect((server.address(family), PORT))
        accepted, _ = listener.accept()
        with accepted, Watching(server.netns, f"tcp dst port {PORT}") as watching:
            accepted.settimeout(5)
            client.sendall(bytes(60_000))
            received = 0
            while received < 60_000:
                received += len(accepted.recv(65536))
    data = [path for path in watching.paths if path.packet.length > 100]
    assert ways(data) == [(RECEIVED, Outcome.DELIVERED)] * len(data)
    headers = IP_HEADER[family] + 32
    assert sum(path.packet.length - headers for path in of_protocol(data, "tcp")) == 60_000
    assert max(path.packet.length for path in data) > 1500
    assert complete(watching, len(watching.paths))


# ------------------------------------------------------------------ copies


GROUP = {V4: "224.0.0.251", V6: "ff02::fb"}


def join_group(end: Endpoint, family: PacketFamily, opened: socket.socket) -> None:
    group = socket.inet_pton(AF[family], GROUP[family])
    if family is V4:
        here = socket.inet_aton(end.ipv4)
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + here)
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)
        return
    index = in_namespace(end.netns).run(lambda: socket.if_nametoindex(end.interface))
    packed = index.to_bytes(4, "little")
    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + packed)
    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)


def test_multicast_goes_out_and_a_copy_comes_back(
    known: Pair, engine: Engine, family: PacketFamily
) -> None:
    end = known.server
    watch_hooks(end.netns, engine, family, "-p", "udp")
    with end.socket(AF[family], socket.SOCK_DGRAM) as member:
        member.bind(("", PORT))
        member.settimeout(5)
        join_group(end, family, member)
        with Watching(end.netns, f"udp port {PORT}") as watching:
            member.sendto(b"to all", (GROUP[family], PORT))
            assert member.recv(9) == b"to all"
    assert ways(watching.paths) == [
        (SENT, Outcome.SENT),
        (["POSTROUTING", *RECEIVED], Outcome.DELIVERED),
    ]
    assert [backends(path) for path in watching.paths] == [set(engine)] * 2
    assert complete(watching, 2)


def test_broadcast_goes_out_and_a_copy_comes_back(known: Pair, engine: Engine) -> None:
    end = known.server
    watch_hooks(end.netns, engine, V4, "-p", "udp")
    with end.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("", PORT))
        opened.settimeout(5)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        with Watching(end.netns, f"udp port {PORT}") as watching:
            opened.sendto(b"to all", ("198.51.100.255", PORT))
            assert opened.recv(9) == b"to all"
    assert ways(watching.paths) == [
        (SENT, Outcome.SENT),
        (["POSTROUTING", *RECEIVED], Outcome.DELIVERED),
    ]
    assert complete(watching, 2)


def test_multicast_that_is_received_is_an_ordinary_packet(known: Pair, backend: Backend) -> None:
    watch_hooks(known.server.netns, (backend,), V4, "-p", "udp")
    with known.server.socket(socket.AF_INET, socket.SOCK_DGRAM) as member:
        member.bind(("", PORT))
        member.settimeout(5)
        join_group(known.server, V4, member)
        with (
            Watching(known.server.netns, f"udp port {PORT}") as watching,
            datagram(known.client, V4) as sender,
        ):
            here = socket.inet_aton(known.client.ipv4)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)
            sender.sendto(b"to all", (GROUP[V4], PORT))
            assert member.recv(9) == b"to all"
    assert ways(watching.paths) == [(RECEIVED, Outcome.DELIVERED)]
    assert watching.paths[0].in_interface == known.server.interface


def test_a_copy_by_tee_is_its_own_packet_and_the_original_goes_on(
    known: Pair, engine: Engine, family: PacketFamily, listen: Listeners
) -> None:
    netns, to = known.server.netns, known.server.address(family)
    watch_hooks(netns, engine, family, "-p", "udp")
    tee = ("-j", "TEE", "--gateway", known.client.address(family))
    Iptables(engine[0])(netns, family, "-t", "mangle", "-I", "PREROUTING", "-p", "udp", *tee)
    receiver = listen(netns, to, PORT, "udp")
    receiver.settimeout(5)
    with Watching(netns, f"udp port {PORT}") as watching, datagram(known.client, family) as sender:
        sender.sendto(b"twice", (to, PORT))
        assert receiver.recv(9) == b"twice"
    assert ways(watching.paths) == [(RECEIVED, Outcome.DELIVERED), (SENT, Outcome.SENT)]
    original, copy = watching.paths
    assert (original.in_interface, copy.out_interface) == (known.server.interface,) * 2
    assert complete(watching, 2)


# ------------------------------------------------------------------ packets that rules make


def refused(end: Endpoint, family: PacketFamily, to: str, kind: int) -> None:
    """Ask `to`, and return when the refusal has come."""
    with end.socket(AF[family], kind) as client:
        client.settimeout(5)
        if kind == socket.SOCK_STREAM:
            assert client.connect_ex((to, PORT)) == errno.ECONNREFUSED
            return
        client.connect((to, PORT))
        client.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(1)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_what_reject_sends_is_born_inside_another_packets_walk(
    known: Pair, backend: Backend, family: PacketFamily, iptables: Iptables, protocol: str
) -> None:
    netns = known.server.netns
    for match in ("tcp", "udp", "icmp" if family is V4 else "icmpv6"):
        watch_hooks(netns, (backend,), family, "-p", match)
    way = ("--reject-with", "tcp-reset") if protocol == "tcp" else ()
    iptables(netns, family, "-A", "INPUT", "-p", protocol, "-j", "REJECT", *way)
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    unreachable = "icmp[0] = 3" if family is V4 else "icmp6 and ip6[40] = 1"
    with Watching(netns, f"port {PORT} or ({unreachable})") as watching:
        refused(known.client, family, known.server.address(family), kind)
    assert ways(watching.paths) == [(RECEIVED, Outcome.REJECTED), (SENT, Outcome.SENT)]
    asked, answer = watching.paths
    assert (asked.packet.src, asked.packet.dst) == (answer.packet.dst, answer.packet.src)
    if protocol == "tcp":
        assert answer.packet.tcp_flags == ("RST", "ACK")
    else:
        assert answer.packet.icmp is not None
        assert answer.packet.icmp.type == (3 if family is V4 else 1)
    assert complete(watching, 2)


def test_synproxy_takes_the_handshake_and_makes_its_own(
    known: Pair, backend: Backend, family: PacketFamily, iptables: Iptables, listen: Listeners
) -> None:
    server = known.server
    netns, here = server.netns, ("-p", "tcp", "--dport", str(PORT))
    watch_hooks(netns, (backend,), family, "-p", "tcp")
    listener = listen(netns, server.address(family), PORT)
    iptables(
        netns, family, "-t", "raw", "-A", "PREROUTING", *here, "--syn", "-j", "CT", "--notrack"
    )
    state = ("-m", "conntrack", "--ctstate", "INVALID,UNTRACKED")
    proxy = ("-j", "SYNPROXY", "--sack-perm", "--timestamp", "--wscale", "7", "--mss", "1460")
    iptables(netns, family, "-A", "INPUT", *here, *state, *proxy)
    set_sysctl(netns, "net/netfilter/nf_conntrack_tcp_loose", "0")
    listener.settimeout(5)
    with (
        Watching(netns, f"tcp port {PORT}") as watching,
        known.client.socket(AF[family], socket.SOCK_STREAM) as client,
    ):
        client.settimeout(5)
        client.connect((server.address(family), PORT))
        listener.accept()[0].close()
    syn, answer, ack, own = watching.paths[:4]
    assert [hop.verdict for hop in syn.chain_hops][-1] == "STOLEN"
    assert ways([syn, answer, ack]) == [
        (RECEIVED, Outcome.DELIVERED),
        (SENT, Outcome.SENT),
        (RECEIVED, Outcome.DELIVERED),
    ]
    assert (syn.packet.tcp_flags, answer.packet.tcp_flags) == (("SYN",), ("SYN", "ACK"))
    assert ack.packet.tcp_flags == ("ACK",)
    assert (own.packet.tcp_flags, own.in_interface) == (("SYN",), None)
    assert ways([own]) == [([*SENT, *RECEIVED], Outcome.DELIVERED)]


def test_a_closed_port_and_the_error_about_it(
    known: Pair, backend: Backend, family: PacketFamily
) -> None:
    netns = known.server.netns
    for match in ("udp", "icmp" if family is V4 else "icmpv6"):
        watch_hooks(netns, (backend,), family, "-p", match)
    unreachable = "icmp[0] = 3" if family is V4 else "icmp6 and ip6[40] = 1"
    with Watching(netns, f"udp port {PORT} or ({unreachable})") as watching:
        refused(known.client, family, known.server.address(family), socket.SOCK_DGRAM)
    assert ways(watching.paths) == [(RECEIVED, Outcome.REFUSED), (SENT, Outcome.SENT)]
    quoted = watching.paths[1].packet.quoted
    if backend is Backend.LEGACY:
        assert quoted is not None
        assert quoted.flow == watching.paths[0].packet.flow
    else:
        assert quoted is None, "nft shows 20 bytes of the error"


# ------------------------------------------------------------------ time


def test_ttl_that_runs_out_at_a_router(
    namespaces: Namespaces, backend: Backend, family: PacketFamily, listen: Listeners
) -> None:
    """ip_forward and ip6_forward look at it before FORWARD; the error is made in OUTPUT."""
    routed = build_routed(namespaces)
    listen(routed.backend.netns, routed.backend.address(family), PORT, "udp")
    for match in ("udp", "icmp" if family is V4 else "icmpv6"):
        watch_hooks(routed.netns, (backend,), family, "-p", match)
    exceeded = "icmp[0] = 11" if family is V4 else "icmp6 and ip6[40] = 3"
    option, errors = (
        (socket.IP_TTL, 11) if family is V4 else (socket.IPV6_UNICAST_HOPS, 25)
    )  # IP_RECVERR and IPV6_RECVERR: uapi/linux/in.h, in6.h
    with (
        Watching(routed.netns, f"udp port {PORT} or ({exceeded})") as watching,
        datagram(routed.client, family) as sender,
    ):
        sender.setsockopt(LEVEL[family], errors, 1)
        sender.connect((routed.backend.address(family), PORT))
        for ttl in (2, 1):
            sender.setsockopt(LEVEL[family], option, ttl)
            sender.send(b"far")
        with pytest.raises(OSError, match="No route to host"):
            sender.recv(1)
    through, expired, error = watching.paths
    assert ways([through, expired, error]) == [
        (["PREROUTING", "FORWARD", "POSTROUTING"], Outcome.FORWARDED),
        (["PREROUTING"], Outcome.DROPPED),
        (SENT, Outcome.SENT),
    ]
    assert expired.diagnosis is not None
    assert expired.diagnosis.cause == "ttl-exceeded"
    last = through.last_packet
    assert last is not None
    assert (through.packet.ttl, last.ttl, expired.packet.ttl) == (2, 1, 1)
    assert error.packet.dst == routed.client.address(family)


def test_a_retransmission_is_another_packet(
    known: Pair, backend: Backend, family: PacketFamily, iptables: Iptables
) -> None:
    netns = known.server.netns
    iptables(netns, family, "-A", "INPUT", "-p", "tcp", "-j", "DROP")
    with known.client.socket(AF[family], socket.SOCK_STREAM) as client:
        client.setblocking(False)  # noqa: FBT003 - its only argument
        with Watching(netns, f"tcp dst port {PORT}") as watching:
            client.connect_ex((known.server.address(family), PORT))
            watching.wait_for(2)
    first, second = watching.paths
    assert [first.outcome, second.outcome] == [Outcome.DROPPED] * 2
    assert first.packet.tcp_seq == second.packet.tcp_seq
    assert first.journey != second.journey
    assert complete(watching, 2)
