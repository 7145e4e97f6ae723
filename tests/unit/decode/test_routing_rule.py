"""Routing rules, the first one recorded on kernel 6.18."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from ipttrace.decode.attributes import Malformed
from ipttrace.decode.routing_rule import RuleMessage, decode_rule
from tests import builders as b

RULE = (
    "02000a00000000080000000008000f000000000008000e00ffffffff05001500000000000800060"
    "04d0000000800020064400000"
)


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute, padded to four bytes."""
    return struct.pack("=HH", len(value) + 4, kind) + value + b"\0" * (-len(value) % 4)


def message(action: int, *attributes: bytes, dst_bits: int = 0, flags: int = 0) -> bytes:
    """Return the body of an RTM_NEWRULE."""
    header = struct.pack("=BBBBBBBBI", 2, dst_bits, 0, 0, 0, 0, 0, action, flags)
    return header + b"".join(attributes)


PRIORITY = attribute(6, struct.pack("=I", 77))


def test_a_rule_that_refuses() -> None:
    found = decode_rule(bytes.fromhex(RULE))
    assert (found.action, found.priority, found.table) == ("prohibit", 77, None)
    assert (found.src, found.judged) == ("100.64.0.0/10", True)


def test_a_rule_that_leads_to_a_table() -> None:
    table, mark, mask = (
        attribute(kind, struct.pack("=I", n)) for kind, n in ((15, 99), (10, 9), (16, 255))
    )
    found = decode_rule(message(1, PRIORITY, table, mark, mask))
    assert found == RuleMessage(None, 77, "99", 9, 255)
    assert decode_rule(message(1, attribute(15, struct.pack("=I", 254)))).table == "main"


def test_all_that_a_rule_asks_for() -> None:
    found = decode_rule(
        message(
            6,
            PRIORITY,
            attribute(1, bytes([198, 51, 100, 0])),
            attribute(3, b"eth0\0"),
            attribute(22, bytes([6])),
            attribute(23, struct.pack("=HH", 1024, 65535)),
            attribute(24, struct.pack("=HH", 8443, 8443)),
            dst_bits=24,
            flags=2,
        )
    )
    assert found == RuleMessage(
        "blackhole",
        77,
        dst="198.51.100.0/24",
        in_interface="eth0",
        protocol=6,
        sports=(1024, 65535),
        dports=(8443, 8443),
        inverted=True,
    )


@pytest.mark.parametrize("kind", [12, 17, 19, 20])
def test_a_rule_that_asks_for_more_is_not_judged(kind: int) -> None:
    found = decode_rule(message(6, attribute(kind, b"\0" * 4)))
    assert not found.judged
    assert not found.fits(b.tcp(), 0, "eth0")


@pytest.mark.parametrize(
    ("asked", "fits"),
    [
        ({}, True),
        ({"mark": 1, "mask": 0xF}, True),
        ({"mark": 2, "mask": 0xF}, False),
        ({"src": "203.0.113.0/24", "dst": "198.51.100.1/32"}, True),
        ({"dst": "192.0.2.0/24"}, False),
        ({"src": "203.0.113.1/24"}, True),
        ({"in_interface": "eth0"}, True),
        ({"in_interface": "lo"}, False),
        ({"protocol": 6, "dports": (8000, 9000), "sports": (1, 65535)}, True),
        ({"protocol": 17}, False),
        ({"dports": (80, 80)}, False),
        ({"dports": (80, 80), "inverted": True}, True),
        ({"inverted": True}, False),
    ],
)
def test_whom_a_rule_is_for(asked: dict[str, Any], fits: bool) -> None:
    assert RuleMessage(None, 1, **asked).fits(b.tcp(), 0x11, "eth0") is fits


def test_what_is_made_here_comes_from_lo() -> None:
    assert RuleMessage(None, 1, in_interface="lo").fits(b.tcp(), 0, None)
    assert not RuleMessage(None, 1, in_interface="eth0").fits(b.tcp(), 0, None)


def test_what_is_cut_off_is_malformed() -> None:
    with pytest.raises(Malformed):
        decode_rule(b"\x02" * 7)
