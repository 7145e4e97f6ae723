"""The fixtures themselves: a pair that answers, rules that act, nothing left behind."""

from __future__ import annotations

import socket

import pytest

from ipttrace.netfilter import PacketFamily
from ipttrace.system.namespaces import NAMED
from tests.root.kernel import Endpoint, Iptables, Listeners, Namespaces, Pair, build_pair

AF = {PacketFamily.IPV4: socket.AF_INET, PacketFamily.IPV6: socket.AF_INET6}


def connect(client: Endpoint, address: str, port: int, family: PacketFamily) -> None:
    with client.socket(AF[family], socket.SOCK_STREAM) as opened:
        opened.settimeout(5)
        opened.connect((address, port))


def test_pair_connects_at_once(pair: Pair, family: PacketFamily, listen: Listeners) -> None:
    address = pair.server.address(family)
    listen(pair.server.netns, address, 8443)
    connect(pair.client, address, 8443, family)


def test_rules_of_both_backends_act(pair: Pair, family: PacketFamily, iptables: Iptables) -> None:
    reject = ("-p", "tcp", "--dport", "8443", "-j", "REJECT", "--reject-with", "tcp-reset")
    iptables(pair.server.netns, family, "-A", "INPUT", *reject)
    with pytest.raises(ConnectionRefusedError):
        connect(pair.client, pair.server.address(family), 8443, family)
    assert "[1:" in iptables.save(pair.server.netns, family).split("REJECT")[0].splitlines()[-1]


def test_teardown_deletes_the_namespaces() -> None:
    with Namespaces() as made:
        pair = build_pair(made)
        assert (NAMED / pair.client.netns).exists()
    assert not (NAMED / pair.client.netns).exists()
    assert not (NAMED / pair.server.netns).exists()
