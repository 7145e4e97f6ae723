"""Rules that are changed during a watch: packets are told by the rules that they met."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ipttrace.netfilter import PacketFamily, Verdict
from ipttrace.path import ChainHop, Outcome, PacketPath
from tests.root.kernel import Endpoint, Iptables, Pair
from tests.root.watching import Watching, of_protocol

PORT = 8445
FILTER = f"udp dst port {PORT}"


def native(first: str, second: str) -> str:
    """Return a table that replaces the one before it, with the same handles."""
    return f"""
        table inet f {{}}
        delete table inet f
        table inet f {{
            chain input {{
                type filter hook input priority 0; policy accept;
                {first}
                {second}
            }}
        }}
        """


DROPS_OTHERS = native("tcp dport 443 drop", f"udp dport {PORT} accept")
DROPS_OURS = native(f"udp dport {PORT} drop", "tcp dport 443 accept")


def load(end: Endpoint, text: str) -> None:
    end.run("nft", "-f", "-", stdin=text)


def send(pair: Pair, family: PacketFamily) -> None:
    kind = socket.AF_INET if family is PacketFamily.IPV4 else socket.AF_INET6
    with pair.client.socket(kind, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", (pair.server.address(family), PORT))


@contextmanager
def stream(pair: Pair) -> Iterator[None]:
    """Send datagrams all the time."""
    stop = threading.Event()

    def run() -> None:
        with pair.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not stop.wait(0.002):
                sender.sendto(b"x", (pair.server.ipv4, PORT))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def met(path: PacketPath) -> list[tuple[str | None, Verdict | None]]:
    """Return the rules that a packet met, and their verdicts."""
    return [(hop.rule, hop.verdict) for hop in path.chain_hops if hop.number is not None]


def test_a_native_table_that_is_replaced_with_the_same_handles(
    pair: Pair, family: PacketFamily
) -> None:
    load(pair.server, DROPS_OTHERS)
    watching = Watching(pair.server.netns, FILTER)
    with watching:
        send(pair, family)
        watching.wait_for(2)  # nobody takes it: the second is the error about it
        load(pair.server, DROPS_OURS)
        watching.wait_for_change()
        send(pair, family)
        watching.wait_for(3)
    first, second = of_protocol(watching.paths, "udp")
    assert met(first) == [(f"udp dport {PORT} accept", Verdict.ACCEPT)]
    assert met(second) == [(f"udp dport {PORT} drop", Verdict.DROP)]
    assert (second.outcome, second.rules_changed) == (Outcome.DROPPED, False)
    assert watching.result is not None
    (warning,) = watching.result.warnings
    assert warning.startswith("rules were changed during the watch")
    assert ", once, at " in warning


def test_a_rule_that_is_inserted_before_the_others(
    pair: Pair, iptables: Iptables, family: PacketFamily
) -> None:
    netns = pair.server.netns
    iptables(netns, family, "-A", "INPUT", "-p", "tcp", "--dport", "443", "-j", "ACCEPT")
    watching = Watching(netns, FILTER)
    with watching:
        iptables(netns, family, "-I", "INPUT", "-p", "udp", "--dport", str(PORT), "-j", "REJECT")
        watching.wait_for_change()
        send(pair, family)
        watching.wait_for(1)
        iptables(netns, family, "-F", "INPUT")
        iptables(netns, family, "-A", "INPUT", "-p", "udp", "-j", "DROP")
    path = watching.paths[0]
    ((text, verdict),) = met(path)
    assert text is not None
    assert f"--dport {PORT} -j REJECT" in text
    assert (verdict, path.outcome) == (Verdict.REJECT, Outcome.REJECTED)
    assert path.diagnosis is not None


def test_no_packet_is_told_by_a_rule_that_it_did_not_meet(pair: Pair) -> None:
    """What was reported about the time of a change says so, and what it cannot say."""
    load(pair.server, DROPS_OTHERS)
    watching = Watching(pair.server.netns, FILTER)
    with watching, stream(pair):
        for number in range(3):
            seen = len(watching.paths)
            load(pair.server, DROPS_OTHERS if number % 2 else DROPS_OURS)
            watching.wait_for(seen + 500)
    allowed = {
        (f"udp dport {PORT} accept", Verdict.ACCEPT),
        (f"udp dport {PORT} drop", Verdict.DROP),
    }
    assert {each for path in watching.paths for each in met(path)} == allowed
    doubtful = [path for path in watching.paths if any(map(is_replaced, path.chain_hops))]
    assert all(path.rules_changed and path.diagnosis is None for path in doubtful)
    assert len(doubtful) < len(watching.paths) / 2


def is_replaced(hop: ChainHop) -> bool:
    return hop.replaced
