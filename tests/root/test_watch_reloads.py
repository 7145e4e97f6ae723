"""A watch goes on when its rules are taken away or others are needed, and counts what it missed."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ipttrace.netfilter import Backend, PacketFamily, TableFamily
from ipttrace.path import Outcome, PacketPath
from ipttrace.system.namespaces import Namespace
from tests.root.kernel import Iptables, Pair, run, unique_name
from tests.root.watching import Watching
from tests.waiting import SLOW, wait_until

IPTTRACE = str(Path(sys.executable).with_name("ipttrace"))
V4 = PacketFamily.IPV4
PORT = 8445
FILTER = f"udp dst port {PORT}"
EMPTY_RAW = "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
GONE = "our TRACE rules were gone, or others stood before them"


@pytest.fixture(autouse=True)
def taken(pair: Pair) -> Iterator[None]:
    """Somebody takes what is sent: no ICMP errors come of it."""
    with pair.server.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((pair.server.ipv4, PORT))
        yield


@dataclass
class Sender:
    """Sends datagrams all the time."""

    sent: int = 0


@contextmanager
def stream(pair: Pair) -> Iterator[Sender]:
    stop, sender = threading.Event(), Sender()

    def run() -> None:
        with pair.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            while not stop.wait(0.002):
                opened.sendto(b"x", (pair.server.ipv4, PORT))
                sender.sent += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield sender
    finally:
        stop.set()
        thread.join()


def send(pair: Pair) -> None:
    with pair.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", (pair.server.ipv4, PORT))


def warnings(watching: Watching) -> tuple[str, ...]:
    assert watching.result is not None
    return watching.result.warnings


def untraced(watching: Watching) -> int:
    """Return how many packets it says that it missed."""
    found = re.search(r"([\d,]+) packets? (was|were) not traced", " ".join(warnings(watching)))
    return int(found[1].replace(",", "")) if found else 0


def begins_anew(watching: Watching, reason: str) -> None:
    """Wait until the watch has armed anew for a reason, and knows its new rules."""

    def has_begun() -> bool:
        session = watching._session
        assert session is not None
        tracers = session._tracers.values()
        known = all(not tracer._is_recounting for tracer in tracers)
        return known and any(reason in each for each in session.so_far().warnings)

    wait_until(has_begun, 20, what=reason)


def hops(path: PacketPath) -> list[tuple[Backend, TableFamily, str, str]]:
    chains = [hop.chain for hop in path.chain_hops]
    return [(each.backend, each.table_family, each.table, each.chain) for each in chains]


def flush(pair: Pair, backend: Backend) -> None:
    pair.server.run(f"iptables-{backend}-restore", stdin=EMPTY_RAW)


def flush_all(pair: Pair, backend: Backend) -> None:
    """What `systemctl reload nftables` does."""
    pair.server.run("nft", "-f", "-", stdin="flush ruleset\ntable inet f {}\n")


def drop_before(pair: Pair, backend: Backend) -> None:
    Iptables(backend)(pair.server.netns, V4, "-t", "raw", "-I", "PREROUTING", "-j", "ACCEPT")


@pytest.mark.parametrize(
    ("backend", "disturb"),
    [
        (Backend.LEGACY, flush),
        (Backend.NFT, flush),
        (Backend.NFT, flush_all),
        (Backend.LEGACY, drop_before),
        (Backend.NFT, drop_before),
    ],
)
def test_every_packet_is_traced_or_counted_where_our_rules_are_taken_away(
    pair: Pair, backend: Backend, disturb: object
) -> None:
    Iptables(backend)(pair.server.netns, V4, "-A", "INPUT", "-p", "udp", "-j", "ACCEPT")
    watching = Watching(pair.server.netns, FILTER)
    with watching:
        with stream(pair) as sender:
            watching.wait_for(50)
            disturb(pair, backend)  # type: ignore[operator]
            begins_anew(watching, GONE)
            watching.wait_for(len(watching.paths) + 200)
        watching.wait_for(sender.sent - sender.sent // 2)
    assert len(watching.paths) + untraced(watching) == sender.sent, warnings(watching)
    assert untraced(watching) < sender.sent / 2
    assert {path.outcome for path in watching.paths} == {Outcome.DELIVERED}
    result = watching.result
    assert result is not None
    assert result.totals.hits == result.totals.packets
    assert result.clean
    assert any(GONE in each and ", once, at " in each for each in result.warnings)


def test_the_trigger_of_the_other_engine_stays(pair: Pair) -> None:
    for backend in Backend:
        Iptables(backend)(pair.server.netns, V4, "-A", "INPUT", "-p", "udp", "-j", "ACCEPT")
    watching = Watching(pair.server.netns, FILTER)
    with watching:
        with stream(pair) as sender:
            watching.wait_for(50)
            flush(pair, Backend.LEGACY)
            begins_anew(watching, GONE)
            watching.wait_for(len(watching.paths) + 100)
        watching.wait_for(sender.sent)
    assert (len(watching.paths), untraced(watching)) == (sender.sent, 0)


def test_tables_of_the_other_engine_are_shown_from_when_they_come(pair: Pair) -> None:
    Iptables(Backend.NFT)(pair.server.netns, V4, "-A", "INPUT", "-p", "udp", "-j", "ACCEPT")
    watching = Watching(pair.server.netns, FILTER)
    with watching:
        send(pair)
        watching.wait_for(1)
        Iptables(Backend.LEGACY)(pair.server.netns, V4, "-A", "INPUT", "-p", "udp", "-j", "ACCEPT")
        begins_anew(watching, "rules of iptables-legacy came into use")
        send(pair)
        watching.wait_for(2)
    before, after = watching.paths
    legacy = (Backend.LEGACY, TableFamily.IP, "filter", "INPUT")
    assert legacy not in hops(before)
    assert legacy in hops(after)
    assert after.outcome is Outcome.DELIVERED
    (told,) = [each for each in warnings(watching) if "tracing began anew" in each]
    assert re.search(r"for \d+ ms nothing was traced or counted", told)


def test_chains_before_raw_are_shown_from_when_they_come(pair: Pair) -> None:
    watching = Watching(pair.server.netns, FILTER)
    with watching:
        early = f"chain p {{ type filter hook prerouting priority -500; udp dport {PORT} drop; }}\n"
        pair.server.run("nft", "-f", "-", stdin=f"table inet early {{\n{early}}}\n")
        begins_anew(watching, "chains came that packets meet before raw")
        send(pair)
        watching.wait_for(1)
    (path,) = watching.paths
    assert hops(path) == [(Backend.NFT, TableFamily.INET, "early", "p")]
    assert path.outcome is Outcome.DROPPED


def test_connections_are_followed_from_when_they_are_tracked(pair: Pair) -> None:
    """What NAT makes of the answer no filter matches: only the connection tells."""
    nft = Iptables(Backend.NFT)
    watching = Watching(pair.server.netns, f"tcp dst port {PORT}")
    with watching, pair.server.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((pair.server.ipv4, 8443))
        listener.listen()
        redirect = ("--dport", str(PORT), "-j", "REDIRECT", "--to-ports", "8443")
        nft(pair.server.netns, V4, "-t", "nat", "-A", "PREROUTING", "-p", "tcp", *redirect)
        begins_anew(watching, "connections are tracked now")
        with pair.client.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.connect((pair.server.ipv4, PORT))
            watching.wait_for(3)
    flags = [path.packet.tcp_flags for path in watching.paths[:3]]
    assert flags == [("SYN",), ("SYN", "ACK"), ("ACK",)]


def test_an_interface_that_comes_during_a_watch_is_called_by_its_name(pair: Pair) -> None:
    netns = pair.server.netns
    watching = Watching(netns, FILTER)
    with watching:
        # Linux before 6.2 renames no interface that is up (dev_change_name).
        pair.server.run("ip", "link", "set", pair.server.interface, "down")
        pair.server.run("ip", "link", "set", pair.server.interface, "name", "renamed", "up")
        watched = watching._session
        assert watched is not None
        (tracer,) = watched._tracers.values()
        wait_until(
            lambda: "renamed" in tracer.correlator._interfaces.names.values(), what="the new name"
        )
        send(pair)
        watching.wait_for(1)
    assert [path.in_interface for path in watching.paths] == ["renamed"]
    assert warnings(watching) == ()


@contextmanager
def another_network() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a network namespace of its own, as a container's is."""
    whole = ["unshare", "-n", "sh", "-c", "ip link set lo up; exec cat"]
    with subprocess.Popen(whole, stdin=subprocess.PIPE) as process:
        try:
            here = Path("/proc/self/ns/net").stat().st_ino
            there = Path(f"/proc/{process.pid}/ns/net")
            wait_until(lambda: there.stat().st_ino != here, what="it has left for its own")
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("kind", ["name", "process"])
def test_a_watch_ends_in_good_order_when_what_it_watches_is_gone(kind: str) -> None:
    with another_network() as process:
        name = str(process.pid)
        if kind == "name":
            name = unique_name("gone")
            run("ip", "netns", "attach", name, str(process.pid))
        words = [IPTTRACE, "watch", "--netns", name, "--for", "1h", "--json", "udp"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watch:
            try:
                inside = Namespace(name, Path(f"/proc/{process.pid}/ns/net"))
                wait_until(lambda: has_trigger(inside), 20, what="armed")
                inside.run(lambda: subprocess.run(["nft", "add", "table", "ip", "t"], check=True))
                if kind == "name":
                    run("ip", "netns", "del", name)
                else:
                    process.kill()
                out, err = watch.communicate(timeout=30 * SLOW)
            finally:
                watch.kill()
    assert watch.returncode == 0, err
    summary = json.loads(out.splitlines()[-1])
    assert summary["clean"]
    assert any(
        f"namespace {name} was deleted, or its process ended, at " in each
        for each in summary["warnings"]
    )


def has_trigger(inside: Namespace) -> bool:
    saved = inside.run(
        lambda: subprocess.run(["ip6tables-nft-save"], capture_output=True, check=True)
    )
    return b"-j TRACE" in saved.stdout
