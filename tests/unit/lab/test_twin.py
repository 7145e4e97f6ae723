from __future__ import annotations

from ipttrace.lab.host_state import (
    LinkState,
    ListenerState,
    PolicyState,
    RouteState,
    Snapshot,
)
from ipttrace.lab.host_words import read_links
from ipttrace.lab.topology import Topology
from ipttrace.lab.twin import TWIN, WIRE, WIRE_HOST, TwinParts, twin_parts
from ipttrace.lab.twin_services import MOST_LISTENERS

ETH0 = LinkState("eth0", addresses=("192.0.2.1/24", "2001:db8::1/64"))


def lacking(parts: TwinParts) -> list[str]:
    return [str(each) for each in parts.missing]


def topology(parts: TwinParts) -> Topology:
    return Topology({TWIN: parts.host, WIRE: WIRE_HOST}, tuple(parts.links(TWIN, WIRE)))


def test_every_interface_ends_on_the_wire() -> None:
    links = (LinkState("lo", kind="loopback"), ETH0, LinkState("eth1", up=False, mtu=9000))
    built = topology(twin_parts(Snapshot(links=links)))
    assert [end.interface for end in built.ends_in(TWIN)] == ["eth0", "eth1"]
    assert [end.interface for end in built.ends_in(WIRE)] == ["eth0", "eth1"]
    assert built.ends_in(TWIN)[1].mtu == built.ends_in(WIRE)[1].mtu == 9000
    assert not built.ends_in(TWIN)[1].up


def test_a_port_without_carrier_has_a_dead_end() -> None:
    built = topology(twin_parts(Snapshot(links=(LinkState("eth0", carrier=False),))))
    assert built.ends_in(TWIN)[0].up
    assert not built.ends_in(WIRE)[0].up


def test_both_ends_of_a_pair_are_joined() -> None:
    links = (
        LinkState("a0", kind="veth", peer="b0"),
        LinkState("b0", kind="veth", peer="a0"),
        LinkState("c0", kind="veth", peer="gone"),
    )
    built = topology(twin_parts(Snapshot(links=links)))
    assert [end.interface for end in built.ends_in(WIRE)] == ["c0"]


def test_bridges_are_bridges() -> None:
    links = (
        LinkState("br0", kind="bridge", addresses=("10.0.0.1/24",)),
        LinkState("vnet0", master="br0"),
    )
    parts = twin_parts(Snapshot(links=links))
    assert parts.host.bridges["br0"].ports == ("vnet0",)
    assert topology(parts).bridge_of(TWIN, "vnet0") == "br0"


def test_what_a_bridge_has_of_its_own_is_named() -> None:
    data = '{"forward_delay":1500,"vlan_filtering":0,"nf_call_iptables":1}'
    info = f'{{"info_kind":"bridge","info_data":{data}}}'
    links = read_links(f'[{{"ifname":"br0","flags":["UP"],"linkinfo":{info}}}]')
    [missing] = twin_parts(Snapshot(links=links)).missing
    assert missing.text == "br0 nf_call_iptables 1"


def test_odd_interfaces_are_named_and_the_rest_is_there() -> None:
    links = (
        ETH0,
        LinkState("eth0"),
        LinkState("a name", addresses=("10.0.0.1/24",)),
        LinkState("evil\x1b[31m"),
        LinkState("a-name-of-16-byte"),
        LinkState("eth1", addresses=("192.0.2.1/25", "nonsense", "10.0.0.9/24")),
    )
    parts = twin_parts(Snapshot(links=links))
    assert [end.interface for end in parts.ends] == ["eth0", "eth1"]
    assert parts.ends[1].addresses == ("10.0.0.9/24",)
    assert len(parts.missing) == 6
    assert all(text.isprintable() for text in lacking(parts))


def test_routes_that_the_kernel_makes_are_left_to_it() -> None:
    routes = (
        RouteState("192.0.2.0/24", interface="eth0", protocol="kernel", source="192.0.2.1"),
        RouteState("default", via="192.0.2.254", interface="eth0", protocol="dhcp"),
    )
    parts = twin_parts(Snapshot(links=(ETH0,), routes=routes))
    [route] = parts.host.routes
    assert (route.to, route.via) == ("default", "192.0.2.254")
    [neighbour] = parts.host.neighbours
    assert (neighbour.address, neighbour.interface) == ("192.0.2.254", "eth0")
    assert parts.missing == ()


def test_routes_that_cannot_be_are_named() -> None:
    routes = (
        RouteState("default", via="192.0.2.254", interface="eth0"),
        RouteState("default", via="192.0.2.253", interface="eth0"),
        RouteState("10.0.0.0/8", via="192.0.2.9", interface="eth7"),
        RouteState("10.1.0.0/16", interface="eth0", source="10.1.0.1"),
        RouteState("10.2.0.0/16", type="throw"),
        RouteState("not a network", interface="eth0"),
        RouteState("10.3.0.0/16", via="192.0.2.9", interface="eth0", other="encap mpls"),
    )
    parts = twin_parts(Snapshot(links=(ETH0,), routes=routes))
    assert [route.to for route in parts.host.routes] == ["10.1.0.0/16", "default", "10.3.0.0/16"]
    reasons = " ".join(lacking(parts))
    for word in ("another one", "eth7", "no address 10.1.0.1", "throw", "not a network", "mpls"):
        assert word in reasons


def test_a_gateway_outside_all_networks_is_onlink() -> None:
    route = RouteState("default", via="10.255.255.1", interface="eth0")
    [made] = twin_parts(Snapshot(links=(ETH0,), routes=(route,))).host.routes
    assert made.onlink


def test_tables_with_a_name_get_a_number() -> None:
    routes = (RouteState("default", via="192.0.2.9", interface="eth0", table="vpn"),)
    policy = (
        PolicyState(0, table="local"),
        PolicyState(100, source="10.0.0.0/8", table="vpn"),
        PolicyState(32766, table="main"),
        PolicyState(32767, table="default"),
    )
    parts = twin_parts(Snapshot(links=(ETH0,), routes=routes, policy=policy))
    assert parts.host.routes[0].table == parts.host.policy[0].table == 10_000
    assert parts.notes == ("routing table vpn has number 10000",)


def test_routing_rules_that_cannot_be_are_named() -> None:
    policy = (
        PolicyState(0, table="local"),
        PolicyState(10, mark="0xca6c", table="51820", inverted=True, other="tun_id 7"),
        PolicyState(32766, table="main"),
    )
    missing = twin_parts(Snapshot(links=(ETH0,), policy=policy)).missing
    assert [(each.text, each.reason) for each in missing] == [
        ("32767: from all lookup default", "the twin has it, the host has not"),
        (
            "10: not from all fwmark 0xca6c tun_id 7 lookup 51820",
            "nothing here stands for: tun_id 7",
        ),
    ]


def test_listeners_stand_in_where_there_is_an_address() -> None:
    listeners = (
        ListenerState("tcp", "*", 80),
        ListenerState("tcp", "0.0.0.0", 80),
        ListenerState("tcp", "::ffff:127.0.0.1", 81),
        ListenerState("udp", "192.0.2.1", 53),
        ListenerState("udp", "192.0.2.2", 53, process="dnsmasq"),
        ListenerState("udp", "fe80::1", 546, "eth0"),
        ListenerState("udp", "0.0.0.0", 67, "virbr0"),
        ListenerState("sctp", "0.0.0.0", 5),
    )
    parts = twin_parts(Snapshot(links=(ETH0,), listeners=listeners))
    assert [(each.address, each.port) for each in parts.host.services] == [
        ("0.0.0.0", 80),
        ("::", 80),
        ("127.0.0.1", 81),
        ("192.0.2.1", 53),
    ]
    assert lacking(parts) == [
        "ss: udp 192.0.2.2 port 53 (dnsmasq): the twin has no address 192.0.2.2",
        "ss: udp fe80::1%eth0 port 546: a link-local address",
        "ss: udp 0.0.0.0%virbr0 port 67: there is no interface virbr0",
        "ss: sctp 0.0.0.0 port 5: neither TCP nor UDP",
    ]


def test_listeners_have_a_limit_that_is_said() -> None:
    listeners = tuple(ListenerState("tcp", "0.0.0.0", port) for port in range(1, 1000))
    parts = twin_parts(Snapshot(links=(ETH0,), listeners=listeners))
    assert len(parts.host.services) == MOST_LISTENERS
    assert len(parts.missing) == 999 - MOST_LISTENERS


def test_settings_of_interfaces_that_are_not_there_are_left_out() -> None:
    sysctls = {
        "net.ipv4.conf.eth0.rp_filter": "1",
        "net.ipv4.conf.gone.rp_filter": "1",
        "net.ipv4.conf.eth0/5.rp_filter": "2",
        "net.ipv4.ip_forward": "1",
    }
    links = (ETH0, LinkState("eth0.5"))
    parts = twin_parts(Snapshot(links=links, sysctls=sysctls))
    assert parts.host.sysctls == {
        "net.ipv4.ip_forward": "1",
        "net.ipv4.conf.eth0.rp_filter": "1",
        "net.ipv4.conf.eth0/5.rp_filter": "2",
    }


def test_addresses_of_lo_are_kept() -> None:
    lo = LinkState("lo", kind="loopback", addresses=("127.0.0.1/8", "::1/128", "203.0.113.1/32"))
    route = RouteState("10.7.0.0/16", interface="eth0", source="203.0.113.1")
    parts = twin_parts(Snapshot(links=(lo, ETH0), routes=(route,)))
    assert parts.host.loopback == ("203.0.113.1/32",)
    assert parts.missing == ()


def test_interfaces_that_a_lab_has_already_are_left_out() -> None:
    parts = twin_parts(Snapshot(links=(ETH0, LinkState("eth1"))))
    assert [link[0].interface for link in parts.links("server", "server-wire", ["eth0"])] == [
        "eth1"
    ]
