"""Who takes a SYN where it is not simply a listener: SYNPROXY, nobody at all, or a rude program."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest

from ipttrace.netfilter import Backend, PacketFamily, Verdict
from ipttrace.path import Outcome, ResetHop, SocketHop
from ipttrace.probe import ProbeSpec
from tests.root.causes import probe
from tests.root.kernel import Iptables, Listeners, Pair, set_sysctl

V4, V6 = PacketFamily.IPV4, PacketFamily.IPV6
PORT = 20_000 + os.getpid() % 10_000
WAIT = 8.0
AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: close() resets the connection."""


def syn_proxy(iptables: Iptables, netns: str, family: PacketFamily) -> None:
    here = ("-p", "tcp", "--dport", str(PORT))
    raw = ("-t", "raw", "-A", "PREROUTING")
    iptables(netns, family, *raw, *here, "--syn", "-j", "CT", "--notrack")
    state = ("-m", "conntrack", "--ctstate", "INVALID,UNTRACKED")
    iptables(netns, family, "-A", "INPUT", *here, *state, "-j", "SYNPROXY", "--mss", "1460")
    set_sysctl(netns, "net/netfilter/nf_conntrack_tcp_loose", "0")


@pytest.mark.parametrize("inject", [True, False], ids=["injected", "client"])
def test_synproxy_is_not_called_the_service(
    pair: Pair,
    backend: Backend,
    family: PacketFamily,
    inject: bool,
    iptables: Iptables,
    listen: Listeners,
) -> None:
    """The client's ACK meets a proxy that knows no connection: no refusal of the SYN, either."""
    server = pair.server
    syn_proxy(iptables, server.netns, family)
    listen(server.netns, server.address(family), PORT)
    way = {"in_interface": "eth0"} if inject else {"from_netns": pair.client.netns}
    spec = ProbeSpec("tcp", server.address(family), PORT, wait=WAIT)
    probed = probe(spec, server.netns, **way)
    probed.check("delivered", Outcome.DELIVERED)
    assert probed.path.chain_hops[-1].verdict is Verdict.STOLEN
    assert probed.hops(SocketHop) == probed.hops(ResetHop) == []
    summary = probed.diagnosis.summary
    assert summary.startswith("taken by filter/INPUT 1: SYNPROXY answers in the place of")


@pytest.mark.parametrize("dst", ["198.51.100.255", "224.0.0.1", "ff02::1"])
def test_no_listener_takes_a_connection_to_many(pair: Pair, dst: str, listen: Listeners) -> None:
    listen(pair.server.netns, "::", PORT)
    spec = ProbeSpec("tcp", dst, PORT, wait=WAIT)
    probed = probe(spec, pair.server.netns, in_interface="eth0")
    probed.check("kernel-drop", Outcome.DROPPED)
    kind = "broadcast" if dst.endswith("255") else "multicast"
    assert f"{dst} is a {kind} address, and TCP takes no connection to it" in probed.text
    assert "TcpExt.ListenDrops rose by 1 (matched)" in probed.evidence()
    assert probed.hops(SocketHop) == []


@contextmanager
def resetting(listener: socket.socket) -> Iterator[None]:
    """Accept one connection and reset it."""

    def serve() -> None:
        with listener.accept()[0] as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)

    thread = Thread(target=serve)
    thread.start()
    yield
    thread.join(WAIT)


def test_a_program_that_resets_what_it_took_did_not_refuse_it(
    pair: Pair, listen: Listeners
) -> None:
    server, client = pair.server, pair.client
    with resetting(listen(server.netns, server.ipv4, PORT)):
        spec = ProbeSpec("tcp", server.ipv4, PORT, wait=WAIT)
        probed = probe(spec, client.netns, server.netns, from_netns=client.netns)
    probed.check("delivered", Outcome.DELIVERED)
    sender = next(path for path in probed.result.paths if path.netns == client.netns)
    assert sender.diagnosis is not None
    assert (sender.outcome, sender.diagnosis.cause) == (Outcome.SENT, "answered")
    assert not [hop for hop in sender.hops if isinstance(hop, ResetHop)]
