"""What the user asks to be sent, and whether the words of the request fit together."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from ipttrace.errors import UsageError
from ipttrace.netfilter import PacketFamily
from ipttrace.request import Trigger

PROTOCOLS = ("tcp", "udp", "icmp", "icmp6")
TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
"""In wire order from the right (RFC 9293 section 3.1)."""
MOST_PACKETS = 500
"""A real client holds one socket a packet, and a process may open 1,024 files by default."""

NETWORK_HEADER = {PacketFamily.IPV4: 20, PacketFamily.IPV6: 40}
TRANSPORT_HEADER = {"tcp": 20, "udp": 8, "icmp": 8, "icmp6": 8}
LARGEST = {PacketFamily.IPV4: 65535, PacketFamily.IPV6: 65535 + 40}
"""The length fields hold 16 bits; IPv6 does not count its own header (RFC 8200 section 3)."""


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """One or more equal test packets, and how they are to be sent and traced."""

    protocol: str
    """`tcp`, `udp`, `icmp` or `icmp6`: the last two are echo requests."""
    dst: str
    dport: int | None = None
    src: str | None = None
    sport: int | None = None
    in_interface: str | None = None
    """Inject as if received on this interface."""
    from_netns: str | None = None
    """Make the real client in this namespace."""
    netns: tuple[str, ...] = ()
    """Where to trace; the first one is where the packet is injected."""
    tcp_flags: tuple[str, ...] = ("SYN",)
    size: int | None = None
    """Of the whole IP packet, in bytes."""
    ttl: int | None = None
    count: int = 1
    trigger: Trigger | None = None
    """None: the best that the namespace offers."""
    let_out: bool = False
    evidence: str = "all"
    wait: float = 2.0
    """The longest that a result is waited for, in seconds."""
    expect: str | None = None

    @property
    def family(self) -> PacketFamily:
        """The network layer of the packets, as the destination says."""
        return family_of(self.dst)

    @property
    def injected(self) -> bool:
        """Whether the packets are injected, not sent by a real client."""
        return self.in_interface is not None


def family_of(address: str) -> PacketFamily:
    """Return the family of an address that `parse_endpoint` accepted."""
    return PacketFamily.IPV6 if ":" in address else PacketFamily.IPV4


def smallest_size(spec: ProbeSpec) -> int:
    """Return the length of the bare headers, in bytes."""
    return NETWORK_HEADER[spec.family] + TRANSPORT_HEADER[spec.protocol]


def parse_endpoint(text: str) -> tuple[str, int | None]:
    """Return address and port of `A`, `A:P`, `[A6]`, `[A6]:P`; the address in its short form.

    Raises UsageError; names are not looked up.
    """
    host, port = _split_endpoint(text)
    if "%" in host:
        raise UsageError(
            f"cannot use address {host!r}: zones are not supported",
            "Leave out the part from % and name the interface with --in.",
        )
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise UsageError(
            f"cannot read address {text!r}: not an IPv4 or IPv6 address; names are not looked up",
            "Write 198.51.100.1, 198.51.100.1:80, 2001:db8::1 or [2001:db8::1]:80.",
        ) from error
    return str(address), None if port is None else parse_port(port)


def _split_endpoint(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise UsageError(f"cannot read address {text!r}: a ']' is missing or misplaced")
        return host, rest[1:] if rest else None
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port
    return text, None


def parse_port(text: str) -> int:
    """Return a port of 1 to 65535; raises UsageError."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise UsageError(f"cannot read port {text!r}: not a number from 1 to 65535")
    return int(text)


def parse_flags(text: str) -> tuple[str, ...]:
    """Return the TCP flags of `SYN,ACK`, in wire order; `NONE` is no flag; raises UsageError."""
    words = [word.strip().upper() for word in text.split(",")]
    if words == ["NONE"]:
        return ()
    for word in words:
        if word not in TCP_FLAGS:
            raise UsageError(
                f"cannot set TCP flag {word!r}: there is no such flag",
                f"Known are {', '.join(TCP_FLAGS)}, or NONE.",
            )
    return tuple(flag for flag in TCP_FLAGS if flag in words)


def validate(spec: ProbeSpec) -> ProbeSpec:
    """Return `spec` if its words fit together; raises UsageError for the first that do not."""
    for rule in RULES:
        rule(spec)
    return spec


def _protocol(spec: ProbeSpec) -> None:
    if spec.protocol not in PROTOCOLS:
        raise UsageError(
            f"cannot send protocol {spec.protocol!r}: it is not known",
            f"Choose one of {', '.join(PROTOCOLS)}.",
        )


def _addresses(spec: ProbeSpec) -> None:
    for address in (spec.dst, spec.src):
        if address is not None and parse_endpoint(f"[{address}]")[0] != address:
            raise UsageError(f"cannot use address {address!r}: not in its short form")
    known = ipaddress.ip_address(spec.dst)
    if known.is_unspecified:
        raise UsageError(f"cannot send to {spec.dst}: it is the unspecified address")
    if mapped := getattr(known, "ipv4_mapped", None):
        raise UsageError(f"cannot send to {spec.dst}: IPv4 is sent there", f"Use {mapped}.")


def _source_family(spec: ProbeSpec) -> None:
    if spec.src is not None and family_of(spec.src) is not spec.family:
        raise UsageError(
            f"cannot send from {spec.src} to {spec.dst}: one is IPv4, the other IPv6",
            "Give both in the same family.",
        )


def _protocol_family(spec: ProbeSpec) -> None:
    wanted = {"icmp": PacketFamily.IPV4, "icmp6": PacketFamily.IPV6}.get(spec.protocol)
    if wanted not in (None, spec.family):
        other = "icmp6" if spec.protocol == "icmp" else "icmp"
        raise UsageError(
            f"cannot send {spec.protocol} to {spec.dst}: the address is of the wrong family",
            f"Use {other}, or another address.",
        )


def _ports(spec: ProbeSpec) -> None:
    if spec.protocol in ("tcp", "udp"):
        if spec.dport is None:
            raise UsageError(
                f"cannot send {spec.protocol} to {spec.dst}: the port is missing",
                f"Write {'[A]:P' if spec.family is PacketFamily.IPV6 else 'A:P'}.",
            )
    elif spec.dport is not None or spec.sport is not None:
        raise UsageError(
            f"cannot send {spec.protocol} to {spec.dst}: {spec.protocol} has no ports",
            "Leave the port out.",
        )


def _port_range(spec: ProbeSpec) -> None:
    for port in (spec.dport, spec.sport):
        if port is not None and not 1 <= port <= 65535:
            raise UsageError(f"cannot use port {port}: not a number from 1 to 65535")


def _way_in(spec: ProbeSpec) -> None:
    if spec.in_interface is None:
        return
    if spec.from_netns is not None:
        raise UsageError(
            f"cannot use --in {spec.in_interface} with --from {spec.from_netns}: "
            "a packet is either injected or sent by a real client",
            "Give one of them.",
        )
    if spec.in_interface == "lo":
        raise UsageError(
            "cannot inject on lo: the kernel takes no packets from outside there",
            "Use a real connect(): leave --in out.",
        )


def _link_local(spec: ProbeSpec) -> None:
    if spec.family is PacketFamily.IPV4 or spec.injected:
        return
    if ipaddress.ip_address(spec.dst).is_link_local:
        raise UsageError(
            f"cannot connect to {spec.dst}: a link-local address needs an interface",
            "Name the interface with --in.",
        )


def _flags(spec: ProbeSpec) -> None:
    if spec.tcp_flags == ("SYN",):
        return
    flags = ",".join(spec.tcp_flags) or "NONE"
    for flag in spec.tcp_flags:
        if flag not in TCP_FLAGS:
            parse_flags(flag)
    if spec.protocol != "tcp":
        raise UsageError(f"cannot set TCP flags {flags}: the protocol is {spec.protocol}")
    if not spec.injected:
        raise UsageError(
            f"cannot set TCP flags {flags}: a real client starts with SYN",
            "Inject the packet with --in.",
        )


def _size(spec: ProbeSpec) -> None:
    if spec.size is None:
        return
    if spec.protocol == "tcp" and not spec.injected:
        raise UsageError(
            f"cannot set --size {spec.size}: the kernel decides the size of a real SYN",
            "Inject the packet with --in.",
        )
    if not smallest_size(spec) <= spec.size <= LARGEST[spec.family]:
        raise UsageError(
            f"cannot send {spec.size} bytes of {spec.protocol} to {spec.dst}: "
            f"a packet has from {smallest_size(spec)} to {LARGEST[spec.family]} bytes",
            "Give the size of the whole IP packet.",
        )


def _ttl(spec: ProbeSpec) -> None:
    if spec.ttl is not None and not 1 <= spec.ttl <= 255:
        raise UsageError(f"cannot set --ttl {spec.ttl}: not a number from 1 to 255")


def _count(spec: ProbeSpec) -> None:
    if not 1 <= spec.count <= MOST_PACKETS:
        raise UsageError(f"cannot send --count {spec.count}: not a number from 1 to {MOST_PACKETS}")
    if spec.count > 1 and spec.sport is not None and not spec.injected:
        raise UsageError(
            f"cannot send --count {spec.count} from port {spec.sport}: "
            "each packet of a real client has a socket of its own",
            "Leave the source port out.",
        )


def _wait(spec: ProbeSpec) -> None:
    if not 0 < spec.wait <= 3600:
        raise UsageError(f"cannot wait {spec.wait:g} s: not a time from 0 to 3600 s")


def _let_out(spec: ProbeSpec) -> None:
    if spec.let_out and not spec.injected:
        raise UsageError(
            "cannot use --let-out: only an injected packet is kept in",
            "Add --in, or leave --let-out out.",
        )


def _evidence(spec: ProbeSpec) -> None:
    if spec.evidence not in ("all", "none"):
        raise UsageError(f"cannot use --evidence {spec.evidence!r}: it is 'all' or 'none'")


RULES: tuple[Callable[[ProbeSpec], None], ...] = (
    _protocol,
    _addresses,
    _source_family,
    _protocol_family,
    _ports,
    _port_range,
    _way_in,
    _link_local,
    _flags,
    _size,
    _ttl,
    _count,
    _wait,
    _let_out,
    _evidence,
)
