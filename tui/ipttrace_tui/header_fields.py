"""A packet's headers at one of its hops, as the changes up to there make them."""

from __future__ import annotations

from dataclasses import dataclass

from ipttrace.decode.text import clean_text
from ipttrace.packet import PacketSummary
from ipttrace.path import ChainHop, Change, Hop, NatHop, PacketPath


@dataclass(frozen=True, slots=True)
class Field:
    """One header field at a hop; `before` is empty where the hop left it alone."""

    name: str
    value: str
    before: str = ""


def fields_at(path: PacketPath, index: int | None) -> tuple[Field, ...]:
    """Return the packet's headers after hop `index`, with what that hop changed.

    One that was never made has no length, and only what was to be sent is known of it.
    """
    packet = path.packet
    values: dict[str, object] = {
        "src": packet.src,
        "sport": packet.sport,
        "dst": packet.dst,
        "dport": packet.dport,
    }
    if packet.length:
        values |= {"mark": path.mark, "ttl": packet.ttl}
    changed: dict[str, Change] = {}
    for position, hop in enumerate(path.hops[: (-1 if index is None else index) + 1]):
        here = _changes(hop)
        values.update({change.field: change.new for change in here})
        if position == index:
            changed = {change.field: change for change in here}
    fields = [
        Field(name, _text(name, value), _text(name, changed[name].old) if name in changed else "")
        for name, value in values.items()
        if value is not None
    ]
    return (*fields, *_constant(packet))


def packet_lines(path: PacketPath, index: int | None) -> tuple[tuple[Field, ...], ...]:
    """Return the headers in few lines: what the hop changed first, one a line, then the rest."""
    fields = {field.name: field for field in fields_at(path, index)}
    changed = [field for field in fields.values() if field.before]
    ends = [_endpoint(fields, *names) for names in (("src", "sport"), ("dst", "dport"))]
    rest = [field for name, field in fields.items() if name not in ENDS and not field.before]
    return (*((field,) for field in changed), *((each,) for each in ends), tuple(rest))


ENDS = ("src", "sport", "dst", "dport")


def _endpoint(fields: dict[str, Field], address: str, port: str) -> Field:
    number = fields[port].value if port in fields else None
    host = fields[address].value
    if number is None:
        return Field(address, host)
    return Field(address, f"[{host}]:{number}" if ":" in host else f"{host}:{number}")


def _changes(hop: Hop) -> tuple[Change, ...]:
    if isinstance(hop, ChainHop):
        return hop.changes
    if isinstance(hop, NatHop):
        pairs = (("src", "sport", hop.source), ("dst", "dport", hop.destination))
        return tuple(c for a, p, pair in pairs if pair for c in _rewritten(a, p, *pair))
    return ()


def _rewritten(address: str, port: str, old: str, new: str) -> list[Change]:
    (old_address, old_port), (new_address, new_port) = _split(old), _split(new)
    changes = [Change(address, old_address, new_address), Change(port, old_port, new_port)]
    return [change for change in changes if change.old != change.new]


def _split(endpoint: str) -> tuple[str, str | None]:
    """Return address and port of `a:p`, `[a]:p`, or a bare address."""
    if endpoint.startswith("["):
        address, _, port = endpoint[1:].partition("]")
        return address, port.removeprefix(":") or None
    address, colon, port = endpoint.partition(":")
    return (address, port or None) if colon and ":" not in port else (endpoint, None)


def _constant(packet: PacketSummary) -> list[Field]:
    fields = [Field("length", f"{packet.length} bytes")] if packet.length else []
    if packet.tcp_flags:
        fields.append(Field("flags", " ".join(packet.tcp_flags)))
    if packet.icmp:
        fields.append(Field("icmp", f"type {packet.icmp.type} code {packet.icmp.code}"))
    if packet.ip_id is not None:
        fields.append(Field("id", str(packet.ip_id)))
    return fields


def _text(name: str, value: object) -> str:
    if value is None:
        return "?"
    return hex(value) if name == "mark" and isinstance(value, int) else clean_text(str(value))
