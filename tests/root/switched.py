"""Four namespaces in a row: client -- router -- switch -- server.

The switch has no addresses: it joins the router and the server by a bridge, `br0`, with the ports
`p1` (to the router) and `p2` (to the server).  Neighbours are known for good.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ipttrace.netfilter import PacketFamily
from tests.root.kernel import ODD_INDEX, Endpoint, Namespaces, run, set_sysctl, wait_for_addresses

BRIDGE, UPLINK, DOWNLINK = "br0", "p1", "p2"
CALL_IPTABLES = {
    PacketFamily.IPV4: "net/bridge/bridge-nf-call-iptables",
    PacketFamily.IPV6: "net/bridge/bridge-nf-call-ip6tables",
}


@dataclass(frozen=True, slots=True)
class Switched:
    """Who is where; `inside` and `outside` are the router's two ends."""

    client: Endpoint
    inside: Endpoint
    outside: Endpoint
    server: Endpoint
    switch: str

    @property
    def router(self) -> str:
        """The router's namespace."""
        return self.inside.netns

    @property
    def everywhere(self) -> tuple[str, ...]:
        """The namespaces in the order in which the client's packets come through them."""
        return self.client.netns, self.router, self.switch, self.server.netns


def build_switched(namespaces: Namespaces) -> Switched:
    """Make the namespaces, links, addresses and routes; bridged frames meet no IP tables."""
    client, router, switch, server = map(namespaces.add, ("client", "router", "switch", "server"))
    made = Switched(
        Endpoint(client, "198.51.100.2", "2001:db8:1::2"),
        Endpoint(router, "198.51.100.1", "2001:db8:1::1", "eth0"),
        Endpoint(router, "203.0.113.1", "2001:db8:2::1", "eth1"),
        Endpoint(server, "203.0.113.2", "2001:db8:2::2"),
        switch,
    )
    _link(made.client, made.inside.netns, made.inside.interface)
    _link(made.outside, switch, UPLINK)
    _link(made.server, switch, DOWNLINK)
    _bridge(switch)
    for one, other in ((made.client, made.inside), (made.outside, made.server)):
        _meet(one, other)
        _meet(other, one)
    for end in (made.client, made.inside, made.server):
        wait_for_addresses(end.netns)
    for end, gateway in ((made.client, made.inside), (made.server, made.outside)):
        _batch(
            end.netns,
            f"route add default via {gateway.ipv4}",
            f"route add ::/0 via {gateway.ipv6}",
        )
    set_sysctl(router, "net/ipv4/ip_forward", "1")
    set_sysctl(router, "net/ipv6/conf/all/forwarding", "1")
    for family in PacketFamily:
        call_iptables(switch, family, on=False)
    return made


def call_iptables(netns: str, family: PacketFamily, *, on: bool) -> None:
    """Let bridged frames of a namespace meet its IP tables, or not."""
    if not Path("/proc/sys/net/bridge").exists():
        run("modprobe", "br_netfilter")
    set_sysctl(netns, CALL_IPTABLES[family], str(int(on)))


def _link(end: Endpoint, netns: str, name: str) -> None:
    this = f"{end.interface} {ODD_INDEX} address {mac(end)}"
    link = f"link add {this} type veth peer name {name} netns {netns}"
    run("ip", "-n", end.netns, *link.split())


def _bridge(switch: str) -> None:
    lines = [f"link add {BRIDGE} type bridge", f"link set {BRIDGE} up"]
    for port in (UPLINK, DOWNLINK):
        lines += [f"link set {port} master {BRIDGE}", f"link set {port} up"]
    _batch(switch, *lines)


def _meet(end: Endpoint, other: Endpoint) -> None:
    device = f"dev {end.interface}"
    _batch(
        end.netns,
        f"link set {end.interface} address {mac(end)} up",
        f"address add {end.ipv4}/24 {device}",
        f"address add {end.ipv6}/64 {device} nodad",
        f"neighbour replace {other.ipv4} lladdr {mac(other)} nud permanent {device}",
        f"neighbour replace {other.ipv6} lladdr {mac(other)} nud permanent {device}",
    )


def mac(end: Endpoint) -> str:
    """Return the address of an end's interface."""
    network = int(end.ipv4.split(".")[0])
    return f"02:00:00:00:{network:02x}:{int(end.ipv4.rpartition('.')[2]):02x}"


def _batch(netns: str, *lines: str) -> None:
    run("ip", "-n", netns, "-batch", "-", stdin="\n".join(lines))
