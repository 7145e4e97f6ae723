"""Netlink attributes: the form of all messages (RFC 3549 section 2.2.1, uapi/linux/netlink.h).

Lengths and types are in the machine's own byte order; values of nfnetlink are in network order.
"""

from __future__ import annotations

from struct import Struct

NLA_TYPE_MASK = 0x3FFF
"""Without NLA_F_NESTED and NLA_F_NET_BYTEORDER."""

Attributes = dict[int, bytes]

_HEADER = Struct("=HH")


class Malformed(ValueError):  # noqa: N818 - never leaves decode/: it becomes an Undecoded
    """The bytes are not what the kernel's headers promise."""


def read_attributes(data: bytes, at: int = 0) -> Attributes:
    """Return type to value of the attributes that fill `data` from `at` to its end."""
    found: Attributes = {}
    end = len(data)
    while at + 4 <= end:
        length, kind = _HEADER.unpack_from(data, at)
        stop = at + length
        if length < 4 or stop > end:
            raise Malformed("an attribute reaches past its message")
        found[kind & NLA_TYPE_MASK] = data[at + 4 : stop]
        at = (stop + 3) & ~3
    return found


def number(attributes: Attributes, kind: int, size: int) -> int | None:
    """Return an unsigned integer in network order, None if it is not there."""
    value = attributes.get(kind)
    if value is None:
        return None
    if len(value) != size:
        raise Malformed(f"attribute {kind} is {len(value)} bytes long instead of {size}")
    return int.from_bytes(value)


def text(value: bytes) -> str:
    """Return a C string; bytes that are no UTF-8 become lone surrogates (PEP 383)."""
    return value.partition(b"\0")[0].decode("utf-8", "surrogateescape")
