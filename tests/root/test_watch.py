"""`ipttrace watch` on live traffic of many kinds: exactly the packets that tcpdump counts."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ipttrace.netfilter import Backend, PacketFamily
from ipttrace.path import Outcome, Role
from ipttrace.request import Trigger
from tests.root.kernel import Iptables, Namespaces, Pair
from tests.root.mixed_traffic import AF, Mixed, Sniffer, flood, know_each_other
from tests.root.routed import build_routed
from tests.root.trial import SCHEMA
from tests.root.watching import Watching, of_protocol
from tests.waiting import SLOW, wait_until

IPTTRACE = str(Path(sys.executable).with_name("ipttrace"))
STATEFUL = ("-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "ACCEPT")
HOPS = (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
TRACKED = "tcp dst port 8445 or tcp dst port 22"


def add_rules(pair: Pair, backend: Backend, *, tracked: bool) -> None:
    """Give every packet a rule to meet, on its way in and out."""
    for family in PacketFamily:
        iptables = Iptables(backend)
        for chain in ("INPUT", "OUTPUT"):
            iptables(pair.server.netns, family, "-A", chain, "-j", "ACCEPT")
        if tracked:
            iptables(pair.server.netns, family, *STATEFUL)


@pytest.mark.parametrize(
    ("text", "counted", "packets", "trigger"),
    [
        ("tcp port 8445", "tcp port 8445", 8, Trigger.OWNER),
        ("host 198.51.100.2 and not port 22", "host 198.51.100.2 and not port 22", 12, Trigger.RAW),
        ("tcp or udp or icmp", "tcp or udp or icmp", 32, Trigger.OWNER),
        ("udp and dst port 53", "udp and port 53", 12, Trigger.RAW),
        (TRACKED, "tcp", 16, Trigger.RAW),
        (TRACKED, "tcp", 16, Trigger.OWNER),
    ],
    ids=["port", "host", "broad", "answers", "tracked, raw", "tracked, owner"],
)
def test_the_packets_are_those_that_tcpdump_counts(
    pair: Pair, backend: Backend, text: str, counted: str, packets: int, trigger: Trigger
) -> None:
    """What answers those that the filter takes, and the rest of their connections, is shown too."""
    add_rules(pair, backend, tracked=text == TRACKED)
    watching = Watching(pair.server.netns, text, trigger)
    with Mixed(pair) as traffic, closing(Sniffer(pair.server, counted)) as sniffer:
        with watching:
            traffic.send()
            wait_until(lambda: sniffer.seen() >= packets, what=f"{packets} of {counted}")
            watching.wait_for(packets)
        assert len(watching.paths) == sniffer.seen() == packets
    assert {path.outcome for path in watching.paths} <= {Outcome.DELIVERED, Outcome.SENT}
    assert {path.role for path in watching.paths} == {Role.OBSERVED}
    result = watching.result
    assert result is not None
    assert (result.totals.hits, result.totals.packets, result.totals.complete) == (packets,) * 3
    assert (result.warnings, result.clean) == ((), True)


def test_what_nobody_takes_is_refused(pair: Pair, backend: Backend) -> None:
    add_rules(pair, backend, tracked=False)
    watching = Watching(pair.server.netns, "tcp port 81 or udp port 9 or icmp")
    with watching:
        with pair.client.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            assert client.connect_ex((pair.server.ipv4, 81)) == errno.ECONNREFUSED
        with pair.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"x", (pair.server.ipv4, 9))
        watching.wait_for(4)
    fates = [(path.packet.dport, path.outcome) for path in watching.paths if path.in_interface]
    assert fates == [(81, Outcome.REFUSED), (9, Outcome.REFUSED)]
    told = [path.diagnosis.summary for path in watching.paths if path.diagnosis]
    assert "this host answered with a TCP reset" in told[0]


@pytest.mark.parametrize("trigger", list(Trigger), ids=str)
@pytest.mark.parametrize("priority", [None, -500], ids=["usual", "early"])
def test_errors_about_packets_of_the_filter_are_traced_where_nothing_is_tracked(
    pair: Pair, trigger: Trigger, priority: int | None
) -> None:
    """The kernel's refusal quotes the datagram that it is about; what is about others is left."""
    if priority is not None:
        chain = f"chain c {{\ntype filter hook prerouting priority {priority}\ntcp dport 1 drop\n}}"
        pair.server.run("nft", "-f", "-", stdin=f"table inet early {{\n{chain}\n}}\n")
    know_each_other(pair)
    watching = Watching(pair.server.netns, "udp dst port 9", trigger)
    with watching:
        for family in PacketFamily:
            kind = socket.AF_INET if family is PacketFamily.IPV4 else socket.AF_INET6
            for port in (10, 9):
                with pair.client.socket(kind, socket.SOCK_DGRAM) as client:
                    client.sendto(b"x", (pair.server.address(family), port))
        watching.wait_for(4)
    met = [(path.packet.protocol, path.packet.dport, path.outcome) for path in watching.paths]
    assert met == [
        ("udp", 9, Outcome.REFUSED),
        ("icmp", None, Outcome.SENT),
        ("udp", 9, Outcome.REFUSED),
        ("icmp6", None, Outcome.SENT),
    ]
    assert watching.result is not None
    assert (watching.result.totals.hits, watching.result.warnings) == (4, ())


@pytest.mark.parametrize("trigger", list(Trigger), ids=str)
@pytest.mark.parametrize(("packets", "reached"), [(10, False), (40, True)], ids=["few", "many"])
def test_that_a_limit_was_reached_is_said(
    pair: Pair, backend: Backend, trigger: Trigger, packets: int, reached: bool
) -> None:
    add_rules(pair, backend, tracked=False)
    watching = Watching(pair.server.netns, "udp dst port 8445", trigger, limit=20)
    with watching:
        flood(pair.client, pair.server, packets)
        watching.wait_for(min(packets, 20))
    assert watching.result is not None
    left_out = packets - len(watching.paths)
    assert (left_out > 0) is reached
    others = (
        f"the limit of 20 packets/s was reached: {left_out} others came by that were not traced"
    )
    assert [others in each for each in watching.result.warnings] == [True] * reached


def test_a_limit_holds_where_both_engines_have_rules(pair: Pair) -> None:
    for backend in Backend:
        add_rules(pair, backend, tracked=False)
    watching = Watching(pair.server.netns, "udp dst port 8445", limit=20)
    with watching:
        flood(pair.client, pair.server, 60)
        watching.wait_for(20)
    assert watching.result is not None
    assert 20 <= len(watching.paths) <= 40
    assert watching.result.totals.hits == len(watching.paths)
    left_out = f"{60 - len(watching.paths)} others came by"
    assert any(left_out in each for each in watching.result.warnings)


# ------------------------------------------------------------------ the command itself


@contextmanager
def command(pair: Pair, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run `ipttrace watch` in the server's namespace; its block begins when it is armed."""
    whole = [IPTTRACE, "watch", "--netns", pair.server.netns, *words]
    with subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        try:
            wait_until(lambda: "-j TRACE" in saved(pair), 20, what="the trigger stands")
            yield run
        finally:
            run.kill()


def saved(pair: Pair) -> str:
    return Iptables(Backend.NFT).save(pair.server.netns, PacketFamily.IPV6)


def send(pair: Pair, process: subprocess.Popen[str]) -> tuple[str, str]:
    """Send datagrams until the command has ended; return what it said."""
    while process.poll() is None:
        flood(pair.client, pair.server, 5)
    return process.communicate()


def test_so_many_packets_are_shown_and_written_then_it_ends(pair: Pair, tmp_path: Path) -> None:
    add_rules(pair, Backend.NFT, tracked=False)
    file = tmp_path / "watch.jsonl"
    words = ("--for", "1h", "--count", "3", "--write", str(file), "udp dst port 8445")
    with command(pair, *words) as process:
        out, err = send(pair, process)
    assert process.returncode == 0
    assert "watching at most 20 packets/s for 3600 s; Ctrl-C ends it" in err
    assert "3 packets shown, complete" in err
    lines = [line for line in out.splitlines() if line]
    assert len(lines) == 3
    assert all("> 198.51.100.1:8445" in line and line.endswith("> let in") for line in lines)
    assert pair.server.netns not in out, "there is only one"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for record in records:
        SCHEMA.validate(record)
    assert [record["record"] for record in records] == ["path"] * 3 + ["summary"]
    assert (records[-1]["clean"], records[-1]["traced"]["packets"]) == (True, 3)
    assert "-j TRACE" not in saved(pair)


def test_hops_are_shown_on_demand(pair: Pair) -> None:
    add_rules(pair, Backend.NFT, tracked=False)
    with command(pair, "-v", "--count", "1", "udp dst port 8445") as process:
        out, _ = send(pair, process)
    assert process.returncode == 0
    assert next(line.split()[:3] for line in out.splitlines() if " INPUT " in line) == [
        "filter",
        "INPUT",
        "1",
    ]


def test_it_ends_by_itself(pair: Pair) -> None:
    add_rules(pair, Backend.NFT, tracked=False)
    with command(pair, "--for", "1s", "--json") as process:
        out, _ = process.communicate(timeout=30 * SLOW)
    assert process.returncode == 0
    (summary,) = [json.loads(line) for line in out.splitlines() if '"record":"summary"' in line]
    assert summary["clean"]
    assert 1 <= summary["seconds"] < 1 + 5 * SLOW


def test_who_refused_is_known_in_several_namespaces(pair: Pair) -> None:
    """Though the legs of the answer have other times than those at which they were read."""
    watching = Watching((pair.client.netns, pair.server.netns), "tcp port 81")
    with watching:
        for _ in range(5):
            with pair.client.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                assert client.connect_ex((pair.server.ipv4, 81)) == errno.ECONNREFUSED
        watching.wait_for(20)
    legs = [(path.netns, path.leg, path.outcome) for path in watching.paths]
    assert (
        legs
        == [
            (pair.client.netns, 1, Outcome.SENT),
            (pair.server.netns, 2, Outcome.REFUSED),
            (pair.server.netns, 1, Outcome.SENT),
            (pair.client.netns, 2, Outcome.DELIVERED),
        ]
        * 5
    )


@pytest.mark.parametrize("family", list(PacketFamily), ids=str)
def test_what_dies_in_routing_is_told_by_the_error_about_it(
    namespaces: Namespaces, backend: Backend, family: PacketFamily
) -> None:
    """Several at once from one sender: what is left of the quotation tells which it is about."""
    routed = build_routed(namespaces)
    Iptables(backend)(routed.netns, family, "-A", "FORWARD", "-j", "ACCEPT")
    v4 = family is PacketFamily.IPV4
    hops = (socket.IPPROTO_IP, socket.IP_TTL) if v4 else HOPS
    with Watching(routed.netns, "udp") as watching:
        for size, ttl in ((1, 1), (2, 2), (3, 1)):
            with routed.client.socket(AF[family], socket.SOCK_DGRAM) as client:
                client.setsockopt(*hops, ttl)
                client.sendto(bytes(size), (routed.backend.address(family), 5000 + size))
        watching.wait_for(5)
    ends = [
        (path.packet.dport, path.outcome, path.diagnosis.cause)
        for path in of_protocol(watching.paths, "udp")
        if path.diagnosis is not None
    ]
    assert ends == [
        (5001, Outcome.DROPPED, "ttl-exceeded"),
        (5002, Outcome.FORWARDED, "unknown"),
        (5003, Outcome.DROPPED, "ttl-exceeded"),
    ]
