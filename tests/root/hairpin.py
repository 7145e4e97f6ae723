"""One network on a bridge of the router, with a client and a backend in it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass

from tests.root.kernel import Endpoint, Namespaces, run, set_sysctl, wait_for_ipv6

BRIDGE = "br0"


@dataclass(frozen=True, slots=True)
class Hairpin:
    """`client` and `backend` on the bridge of `router`, which is their gateway."""

    client: Endpoint
    backend: Endpoint
    router: Endpoint


def build_hairpin(namespaces: Namespaces) -> Hairpin:
    """Make the three namespaces; the router forwards, and its bridge's frames meet no iptables."""
    router = Endpoint(namespaces.add("router"), "198.51.100.1", "2001:db8::1", BRIDGE)
    made = Hairpin(
        Endpoint(namespaces.add("client"), "198.51.100.2", "2001:db8::2"),
        Endpoint(namespaces.add("backend"), "198.51.100.3", "2001:db8::3"),
        router,
    )
    router.run("ip", "link", "add", BRIDGE, "type", "bridge", "forward_delay", "0")
    for port, end in (("port0", made.client), ("port1", made.backend)):
        peer = f"link add {end.interface} type veth peer name {port} netns {router.netns}"
        run("ip", *peer.split(), netns=end.netns)
        router.run("ip", "link", "set", port, "master", BRIDGE, "up")
    for end in (made.router, made.client, made.backend):
        device = f"dev {end.interface}"
        end.run("ip", "address", "add", f"{end.ipv4}/24", *device.split())
        end.run("ip", "address", "add", f"{end.ipv6}/64", *device.split(), "nodad")
        end.run("ip", "link", "set", end.interface, "up")
    for end in (made.router, made.client, made.backend):
        wait_for_ipv6(end)
    _introduce(made)
    set_sysctl(router.netns, "net/ipv4/ip_forward", "1")
    set_sysctl(router.netns, "net/ipv6/conf/all/forwarding", "1")
    set_sysctl(router.netns, "net/ipv4/conf/all/send_redirects", "0")
    set_sysctl(router.netns, f"net/ipv4/conf/{BRIDGE}/send_redirects", "0")
    for program in ("iptables", "ip6tables"):
        with suppress(FileNotFoundError):  # no br_netfilter: frames meet no iptables anyway
            set_sysctl(router.netns, f"net/bridge/bridge-nf-call-{program}", "0")
    return made


def _introduce(made: Hairpin) -> None:
    """Let everybody know everybody's link address, so that nobody asks for one."""
    ends = (made.router, made.client, made.backend)
    links = {end: json.loads(end.run("ip", "-j", "link", "show", end.interface)) for end in ends}
    for end in ends:
        for other in ends:
            for address in (other.ipv4, other.ipv6) if other is not end else ():
                words = ("lladdr", links[other][0]["address"], "dev", end.interface)
                end.run("ip", "neighbour", "replace", address, *words)
