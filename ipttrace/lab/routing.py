"""Routes, policy rules and neighbours of a namespace."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Literal

import msgspec

from ipttrace.lab.parts import (
    LARGEST_MTU,
    SMALLEST_MTU,
    BadFieldError,
    Part,
    check_address,
    check_interface_name,
    check_mac,
    check_network,
    check_range,
)

LARGEST = 0xFFFFFFFF
RANGES = {"uidrange": LARGEST - 1, "sport": 0xFFFF, "dport": 0xFFFF}
"""The largest number of each field that takes a range."""
IP_PROTOCOLS = {
    "icmp": 1,
    "tcp": 6,
    "udp": 17,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "ipv6-icmp": 58,
    "sctp": 132,
}
"""In the words of ip-rule(8)."""
DEFAULT_NETWORK = {4: "0.0.0.0/0", 6: "::/0"}

RouteType = Literal["unicast", "blackhole", "unreachable", "prohibit"]
PolicyAction = Literal["lookup", "blackhole", "unreachable", "prohibit"]


class Route(Part, frozen=True):
    """A route of a namespace."""

    to: str
    """A network, or `default`; `default` takes the family of `via`, or `family`."""
    via: str | None = None
    interface: str | None = None
    table: int | None = None
    """None for the main table."""
    type: RouteType = "unicast"
    source: str | None = None
    """The address that packets made here get."""
    metric: int | None = None
    mtu: int | None = None
    family: Literal["ipv4", "ipv6"] | None = None
    """Of a default route without `via`; IPv4 if it is left out."""
    onlink: bool = False
    """`via` is a neighbour though no network of the interface holds it."""

    def __post_init__(self) -> None:
        if self.to != "default":
            check_network(self.to, "to")
        for field in ("via", "source"):
            address = getattr(self, field)
            if address is not None:
                check_address(address, field)
        if self.interface is not None:
            check_interface_name(self.interface, "interface")
        numbers = (("table", 1, LARGEST), ("metric", 0, LARGEST))
        for field, least, most in (*numbers, ("mtu", SMALLEST_MTU, LARGEST_MTU)):
            value = getattr(self, field)
            if value is not None:
                check_range(value, least, most, field)
        self._check_ways()

    def _check_ways(self) -> None:
        leads = self.via is not None or self.interface is not None
        if self.type == "unicast" and not leads:
            raise BadFieldError("a route needs `via` or `interface`")
        if self.type != "unicast" and leads:
            raise BadFieldError(f"a route of type {self.type} leads nowhere: no `via`, `interface`")
        for field in ("via", "source"):
            address = getattr(self, field)
            if address is not None and ip_address(address).version != self.version:
                raise BadFieldError(
                    f"{address} and a route to {self.to} are of different families", field
                )

    @property
    def version(self) -> int:
        """4 or 6."""
        if self.to != "default":
            return ip_network(self.to).version
        if self.via is not None:
            return ip_address(self.via).version
        return 6 if self.family == "ipv6" else 4

    @property
    def network(self) -> str:
        """Where it leads to, written as a network."""
        return DEFAULT_NETWORK[self.version] if self.to == "default" else self.to


class PolicyRule(Part, frozen=True):
    """A rule of policy routing (ip-rule(8)); without any condition it holds for all packets."""

    from_network: str | None = msgspec.field(name="from", default=None)
    to: str | None = None
    mark: int | str | None = None
    """`1`, `0x10` or `0x10/0xff`."""
    in_interface: str | None = msgspec.field(name="in", default=None)
    out_interface: str | None = msgspec.field(name="out", default=None)
    table: int | None = None
    priority: int | None = None
    action: PolicyAction = "lookup"
    family: Literal["ipv4", "ipv6"] | None = None
    """Of a rule that names no network; IPv4 if it is left out."""
    inverted: bool = msgspec.field(name="not", default=False)
    """It holds for the packets that its conditions do not hold for."""
    suppress_prefix: int | None = None
    """Routes to networks with a prefix of this length, or a shorter one, are passed over."""
    uidrange: str | int | None = None
    """Whose socket it is: `1000`, `1000-1999`."""
    dsfield: str | int | None = None
    """`0x10`; IPv4's former TOS, IPv6's traffic class."""
    ipproto: str | int | None = None
    sport: str | int | None = None
    """`80`, `80-90`."""
    dport: str | int | None = None

    def __post_init__(self) -> None:
        for field, network in (("from", self.from_network), ("to", self.to)):
            if network is not None:
                check_network(network, field)
        for field, name in (("in", self.in_interface), ("out", self.out_interface)):
            if name is not None:
                check_interface_name(name, field)
        if self.suppress_prefix is not None:
            check_range(self.suppress_prefix, 0, 128, "suppress-prefix")
        for field in ("table", "priority"):
            value = getattr(self, field)
            if value is not None:
                check_range(value, 1 if field == "table" else 0, LARGEST, field)
        if (self.action == "lookup") != (self.table is not None):
            words = "needs" if self.action == "lookup" else "takes no"
            raise BadFieldError(f"action {self.action} {words} `table`", "table")
        self._check_numbers()
        versions = {ip_network(text).version for text in (self.from_network, self.to) if text}
        if len(versions) > 1:
            raise BadFieldError("`from` and `to` are of different families", "to")

    def _check_numbers(self) -> None:
        self.mark_and_mask()
        for field, most in RANGES.items():
            self.range_of(field, most)
        self.field_bits()
        self.protocol_number()

    def mark_and_mask(self) -> tuple[int, int] | None:
        """Return the mark that is looked for, and the bits of it that count."""
        if self.mark is None:
            return None
        text, _, mask = str(self.mark).partition("/")
        try:
            value, bits = int(text, 0), int(mask or hex(LARGEST), 0)
        except ValueError as error:
            raise BadFieldError(f"{self.mark!r} is no mark like 1 or 0x10/0xff", "mark") from error
        check_range(value, 0, LARGEST, "mark")
        check_range(bits, 0, LARGEST, "mark")
        return value, bits

    def range_of(self, field: str, most: int) -> tuple[int, int] | None:
        """Return the first and the last of `uidrange`, `sport` or `dport`."""
        value = getattr(self, field)
        if value is None:
            return None
        first, dash, last = str(value).partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise BadFieldError(f"{value!r} is no number, and no range like 5-9", field)
        low, high = int(first), int(last or first)
        check_range(low, 0, most, field)
        check_range(high, low, most, field)
        return low, high

    def field_bits(self) -> int | None:
        """Return the number that `dsfield` is."""
        if self.dsfield is None:
            return None
        try:
            value = int(str(self.dsfield), 0)
        except ValueError as error:
            raise BadFieldError(f"{self.dsfield!r} is no number like 0x10", "dsfield") from error
        check_range(value, 0, 0xFF, "dsfield")
        return value

    def protocol_number(self) -> int | None:
        """Return the number that `ipproto` is."""
        if self.ipproto is None:
            return None
        text = str(self.ipproto)
        value = IP_PROTOCOLS.get(text, int(text) if text.isdecimal() else -1)
        if value < 0:
            known = ", ".join(IP_PROTOCOLS)
            raise BadFieldError(f"{text!r} is neither a number nor one of {known}", "ipproto")
        check_range(value, 1, 0xFF, "ipproto")
        return value

    @property
    def version(self) -> int:
        """4 or 6."""
        for network in (self.from_network, self.to):
            if network is not None:
                return ip_network(network).version
        return 6 if self.family == "ipv6" else 4


class Neighbour(Part, frozen=True):
    """A permanent entry of the neighbour table."""

    address: str
    mac: str
    interface: str = "eth0"

    def __post_init__(self) -> None:
        check_address(self.address, "address")
        check_mac(self.mac, "mac")
        check_interface_name(self.interface, "interface")
