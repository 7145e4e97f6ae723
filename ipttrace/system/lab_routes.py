"""Settings, routes, policy rules and neighbours of one namespace of a lab."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from ipttrace.decode.text import clean_text
from ipttrace.errors import KernelError
from ipttrace.lab.host import Host, setting_path
from ipttrace.lab.routing import RANGES, PolicyRule, Route
from ipttrace.system.lab_links import explaining, index_of
from ipttrace.system.lab_rooms import Room

FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
RTNH_F_ONLINK = 4
NUD_PERMANENT = 0x80
FIB_RULE_INVERT = 2
RANGE_WORDS = {"uidrange": "uid_range", "sport": "sport_range", "dport": "dport_range"}
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
    mark, mask = rule.mark_and_mask() or (None, None)
    words: dict[str, Any] = {
        "family": FAMILY[rule.version],
        "action": FR_ACT[rule.action],
        "flags": FIB_RULE_INVERT if rule.inverted else None,
        "table": rule.table,
        "FRA_SUPPRESS_PREFIXLEN": rule.suppress_prefix,
        "priority": rule.priority,
        "src": rule.from_network,
        "dst": rule.to,
        "fwmark": mark,
        "fwmask": mask,
        "iifname": rule.in_interface,
        "oifname": rule.out_interface,
        "tos": rule.field_bits(),
        "ip_proto": rule.protocol_number(),
    }
    for field, most in RANGES.items():
        limits = rule.range_of(field, most)
        if limits is not None:
            words[RANGE_WORDS[field]] = f"{limits[0]}:{limits[1]}"
    return {word: value for word, value in words.items() if value is not None}
