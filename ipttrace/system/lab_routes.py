"""Settings, routes, policy rules and neighbours of one namespace of a lab."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from ipttrace.decode.text import clean_text
from ipttrace.errors import KernelError
from ipttrace.lab.host import Host, setting_path
from ipttrace.lab.routing import PolicyRule, Route
from ipttrace.system.lab_links import explaining, index_of
from ipttrace.system.lab_rooms import Room

FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
RTNH_F_ONLINK = 4
NUD_PERMANENT = 0x80
FIB_RULE_INVERT = 2
FR_ACT = {"lookup": 1, "blackhole": 6, "unreachable": 7, "prohibit": 8}
"""uapi/linux/rtnetlink.h, neighbour.h, fib_rules.h."""


def settle(host: Host, room: Room) -> None:
    """Do all that needs the links; in the room's thread.  Raises KernelError."""
    for route in host.routes:
        with explaining(f"add route to {route.to} in {room.name}"):
            room.ipr.route("add", **_route_words(room, route))
    for rule in host.policy:
        with explaining(f"add the routing rule of priority {rule.priority} in {room.name}"):
            room.ipr.rule("add", **_rule_words(rule))
    for neighbour in host.neighbours:
        with explaining(f"add neighbour {neighbour.address} in {room.name}"):
            room.ipr.neigh(
                "replace",
                dst=neighbour.address,
                lladdr=neighbour.mac,
                ifindex=index_of(room, neighbour.interface),
                state=NUD_PERMANENT,
            )
    write_settings(host.sysctls, room)


def write_settings(settings: dict[str, str | int], room: Room) -> None:
    """Write the settings in their order; in the room's thread."""
    for name, value in settings.items():
        tried = clean_text(f"cannot set {name} to {value} in {room.name}")
        path = Path("/proc/sys") / setting_path(name)
        try:
            path.write_text(str(value))
        except OSError as error:
            raise KernelError(f"{tried}: {error.strerror}") from error


def _route_words(room: Room, route: Route) -> dict[str, Any]:
    words: dict[str, Any] = {"dst": route.network, "family": FAMILY[route.version]}
    if route.type != "unicast":
        words["type"] = route.type
    if route.via is not None:
        words["gateway"] = route.via
    if route.interface is not None:
        words["oif"] = index_of(room, route.interface)
    if route.table is not None:
        words["table"] = route.table
    if route.source is not None:
        words["prefsrc"] = route.source
    if route.metric is not None:
        words["priority"] = route.metric
    if route.mtu is not None:
        words["metrics"] = {"mtu": route.mtu}
    if route.onlink:
        words["flags"] = RTNH_F_ONLINK
    return words


def _rule_words(rule: PolicyRule) -> dict[str, Any]:
    words: dict[str, Any] = {"family": FAMILY[rule.version], "action": FR_ACT[rule.action]}
    if rule.table is not None:
        words["table"] = rule.table
    if rule.inverted:
        words["flags"] = FIB_RULE_INVERT
    if rule.suppress_prefix is not None:
        words["FRA_SUPPRESS_PREFIXLEN"] = rule.suppress_prefix
    if rule.priority is not None:
        words["priority"] = rule.priority
    if rule.from_network is not None:
        words["src"] = rule.from_network
    if rule.to is not None:
        words["dst"] = rule.to
    mark = rule.mark_and_mask()
    if mark is not None:
        words["fwmark"], words["fwmask"] = mark
    if rule.in_interface is not None:
        words["iifname"] = rule.in_interface
    if rule.out_interface is not None:
        words["oifname"] = rule.out_interface
    return words
