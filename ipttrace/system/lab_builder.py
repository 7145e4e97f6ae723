"""Builds the namespaces of a lab with pyroute2, and its rules with iptables."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

from ipttrace.errors import KernelError
from ipttrace.lab.host import Host
from ipttrace.lab.parts import words_of
from ipttrace.lab.routing import Route
from ipttrace.lab.topology import End, Link, Topology
from ipttrace.netfilter import Backend
from ipttrace.system import commands, ipv6_addresses
from ipttrace.system.addresses import rtnetlink
from ipttrace.system.namespaces import NAMED, Namespace
from ipttrace.system.netns_files import create_namespace
from ipttrace.system.services import Keeper

IFA_F_NODAD = 0x02
"""uapi/linux/if_addr.h."""
READY_TIMEOUT = 5.0
"""Seconds in which links must be up and IPv6 addresses usable."""
POLL = 0.002
FIRST_INDEX = 1001
"""Of the near end of a link: the far end gets a small number.  A link whose two ends have the same
index in their namespaces comes up a second later (linkwatch_urgent_event)."""
LOCK_WAIT = "20"
"""Seconds to wait for /run/xtables.lock, which is one for all namespaces."""

QUIET_IPV6 = ("accept_dad", "dad_transmits", "router_solicitations")
"""No duplicate address detection, which takes a second; no packets of the kernel's own."""


@dataclass(slots=True)
class Lab:
    """Implements `ports.RunningLab`."""

    namespaces: Mapping[str, str]
    keeper: Keeper

    def down(self) -> Sequence[str]:
        """Take everything back; return warnings.  May be called more than once."""
        return self.keeper.close()


class LabBuilder:
    """Implements `ports.TopologyBuilder`: names are `<prefix>-<random>-<namespace>`."""

    def __init__(self, prefix: str = "ipt-lab") -> None:
        self.prefix = prefix

    def up(self, topology: Topology, backend: Backend) -> Lab:
        """Build the lab; on an error, Ctrl-C included, nothing stays behind."""
        token = secrets.token_hex(3)
        names = {name: f"{self.prefix}-{token}-{name}" for name in topology.namespaces}
        lab = Lab(names, Keeper(list(names.values())))
        try:
            _build(topology, backend, names, lab.keeper)
        except BaseException:
            lab.down()
            raise
        return lab


def _build(topology: Topology, backend: Backend, names: Mapping[str, str], keeper: Keeper) -> None:
    inside = {name: Namespace(real, NAMED / real) for name, real in names.items()}
    for name in names:
        create_namespace(names[name])
        inside[name].run(_bring_lo_up)
    for index, link in enumerate(topology.links, FIRST_INDEX):
        inside[link[0].namespace].run(partial(_add_pair, link, index, inside))
    for end in (end for link in topology.links for end in link):
        inside[end.namespace].run(partial(_configure, end))
    for name, host in topology.namespaces.items():
        inside[name].run(partial(_settle, host))
        _add_rules(host, inside[name], backend)
    keeper.open(_listeners(topology, names))


@contextmanager
def _explaining(tried: str) -> Iterator[None]:
    """Turn what pyroute2 raises into one clear line."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        reason = str(error.args[1]) if len(error.args) > 1 else str(error)
        raise KernelError(f"cannot {tried}: {reason}") from error
    except OSError as error:
        raise KernelError(f"cannot {tried}: {error.strerror}") from error


def _bring_lo_up() -> None:
    for scope in ("all", "default"):
        for setting in QUIET_IPV6:
            path = Path("/proc/sys/net/ipv6/conf", scope, setting)
            if path.exists():
                path.write_text("0")
    with rtnetlink() as ipr:
        ipr.link("set", index=1, state="up")


def _add_pair(link: Link, index: int, inside: Mapping[str, Namespace]) -> None:
    near, far = link
    peer = {"ifname": far.interface, "net_ns_fd": str(inside[far.namespace].path)}
    tried = f"link {near.namespace} {near.interface} to {far.namespace} {far.interface}"
    with _explaining(tried), rtnetlink() as ipr:
        ipr.link("add", index=index, ifname=near.interface, kind="veth", peer=peer)


def _configure(end: End) -> None:
    with rtnetlink() as ipr:
        (index,) = ipr.link_lookup(ifname=end.interface)
        for text in end.addresses:
            with _explaining(f"add address {text} to {end.interface} in {end.namespace}"):
                _add_address(ipr, index, text)
        with _explaining(f"bring {end.interface} up in {end.namespace}"):
            ipr.link("set", index=index, state="up")


def _add_address(ipr: Any, index: int, text: str) -> None:
    address = ip_interface(text)
    flags = {"flags": IFA_F_NODAD} if address.version == 6 else {}
    ipr.addr(
        "add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **flags
    )


def _settle(host: Host) -> None:
    """Wait for the links, then do what needs them: routes, and settings of interfaces."""
    with rtnetlink() as ipr:
        _wait_until_ready(ipr)
        for route in host.routes:
            with _explaining(f"add route to {route.to}"):
                ipr.route("add", **_route_words(ipr, route))
    for name, value in host.sysctls.items():
        with _explaining(f"set {name} to {value}"):
            Path("/proc/sys", name.replace(".", "/")).write_text(str(value))


def _route_words(ipr: Any, route: Route) -> dict[str, Any]:
    words: dict[str, Any] = {"dst": route.to}
    if route.to == "default":
        version = ip_address(route.via).version if route.via else 4
        words["dst"] = str(ip_network("0.0.0.0/0" if version == 4 else "::/0"))
    if route.via is not None:
        words["gateway"] = route.via
    if route.interface is not None:
        (words["oif"],) = ipr.link_lookup(ifname=route.interface)
    return words


def _wait_until_ready(ipr: Any) -> None:
    """Return when every link has its qdisc (operstate) and every IPv6 address is in use.

    Before that the kernel drops what is sent (noop_enqueue), or does not take the address.
    """
    deadline = time.monotonic() + READY_TIMEOUT
    pause = threading.Event()
    while not _ready(ipr):
        if time.monotonic() > deadline:
            raise KernelError(f"cannot bring the lab's links up: not within {READY_TIMEOUT:g} s")
        pause.wait(POLL)


def _ready(ipr: Any) -> bool:
    states = {link.get("operstate") for link in ipr.get_links() if link["index"] != 1}
    return not states - {"UP"} and ipv6_addresses.all_in_use()


def _add_rules(host: Host, namespace: Namespace, backend: Backend) -> None:
    for program, rules in (("iptables", host.iptables), ("ip6tables", host.ip6tables)):
        if isinstance(rules, str):
            commands.run(
                [f"{program}-{backend}-restore", "-w", LOCK_WAIT],
                what=f"cannot load the {program} rules in {namespace}",
                namespace=namespace,
                stdin=rules,
            )
            continue
        for line in rules:
            commands.run(
                [f"{program}-{backend}", "-w", LOCK_WAIT, *words_of(line)],
                what=f"cannot run {program} {line!r} in {namespace}",
                namespace=namespace,
            )


def _listeners(topology: Topology, names: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "namespace": names[name],
            "protocol": service.protocol,
            "address": service.address,
            "port": service.port,
        }
        for name, host in topology.namespaces.items()
        for service in host.services
    ]
