"""Links, bridges and addresses of a lab, and when they can be used."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from ipttrace.decode.text import clean_text
from ipttrace.errors import KernelError
from ipttrace.lab.topology import Link, Topology
from ipttrace.system import ipv6_addresses
from ipttrace.system.lab_rooms import Room, Rooms, finish

IFA_F_NODAD = 0x02
"""uapi/linux/if_addr.h."""
IFF_NOARP = 0x80
"""uapi/linux/if.h."""
BR_STATE_FORWARDING = 3
"""uapi/linux/if_bridge.h."""
READY_TIMEOUT = 5.0
"""Seconds in which links must be up and IPv6 addresses usable."""
POLL = 0.002
FIRST_INDEX = 1001
"""Of the near end of a link: the far end gets a small number.  A link whose two ends have the same
index in their namespaces comes up a second later (linkwatch_urgent_event)."""

QUIET_IPV6 = ("accept_dad", "dad_transmits", "router_solicitations")
"""No duplicate address detection, which takes a second; no packets of the kernel's own."""


@contextmanager
def explaining(tried: str) -> Iterator[None]:
    """Turn what pyroute2 raises into one clear line."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        reason = str(error.args[1]) if len(error.args) > 1 else str(error)
        raise KernelError(f"cannot {clean_text(tried)}: {reason}") from error
    except OSError as error:
        raise KernelError(f"cannot {clean_text(tried)}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Device:
    """An interface that is to be made ready."""

    name: str
    addresses: Sequence[str]
    mtu: int | None
    mac: str | None
    up: bool
    bridge: str | None = None
    arp: bool = True


def build_links(topology: Topology, rooms: Rooms) -> None:
    """Make all links and bridges, configure them, and wait until packets can cross them."""
    rooms.everywhere(partial(_bring_lo_up, topology))
    rooms.everywhere(partial(_add_bridges, topology))
    starts = []
    for index, link in enumerate(topology.links, FIRST_INDEX):
        starts.append(rooms[link[0].namespace].start(partial(_add_pair, link, index, rooms)))
    finish(starts)
    rooms.everywhere(partial(_configure_ends, topology))
    rooms.everywhere(partial(_wait_until_ready, topology))


def set_link(room: Room, interface: str, *, up: bool) -> None:
    """Bring an interface up or down; in the room's thread."""
    with explaining(f"bring {interface} {'up' if up else 'down'} in {room.name}"):
        room.ipr.link("set", index=index_of(room, interface), state="up" if up else "down")


def _bring_lo_up(topology: Topology, room: Room) -> None:
    for scope in ("all", "default"):
        for setting in QUIET_IPV6:
            path = Path("/proc/sys/net/ipv6/conf", scope, setting)
            if path.exists():
                path.write_text("0")
    room.ipr.link("set", index=1, state="up")
    for text in topology.namespaces[room.name].loopback:
        with explaining(f"add address {text} to lo in {room.name}"):
            _add_address(room.ipr, 1, text)


def _add_bridges(topology: Topology, room: Room) -> None:
    """Bridges come up before they have ports: later, the carrier is told a second late."""
    for name, bridge in topology.namespaces[room.name].bridges.items():
        with explaining(f"add bridge {name} in {room.name}"):
            room.ipr.link("add", ifname=name, kind="bridge", br_mcast_snooping=0)
        _configure(room, Device(name, bridge.addresses, bridge.mtu, bridge.mac, bridge.up))


def _add_pair(link: Link, index: int, rooms: Rooms, room: Room) -> None:
    near, far = link
    peer = {"ifname": far.interface, "net_ns_fd": str(rooms[far.namespace].namespace.path)}
    tried = f"link {near.namespace} {near.interface} to {far.namespace} {far.interface}"
    with explaining(tried):
        room.ipr.link("add", index=index, ifname=near.interface, kind="veth", peer=peer)


def _configure_ends(topology: Topology, room: Room) -> None:
    for end in topology.ends_in(room.name):
        bridge = topology.bridge_of(room.name, end.interface)
        device = Device(
            end.interface, end.addresses, end.mtu, end.mac, end.up, bridge=bridge, arp=end.arp
        )
        _configure(room, device)


def _configure(room: Room, device: Device) -> None:
    ipr, index = room.ipr, index_of(room, device.name)
    where = f"{device.name} in {room.name}"
    settings: dict[str, Any] = {}
    if device.mtu is not None:
        settings["mtu"] = device.mtu
    if device.mac is not None:
        settings["address"] = device.mac
    if device.bridge is not None:
        settings["master"] = index_of(room, device.bridge)
    if not device.arp:
        settings |= {"flags": IFF_NOARP, "change": IFF_NOARP}
    if settings:
        with explaining(f"set {', '.join(settings)} of {where}"):
            ipr.link("set", index=index, **settings)
    for text in device.addresses:
        with explaining(f"add address {text} to {where}"):
            _add_address(ipr, index, text)
    if device.up:
        with explaining(f"bring {where} up"):
            ipr.link("set", index=index, state="up")


def _add_address(ipr: Any, index: int, text: str) -> None:
    address = ip_interface(text)
    flags = {"flags": IFA_F_NODAD} if address.version == 6 else {}
    ipr.addr(
        "add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **flags
    )


def index_of(room: Room, name: str) -> int:
    """Return an interface's number; in the room's thread.  KernelError if it is not there."""
    found = room.ipr.link_lookup(ifname=name)
    if not found:
        raise KernelError(f"cannot find interface {name} in {room.name}: no such device")
    return int(found[0])


# ---------------------------------------------------------------- ready


def carrying(topology: Topology, namespace: str) -> set[str]:
    """Return the interfaces of a namespace that get a carrier: both ends of their link are up."""
    names = set()
    for near, far in topology.links:
        for end, other in ((near, far), (far, near)):
            if end.namespace == namespace and end.up and other.up:
                names.add(end.interface)
    for name, bridge in topology.namespaces[namespace].bridges.items():
        if bridge.up and names & set(bridge.ports):
            names.add(name)
    return names


def _wait_until_ready(topology: Topology, room: Room) -> None:
    expected = carrying(topology, room.name)
    wait_until(lambda: _ready(room.ipr.get_links(), expected), f"bring the links of {room.name} up")


def wait_until(condition: Callable[[], bool], tried: str, seconds: float | None = None) -> None:
    """Return once the condition holds; KernelError if it does not within READY_TIMEOUT seconds."""
    limit = READY_TIMEOUT if seconds is None else seconds
    deadline = time.monotonic() + limit
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise KernelError(f"cannot {tried}: not within {limit:g} s")
        pause.wait(POLL)


def _ready(links: Sequence[Any], expected: set[str]) -> bool:
    """Tell whether links have their qdisc (operstate), ports forward, and IPv6 addresses are used.

    Before that the kernel drops what is sent (noop_enqueue), or does not take the address.
    """
    waited_for = [link for link in links if link.get("ifname") in expected]
    up = all(link.get("operstate") == "UP" and _forwards(link) for link in waited_for)
    return up and ipv6_addresses.all_in_use(expected)


def _forwards(link: Any) -> bool:
    info = link.get("linkinfo")
    port: Mapping[str, Any] | None = None
    if info is not None and info.get("slave_kind") == "bridge":
        port = info.get("slave_data")
    state = None if port is None else port.get("state")
    return state in (None, BR_STATE_FORWARDING)
