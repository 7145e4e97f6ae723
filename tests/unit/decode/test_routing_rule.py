"""Routing rules, the first one recorded on kernel 6.18."""

from __future__ import annotations

import struct
from dataclasses import replace
from struct import pack
from typing import Any

import pytest

from ipttrace.decode.attributes import Malformed
from ipttrace.decode.routing_rule import Asked, RuleMessage, decode_rule
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


CAME = Asked(b.tcp(), 0x11, "eth0", dsfield=0x12, uid=0)
PRIORITY = attribute(6, struct.pack("=I", 77))


def test_a_rule_that_refuses() -> None:
    found = decode_rule(bytes.fromhex(RULE))
    assert (found.action, found.priority, found.table) == ("prohibit", 77, None)
    assert (found.src, found.unjudged) == ("100.64.0.0/10", ())


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


@pytest.mark.parametrize(
    ("kind", "word"),
    [(12, "tun_id"), (19, "l3mdev"), (26, "flowlabel")],
)
def test_a_rule_that_asks_for_more_is_not_judged(kind: int, word: str) -> None:
    found = decode_rule(message(6, attribute(kind, b"\0" * 4)))
    assert found.judge(CAME) == (False, (word,))
    elsewhere = replace(found, in_interface="eth9")
    assert elsewhere.judge(CAME) == (False, ()), "what it asks for beside that is not so"


def test_ports_with_a_mask() -> None:
    """Kernel 6.18 gives one for every single port."""
    ports = attribute(24, pack("=HH", 8442, 8442))
    whole = decode_rule(message(6, ports, attribute(29, pack("=H", 0xFFFF))))
    assert whole.judge(CAME) == (False, ())
    even = decode_rule(message(6, ports, attribute(29, pack("=H", 0xFFFE))))
    assert even.judge(CAME) == (True, ())


def test_users_interfaces_and_the_dsfield_of_a_rule() -> None:
    found = decode_rule(message(6, attribute(17, b"eth7\0"), attribute(20, pack("=II", 5, 6))))
    assert (found.out_interface, found.uids, found.unjudged) == ("eth7", (5, 6), ())
    old = pack("=BBBBBBBBI", 2, 0, 0, 0x10, 0, 0, 0, 6, 0)
    assert decode_rule(old).dsfield == (0x10, 0x1C), "IPv4 sees the old TOS only"
    assert decode_rule(b"\x0a" + old[1:]).dsfield == (0x10, 0xFC)
    new = (attribute(25, b"\x2e"), attribute(30, b"\x3f"))
    assert decode_rule(message(6, *new)).dsfield == (0xB8, 0xFC)
    assert decode_rule(message(6, new[0])).dsfield == (0xB8, 0xFC)


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
        ({"uids": (0, 0)}, True),
        ({"uids": (1, 9)}, False),
        ({"out_interface": "eth1"}, False),
        ({"out_interface": "eth1", "inverted": True}, True),
        ({"dsfield": (0x10, 0x1C)}, True),
        ({"dsfield": (0xB8, 0xFC)}, False),
    ],
)
def test_whom_a_rule_is_for(asked: dict[str, Any], fits: bool) -> None:
    assert RuleMessage(None, 1, **asked).judge(CAME) == (fits, ())


@pytest.mark.parametrize(
    ("rule", "open_ones"),
    [
        ({"uids": (0, 0)}, ("uidrange",)),
        ({"dsfield": (0x10, 0x1C), "inverted": True}, ("dsfield",)),
        ({"uids": (0, 0), "dports": (80, 80)}, ()),
    ],
)
def test_what_is_not_known_is_left_open(rule: dict[str, Any], open_ones: tuple[str, ...]) -> None:
    unknown = replace(CAME, uid=None, dsfield=None)
    assert RuleMessage(None, 1, **rule).judge(unknown) == (False, open_ones)


def test_a_link_has_its_own_addresses() -> None:
    rule = RuleMessage(None, 1, out_interface="eth1")
    assert rule.judge(Asked(b.tcp(dst="fe80::1"))) == (False, ("oif",))


def test_what_is_made_here_comes_from_lo() -> None:
    assert RuleMessage(None, 1, in_interface="lo").judge(Asked(b.tcp()))[0]
    assert not RuleMessage(None, 1, in_interface="eth0").judge(Asked(b.tcp()))[0]


def test_what_is_cut_off_is_malformed() -> None:
    with pytest.raises(Malformed):
        decode_rule(b"\x02" * 7)
