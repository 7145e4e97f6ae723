"""What the kernel rewrote in a packet, told from two looks at its headers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ipttrace.netfilter import Basis
from ipttrace.packet import PacketSummary
from ipttrace.path import Change, NatHop


def differences(old: PacketSummary, new: PacketSummary) -> list[Change]:
    """Return what two looks at one packet's headers differ in."""
    pairs = (
        ("src", old.src, new.src),
        ("dst", old.dst, new.dst),
        ("sport", old.sport, new.sport),
        ("dport", old.dport, new.dport),
        ("ttl", old.ttl, new.ttl),
    )
    return [Change(*each) for each in pairs if each[1] != each[2] and each[2] is not None]


def endpoint(packet: PacketSummary, address: str, port: int | None) -> str:
    """Return `address:port`, in IPv6 `[address]:port`; the bare address without a port."""
    if port is None:
        return address
    return f"[{address}]:{port}" if packet.family == "ipv6" else f"{address}:{port}"


def source_hop(before: PacketSummary, after: PacketSummary, time: float) -> NatHop:
    """Return the nat hop for a packet that got another source."""
    return NatHop(
        time,
        Basis.REPORTED,
        source=(
            endpoint(before, before.src, before.sport),
            endpoint(after, after.src, after.sport),
        ),
    )


def nat_hop(packet: PacketSummary, changes: list[Change], time: float) -> NatHop:
    """Return the nat hop for address changes that led to `packet`."""
    old = {change.field: change.old for change in changes}
    source = (
        endpoint(packet, str(old.get("src", packet.src)), _port(old.get("sport", packet.sport))),
        endpoint(packet, packet.src, packet.sport),
    )
    destination = (
        endpoint(packet, str(old.get("dst", packet.dst)), _port(old.get("dport", packet.dport))),
        endpoint(packet, packet.dst, packet.dport),
    )
    return NatHop(
        time,
        Basis.REPORTED,
        source if source[0] != source[1] else None,
        destination if destination[0] != destination[1] else None,
    )


def aimed_hops(seen: PacketSummary, aimed: PacketSummary, time: float) -> Iterator[NatHop]:
    """Yield the nat hop for a destination that the last rule gave, and that no report shows.

    The packet died before the next chain, so its new destination follows from the rule's text.
    """
    changes = [each for each in differences(seen, aimed) if each.field in ("dst", "dport")]
    if changes:
        yield replace(nat_hop(aimed, changes, time), source=None, basis=Basis.INFERRED)


def _port(value: str | int | None) -> int | None:
    return value if isinstance(value, int) else None
