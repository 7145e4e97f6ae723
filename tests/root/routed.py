"""Three namespaces in a row, client -- router -- backend, whose traffic is that of the tests alone.

Neighbours are known for good and routers are not asked for, so neither ARP nor neighbour discovery
passes the router's rules; nor do multicast reports.
"""

from __future__ import annotations

from dataclasses import dataclass

from ipttrace.netfilter import PacketFamily
from tests.root.kernel import ODD_INDEX, Endpoint, Namespaces, run, set_sysctl, wait_for_addresses

NO_REPORTS = "xfrm policy add dir out src ::/0 dst ff02::16/128 action block"
"""Multicast reports (RFC 3810) meet xfrm before netfilter (mld_sendpack in net/ipv6/mcast.c)."""

PREFIXES = {"near": ("198.51.100", "2001:db8:1:"), "far": ("203.0.113", "2001:db8:2:")}
INSIDE, OUTSIDE = "eth0", "eth1"


@dataclass(frozen=True, slots=True)
class Routed:
    """`client` -- `router` (towards the client) ... `outside` (the router again) -- `backend`."""

    client: Endpoint
    router: Endpoint
    outside: Endpoint
    backend: Endpoint

    @property
    def netns(self) -> str:
        """The router's namespace: where packets are traced."""
        return self.router.netns


def build_routed(namespaces: Namespaces) -> Routed:
    """Make the namespaces, links, addresses and routes; the router forwards."""
    names = {part: namespaces.add(part) for part in ("client", "router", "backend")}
    for name in names.values():
        set_sysctl(name, "net/ipv6/conf/default/addr_gen_mode", "1")
        run("ip", "-n", name, *NO_REPORTS.split())
    routed = Routed(
        _endpoint(names["client"], "near", 2),
        _endpoint(names["router"], "near", 1),
        _endpoint(names["router"], "far", 1, OUTSIDE),
        _endpoint(names["backend"], "far", 2),
    )
    _join(routed.client, routed.router)
    _join(routed.backend, routed.outside)
    for name in names.values():
        wait_for_addresses(name)
    for end, gateway in ((routed.client, routed.router), (routed.backend, routed.outside)):
        _batch(
            end.netns,
            f"route add default via {gateway.ipv4}",
            f"route add ::/0 via {gateway.ipv6}",
        )
    set_sysctl(routed.netns, "net/ipv4/ip_forward", "1")
    set_sysctl(routed.netns, "net/ipv6/conf/all/forwarding", "1")
    return routed


def _endpoint(netns: str, network: str, host: int, interface: str = INSIDE) -> Endpoint:
    ipv4, ipv6 = PREFIXES[network]
    return Endpoint(netns, f"{ipv4}.{host}", f"{ipv6}:{host}", interface)


def _join(one: Endpoint, other: Endpoint) -> None:
    link = (
        f"link add {one.interface} {ODD_INDEX} address {_mac(one)} type veth "
        f"peer name {other.interface} address {_mac(other)} netns {other.netns}"
    )
    run("ip", "-n", one.netns, *link.split())
    for end in (one, other):
        _batch(end.netns, f"link set {end.interface} up")
    for end, peer in ((one, other), (other, one)):
        device = f"dev {end.interface}"
        _batch(
            end.netns,
            f"link show {device}",
            f"address add {end.ipv4}/24 {device}",
            f"address add {end.ipv6}/64 {device} nodad",
            f"neighbour add {peer.ipv4} lladdr {_mac(peer)} {device}",
            f"neighbour add {peer.ipv6} lladdr {_mac(peer)} {device}",
        )


def _mac(end: Endpoint) -> str:
    network = end.ipv4.split(".")[0]
    return f"02:00:00:00:{int(network) % 256:02x}:{int(end.ipv4.rpartition('.')[2]):02x}"


def _batch(netns: str, *lines: str) -> None:
    run("ip", "-n", netns, "-batch", "-", stdin="\n".join(lines))


def address_words(end: Endpoint, family: PacketFamily, port: int | None = None) -> str:
    """Return `address` or `address:port` as iptables writes them, IPv6 in brackets."""
    address = end.address(family)
    if port is None:
        return address
    return f"[{address}]:{port}" if family is PacketFamily.IPV6 else f"{address}:{port}"
