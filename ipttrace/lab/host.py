"""One namespace of a lab file: settings, routes, services and rules."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

import msgspec

from ipttrace.lab.ipsets import read_ipsets
from ipttrace.lab.parts import (
    LARGEST_MTU,
    SMALLEST_MTU,
    BadFieldError,
    Part,
    check_address,
    check_interface_address,
    check_interface_name,
    check_mac,
    check_printable,
    check_range,
    check_unique,
)
from ipttrace.lab.routing import Neighbour, PolicyRule, Route
from ipttrace.lab.rules import RuleFields, RulesFile, check_file_name

SETTING_NAME = re.compile(r"net([./][A-Za-z0-9_@:-]+)+\Z")
"""As sysctl(8) writes it; only settings that a namespace has of its own."""
SETTING_VALUE = 1000
"""Characters at most."""
LONGEST_BACKLOG = 4096
"""The default of net.core.somaxconn."""


class Service(Part, frozen=True):
    """A listener that sends back what it gets."""

    port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    address: str = "0.0.0.0"  # noqa: S104
    """`::` takes IPv6 only."""
    backlog: int = 128
    accept: bool = True
    """If not, connections stay in the backlog until it is full."""
    full: bool = False
    """The backlog is full from the start; that implies `accept: false`."""
    interface: str | None = None
    """Only what comes in there (SO_BINDTODEVICE)."""

    def __post_init__(self) -> None:
        check_address(self.address, "address")
        check_range(self.port, 1, 65535, "port")
        check_range(self.backlog, 0, LONGEST_BACKLOG, "backlog")
        if self.interface is not None:
            check_interface_name(self.interface, "interface")
        if self.protocol == "udp" and (self.full or not self.accept):
            raise BadFieldError(
                "a service of udp has no backlog", "full" if self.full else "accept"
            )
        if self.full and self.interface not in (None, "lo"):
            raise BadFieldError("who is bound to an interface cannot fill it himself", "full")

    @property
    def accepts(self) -> bool:
        """Whether it takes connections from the backlog."""
        return self.accept and not self.full


class Bridge(Part, frozen=True):
    """A bridge; its ports are ends of links in the same namespace."""

    ports: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    mac: str | None = None
    mtu: int | None = None
    up: bool = True

    def __post_init__(self) -> None:
        for place, port in enumerate(self.ports):
            check_interface_name(port, "ports", place)
        check_unique(self.ports, "ports", "ports")
        check_device(self.addresses, self.mac, self.mtu)


def check_device(addresses: tuple[str, ...], mac: str | None, mtu: int | None) -> None:
    """Check what every device of a lab may have."""
    for place, address in enumerate(addresses):
        check_interface_address(address, "addresses", place)
    check_unique(addresses, "addresses", "addresses")
    if mac is not None:
        check_mac(mac, "mac")
    if mtu is not None:
        check_range(mtu, SMALLEST_MTU, LARGEST_MTU, "mtu")


class Host(RuleFields, frozen=True, kw_only=True):
    """One namespace."""

    routes: tuple[Route, ...] = ()
    policy: tuple[PolicyRule, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    bridges: dict[str, Bridge] = msgspec.field(default_factory=dict)
    loopback: tuple[str, ...] = ()
    """Addresses of `lo` beside those that every namespace has."""
    ipsets: str = ""
    """What `ipset save` writes; built before the rules are loaded."""
    sysctls: dict[str, str | int] = msgspec.field(default_factory=dict)
    services: tuple[Service, ...] = ()
    rules_file: str | RulesFile | None = None
    """Relative to the lab file; loaded before the other rules."""
    twin: str | None = None
    """A snapshot or a save file beside the lab file, whose state this namespace has."""

    def __post_init__(self) -> None:
        check_settings(self.sysctls, "sysctls")
        for name in self.bridges:
            check_interface_name(name, "bridges", name)
        for place, address in enumerate(self.loopback):
            check_interface_address(address, "loopback", place)
        for missing in read_ipsets(self.ipsets).missing[:1]:
            raise BadFieldError(f"line {missing.line}: {missing.text}: {missing.reason}", "ipsets")
        self._check_services()
        self.check_rules()
        if isinstance(self.rules_file, str):
            check_file_name(self.rules_file, "rules-file")
        check_file_name(self.twin, "twin")

    def _check_services(self) -> None:
        taken: set[object] = set()
        for place, each in enumerate(self.services):
            key = (each.protocol, ip_address(each.address), each.port, each.interface)
            if key in taken:
                message = f"two services listen on {each.protocol} {each.address} port {each.port}"
                raise BadFieldError(message, "services", place)
            taken.add(key)


def check_settings(settings: dict[str, str | int], *path: str | int) -> None:
    """Refuse names that are no setting of a namespace, and values that are no line of text."""
    for name, value in settings.items():
        folders = setting_path(name).parts if SETTING_NAME.match(name) else ()
        if not folders or ".." in folders:
            raise BadFieldError(f"{name!r} is not a setting below net.", *path, name)
        check_printable(str(value).replace("\t", " "), *path, name)
        if len(str(value)) > SETTING_VALUE:
            raise BadFieldError(f"the value of {name} is too long", *path, name)


def setting_path(name: str) -> Path:
    """Return a setting's file below /proc/sys.

    As in sysctl(8) the first separator says which of `.` and `/` is one: in
    `net.ipv4.conf.eth0/100.rp_filter` a `/` stands for the `.` of an interface's name.
    """
    if name.find("/") == len("net"):
        return Path(name)
    return Path(name.translate(str.maketrans("./", "/.")))
