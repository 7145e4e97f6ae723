"""Netlink attributes to bytes and back: include/uapi/linux/netlink.h, struct nlattr.

Integers inside nfnetlink attributes are big-endian (include/uapi/linux/netfilter/nfnetlink.h).
"""

from __future__ import annotations

import struct

NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=HH")


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute, padded to four bytes (NLA_ALIGNTO)."""
    return _HEADER.pack(_HEADER.size + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute made of attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def string(kind: int, text: str) -> bytes:
    """Return a text attribute, ended by NUL."""
    return attribute(kind, text.encode() + b"\0")


def number8(kind: int, value: int) -> bytes:
    """Return an attribute of one byte."""
    return attribute(kind, value.to_bytes(1, "big"))


def number16(kind: int, value: int) -> bytes:
    """Return a big-endian attribute of two bytes."""
    return attribute(kind, value.to_bytes(2, "big"))


def number32(kind: int, value: int) -> bytes:
    """Return a big-endian attribute of four bytes; negative ones as two's complement."""
    return attribute(kind, (value & 0xFFFFFFFF).to_bytes(4, "big"))


def number64(kind: int, value: int) -> bytes:
    """Return a big-endian attribute of eight bytes."""
    return attribute(kind, value.to_bytes(8, "big"))


def parse(data: bytes) -> dict[int, bytes]:
    """Return the attributes of `data` by type, flags taken off; stops where the bytes end."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            break
        found[kind & NLA_TYPE_MASK] = data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3
    return found
