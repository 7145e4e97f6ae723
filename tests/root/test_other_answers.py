"""Answers that come from another address than was asked: traced, kept inside, and told."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

import pytest

from ipttrace.netfilter import PacketFamily
from ipttrace.path import Outcome, WireHop
from ipttrace.probe import ProbeSpec
from tests.root.causes import Probed, probe
from tests.root.kernel import Iptables, Listeners, Pair, run
from tests.root.mixed_traffic import know_each_other

V4, V6 = PacketFamily.IPV4, PacketFamily.IPV6
PORT = 20_000 + os.getpid() % 10_000
EVERY = {V4: "0.0.0.0", V6: "::"}
SECOND = {V4: "192.0.2.1", V6: "2001:db8:9::1"}
WAIT = 8.0


@contextmanager
def answering(service: socket.socket) -> Iterator[None]:
    """Answer one datagram, from whatever address the kernel chooses."""

    def serve() -> None:
        service.settimeout(WAIT)
        _, sender = service.recvfrom(2048)
        with suppress(PermissionError):  # what is kept inside is dropped before sendto() is over
            service.sendto(b"here", sender)

    thread = Thread(target=serve)
    thread.start()
    yield
    thread.join()


def came(iptables: Iptables, pair: Pair, family: PacketFamily, rule: str) -> int:
    """Return how often a rule of the client was met."""
    saved = iptables.save(pair.client.netns, family).splitlines()
    (line,) = [each for each in saved if each.endswith(rule)]
    return int(re.findall(r"\[(\d+):", line)[0])


def answers_inside(probed: Probed) -> list[str]:
    """Return the sources of the answers, all of which were contained."""
    assert all(
        [hop.event for hop in each.hops if isinstance(hop, WireHop)] == ["contained"]
        for each in probed.replies
    )
    return [each.packet.src for each in probed.replies]


@pytest.mark.parametrize("tracked", [False, True], ids=["untracked", "tracked"])
def test_a_service_of_two_addresses_answers_from_the_wrong_one(
    pair: Pair, iptables: Iptables, family: PacketFamily, tracked: bool, listen: Listeners
) -> None:
    """It is bound to none: the kernel takes the source from the route back."""
    know_each_other(pair)
    asked = SECOND[family]
    server, client = pair.server, pair.client
    run("ip", "-n", server.netns, "address", "add", asked, "dev", "lo")
    met = "-A INPUT -p udp -m udp"
    iptables(client.netns, family, *met.split(), "--sport", str(PORT))
    match = ("-m", "conntrack", "--ctstate", "NEW") if tracked else ()
    iptables(server.netns, family, "-A", "INPUT", "-p", "udp", *match, "-j", "ACCEPT")
    spec = ProbeSpec("udp", asked, PORT, wait=WAIT)
    src = client.address(family)
    with answering(listen(server.netns, EVERY[family], PORT, "udp")):
        probed = probe(spec, server.netns, in_interface="eth0", src=src)
    probed.check("delivered", Outcome.DELIVERED)
    assert answers_inside(probed) == [server.address(family)]
    assert came(iptables, pair, family, f"{met} --sport {PORT}") == 0, "it came out"
    text = f"comes from {server.address(family)}, not from {asked}: a client takes it for a"
    assert text in probed.evidence()


def test_who_was_asked_among_many_answers_for_himself(pair: Pair, listen: Listeners) -> None:
    know_each_other(pair)
    server = pair.server
    spec = ProbeSpec("udp", "198.51.100.255", PORT, wait=WAIT)
    with answering(listen(server.netns, EVERY[V4], PORT, "udp")):
        probed = probe(spec, server.netns, in_interface="eth0", src=pair.client.ipv4)
    assert answers_inside(probed) == [server.ipv4]
    assert "stranger" not in probed.evidence()


def test_an_echo_from_many_is_answered_inside(pair: Pair, iptables: Iptables) -> None:
    know_each_other(pair)
    server, client = pair.server, pair.client
    met = "-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 129"
    iptables(client.netns, V6, *met.split())
    spec = ProbeSpec("icmp6", "ff02::1", wait=WAIT)
    probed = probe(spec, server.netns, in_interface="eth0", src=client.ipv6)
    assert answers_inside(probed) == [server.ipv6]
    assert came(iptables, pair, V6, met) == 0, "it came out"
    assert "and the kernel answered the echo" in probed.diagnosis.summary


def test_a_real_client_sees_whence_its_answer_came(pair: Pair, listen: Listeners) -> None:
    know_each_other(pair)
    server, client, asked = pair.server, pair.client, SECOND[V4]
    run("ip", "-n", server.netns, "address", "add", asked, "dev", "lo")
    run("ip", "-n", client.netns, "route", "add", asked, "via", server.ipv4)
    spec = ProbeSpec("udp", asked, PORT, wait=1.0)
    with answering(listen(server.netns, EVERY[V4], PORT, "udp")):
        probed = probe(spec, server.netns, from_netns=client.netns)
    assert [each.packet.src for each in probed.replies] == [server.ipv4]
    assert f"comes from {server.ipv4}, not from {asked}" in probed.evidence()
    assert probed.result.client == ("TIMEOUT",)
