from __future__ import annotations

import pytest

from ipttrace.lab.derive import derive
from ipttrace.lab.host_state import Snapshot
from ipttrace.lab.save_file import parse_save_file
from ipttrace.lab.twin import twin_parts
from tests.save_files import GENERATORS


def host(*rules: str, table: str = "filter", more: str = "") -> Snapshot:
    text = "\n".join([f"*{table}", *rules, "COMMIT", more, ""])
    return derive([parse_save_file(text, "rules.v4")])[0]


def addresses(snapshot: Snapshot) -> dict[str, tuple[str, ...]]:
    return {link.name: link.addresses for link in snapshot.links}


def listeners(snapshot: Snapshot) -> list[str]:
    return [f"{each.protocol} {each.address} {each.port}" for each in snapshot.listeners]


def test_rules_that_name_nothing_get_one_interface() -> None:
    snapshot = host("-A INPUT -j ACCEPT")
    assert addresses(snapshot) == {"eth0": ("192.0.2.1/24",)}
    [route] = snapshot.routes
    assert (route.to, route.via, route.interface) == ("default", "192.0.2.254", "eth0")
    assert snapshot.sysctls == {}


def test_interfaces_are_those_that_rules_name() -> None:
    snapshot = host(
        "-A INPUT -i lo -j ACCEPT",
        "-A INPUT -i ens3 -j ACCEPT",
        "-A FORWARD -i tun+ ! -o ens4 -j ACCEPT",
        "-A INPUT -i ens+ -j ACCEPT",
        "-A INPUT -i a-name-of-16-byte -j ACCEPT",
    )
    assert set(addresses(snapshot)) == {"ens3", "ens4", "tun0"}
    assert snapshot.sysctls == {"net.ipv4.ip_forward": "1"}


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        (["-A FORWARD -i eth1 -s 10.1.2.0/24 -j ACCEPT"], "10.1.2.1/24"),
        (["-A FORWARD -o eth1 -d 10.1.2.0/24 -j ACCEPT"], "10.1.2.1/24"),
        (["-A FORWARD -o eth1 -d 10.1.2.9/32 -j ACCEPT"], "10.1.2.1/24"),
        (["-A FORWARD -o eth1 -d 10.1.2.1/32 -j ACCEPT"], "10.1.2.2/24"),
        (["-A INPUT -i eth1 -d 10.1.2.254/32 -j ACCEPT"], "10.1.2.254/24"),
    ],
)
def test_networks_are_where_rules_say(rules: list[str], found: str) -> None:
    snapshot = host("-A INPUT -i eth0 -j ACCEPT", *rules)
    assert found in addresses(snapshot)["eth1"]


def test_a_network_that_is_only_stopped_is_not_behind_the_interface() -> None:
    snapshot = host("-A INPUT -i eth0 -j ACCEPT", "-A INPUT -i eth1 -s 10.0.0.0/8 -j DROP")
    assert addresses(snapshot)["eth1"] == ("198.51.100.1/24",)


def test_addresses_of_nat_are_the_hosts_own() -> None:
    snapshot = host(
        "-A PREROUTING -i eth0 -d 203.0.113.7/32 -p tcp --dport 80 -j DNAT --to 10.1.1.5:8080",
        "-A POSTROUTING -s 10.1.1.0/24 -o eth0 -j SNAT --to-source 203.0.113.8",
        "-A POSTROUTING -o eth1 -j ACCEPT",
        table="nat",
    )
    assert addresses(snapshot) == {
        "eth0": ("203.0.113.7/24", "203.0.113.8/24"),
        "eth1": ("10.1.1.1/24",),
    }


def test_docker_is_behind_its_bridge() -> None:
    snapshot = host("-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE", table="nat")
    assert addresses(snapshot) == {"docker0": ("172.17.0.1/16",), "eth0": ("192.0.2.1/24",)}


def test_what_dnat_leads_to_is_behind_an_inner_interface() -> None:
    snapshot = host(
        "-A PREROUTING -i eth0 -p tcp --dport 80 -j DNAT --to-destination 192.168.7.1",
        "-A POSTROUTING -o eth0 -j MASQUERADE",
        "-A POSTROUTING -o eth1 -j ACCEPT",
        table="nat",
    )
    assert addresses(snapshot)["eth1"] == ("192.168.7.2/24",)


def test_services_are_what_rules_let_in() -> None:
    snapshot = host(
        ":mine - [0:0]",
        ":unused - [0:0]",
        "-A INPUT -p tcp --dport 22 -j ACCEPT",
        "-A INPUT -p 17 --dport domain -j ACCEPT",
        "-A INPUT -p tcp -m multiport --dports 80,443,6000:6010 -j mine",
        "-A mine -p tcp --dport 25 -j ACCEPT",
        "-A unused -p tcp --dport 99 -j ACCEPT",
        "-A INPUT -p tcp --dport 23 -j DROP",
        "-A INPUT -p tcp ! --dport 24 -j ACCEPT",
        "-A FORWARD -p tcp --dport 26 -j ACCEPT",
        more="*nat\n-A PREROUTING -p tcp --dport 81 -j REDIRECT --to-ports 8081\nCOMMIT",
    )
    assert listeners(snapshot) == [
        "tcp 0.0.0.0 22",
        "udp 0.0.0.0 53",
        "tcp 0.0.0.0 80",
        "tcp 0.0.0.0 443",
        "tcp 0.0.0.0 6000",
        "tcp 0.0.0.0 6010",
        "tcp 0.0.0.0 25",
        "tcp 0.0.0.0 8081",
    ]


def test_ipv6_has_addresses_of_its_own() -> None:
    text = "*filter\n-A INPUT -s 2001:db8:9::/64 -p tcp --dport 22 -j ACCEPT\nCOMMIT\n"
    snapshot, _ = derive([parse_save_file(text, "rules.v6")])
    assert addresses(snapshot) == {"eth0": ("2001:db8::1/64",)}
    assert listeners(snapshot) == ["tcp :: 22"]


def test_ports_of_bridges_are_ports() -> None:
    snapshot = host("-A FORWARD -m physdev --physdev-in vnet0 --physdev-is-bridged -j ACCEPT")
    links = {link.name: link for link in snapshot.links}
    assert (links["br0"].kind, links["vnet0"].master) == ("bridge", "br0")


def test_all_that_was_concluded_is_said() -> None:
    text = "*filter\n-A INPUT -i ens3 -p tcp --dport 22 -j ACCEPT\nCOMMIT\n"
    assert derive([parse_save_file(text, "rules.v4")])[1] == (
        "ens3 (rules.v4 line 2 names it) gets 192.0.2.1/24: no rule names its network",
        "the default route leads by ens3 to 192.0.2.254",
        "listens on tcp/22 (line 2)",
    )


@pytest.mark.parametrize("make", GENERATORS, ids=lambda make: make.__name__)
def test_a_host_fits_the_rules_of_every_firewall(make: object) -> None:
    sample = make(600)  # type: ignore[operator]
    snapshot, notes = derive([parse_save_file(sample.text, "rules.v4")])
    parts = twin_parts(snapshot)
    assert parts.missing == ()
    assert notes
    names = {end.interface for end in parts.ends} | parts.host.bridges.keys()
    for words in sample.probes:
        assert words.split("--in ")[1].split()[0] in names
