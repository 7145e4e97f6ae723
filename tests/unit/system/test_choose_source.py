"""The source of an injected packet: of the interface's network, and nobody's."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from ipttrace.system.addresses import Address, choose_source


def own(text: str, peer: str | None = None) -> Address:
    return Address(ip_interface(text), peer, 2)


@pytest.mark.parametrize("text", ["198.51.100.1/24", "2001:db8::1/64", "10.0.0.1/8"])
def test_of_the_network_but_not_ours(text: str) -> None:
    for _ in range(50):
        chosen = ip_address(choose_source([own(text)], set(), "203.0.113.1") or "")
        network = ip_network(text, strict=False)
        assert chosen in network
        assert chosen not in (network[0], network[-1], ip_interface(text).ip)


def test_neighbours_are_spared_while_there_are_others() -> None:
    known = {"198.51.100.2", "198.51.100.3", "198.51.100.4", "198.51.100.5"}
    assert choose_source([own("198.51.100.1/29")], known, "198.51.100.1") == "198.51.100.6"
    full = known | {"198.51.100.6"}
    assert choose_source([own("198.51.100.1/29")], full, "198.51.100.1") in full


def test_the_destination_is_not_the_source() -> None:
    assert choose_source([own("198.51.100.1/30")], set(), "198.51.100.2") is None


def test_both_addresses_of_a_31_are_hosts() -> None:
    assert choose_source([own("198.51.100.0/31")], set(), "203.0.113.1") == "198.51.100.1"


def test_the_far_end_of_a_point_to_point_link() -> None:
    assert choose_source([own("10.0.0.1/32", "10.0.0.2")], set(), "10.0.0.1") == "10.0.0.2"


def test_no_room() -> None:
    assert choose_source([own("198.51.100.1/32")], set(), "198.51.100.1") is None
    assert choose_source([], set(), "198.51.100.1") is None


def test_link_local_speaks_to_link_local() -> None:
    both = [own("fe80::1/64"), own("2001:db8::1/64")]
    assert (choose_source(both, set(), "2001:db8::1") or "").startswith("2001:db8:")
    assert (choose_source(both, set(), "fe80::1") or "").startswith("fe80:")
