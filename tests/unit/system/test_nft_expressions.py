"""Our expressions against those of the nft program, as Linux 6.18 returns them for its rules.

Recorded with nft 1.0.6 in an inet table: NFTA_RULE_EXPRESSIONS of an NFT_MSG_GETRULE dump.  What
nft puts in front (which protocol it must be) is left off by comparing from the end.
"""

from __future__ import annotations

import struct

import pytest

from ipttrace.system import nft_expressions as nft
from ipttrace.system.netlink_attributes import NLA_F_NESTED, parse

_HEADER = struct.Struct("=HH")

NFPROTO_IPV4 = (
    "24000100090001006d6574610000000014000200080002000000000f08000100000000012c00010008000100"
    "636d700020000200080001000000000108000200000000000c0003000500010002000000"
)
ADDRESS = NFPROTO_IPV4 + (
    "340001000c0001007061796c6f6164002400020008000100000000010800020000000001080003000000000c08"
    "000400000000042c00010008000100636d700020000200080001000000000108000200000000000c0003000800"
    "0100c6336402"
)
PORT = (
    "24000100090001006d6574610000000014000200080002000000001008000100000000012c00010008000100"
    "636d700020000200080001000000000108000200000000000c0003000500010006000000340001000c000100"
    "7061796c6f6164002400020008000100000000010800020000000002080003000000000008000400000000022c"
    "00010008000100636d700020000200080001000000000108000200000000000c000300060001009c400000"
)
RANGE = (
    "340001000c0001007061796c6f616400240002000800010000000001080002000000000208000300000000000800"
    "0400000000012c00010008000100636d700020000200080001000000000108000200000000050c00030005000100"
    "030000002c00010008000100636d700020000200080001000000000108000200000000030c000300050001000500"
    "0000"
)
IN_NAME = (
    "24000100090001006d6574610000000014000200080002000000000608000100000000013800010008000100"
    "636d70002c00020008000100000000010800020000000000180003001400010065746830000000000000000000"
    "000000"
)
NOT_IN_LO = (
    "24000100090001006d6574610000000014000200080002000000000408000100000000012c00010008000100"
    "636d700020000200080001000000000108000200000000010c0003000800010001000000"
)
OUT_LO = (
    "24000100090001006d6574610000000014000200080002000000000508000100000000012c00010008000100"
    "636d700020000200080001000000000108000200000000000c0003000800010001000000"
)
TRACE = (
    "2c0001000e000100696d6d6564696174650000001800020008000100000000010c000200050001000100000024"
    "000100090001006d6574610000000014000200080002000000000c0800030000000001"
)
COUNT = (
    "280001000b0001006f626a7265660000180002000a0002007265706c790000000800010000000001"  # "reply"
)
ACCEPT = (
    "300001000e000100696d6d6564696174650000001c0002000800010000000000100002000c00020008000100"
    "00000001"
)
DROP = (
    "300001000e000100696d6d6564696174650000001c0002000800010000000000100002000c00020008000100"
    "00000000"
)
CT_REPLY = (
    "20000100070001006374000014000200080001000000000108000200000000012c00010008000100636d7000"
    "20000200080001000000000108000200000000000c0003000500010001000000"
)
CT_ORIGINAL_ADDRESS = (
    "2800010007000100637400001c0002000800010000000001080002000000001305000300000000002c000100"
    "08000100636d700020000200080001000000000108000200000000000c00030008000100c6336402"
)
CT_UNTRACKED = (
    "20000100070001006374000014000200080001000000000108000200000000004c0001000c00010062697477"
    "697365003c00020008000100000000010800020000000001080003000000000408000600000000000c000400"
    "08000100400000000c00050008000100000000002c00010008000100636d7000200002000800010000000001"
    "08000200000000010c0003000800010000000000"
)
COMMENT = "000d69707474726163653a61626300"
"""NFTA_RULE_USERDATA of `comment "ipttrace:abc"`."""

PORT_40000 = (40000).to_bytes(2, "big")
ADDRESS_BYTES = bytes((198, 51, 100, 2))


@pytest.mark.parametrize(
    ("ours", "recorded"),
    [
        pytest.param(nft.payload_is(1, 12, ADDRESS_BYTES), ADDRESS, id="address"),
        pytest.param(
            nft.meta_is(nft.NFT_META_L4PROTO, b"\6") + nft.payload_is(2, 0, PORT_40000),
            PORT,
            id="port",
        ),
        pytest.param(nft.payload_between(2, 0, b"\3", b"\5"), RANGE, id="range"),
        pytest.param(
            nft.meta_is(nft.NFT_META_IIFNAME, nft.interface_name("eth0")), IN_NAME, id="in name"
        ),
        pytest.param(nft.not_received_on_loopback(), NOT_IN_LO, id="not in lo"),
        pytest.param(nft.leaves_over_loopback(), OUT_LO, id="out lo"),
        pytest.param(nft.trace(), TRACE, id="trace"),
        pytest.param(nft.count("reply"), COUNT, id="count"),
        pytest.param(nft.accept(), ACCEPT, id="accept"),
        pytest.param(nft.drop(), DROP, id="drop"),
        pytest.param(nft.ct_is(nft.NFT_CT_DIRECTION, b"\1"), CT_REPLY, id="ct reply"),
        pytest.param(
            nft.ct_is(nft.NFT_CT_SRC_IP, ADDRESS_BYTES, nft.IP_CT_DIR_ORIGINAL),
            CT_ORIGINAL_ADDRESS,
            id="ct original address",
        ),
        pytest.param(nft.ct_untracked(), CT_UNTRACKED, id="ct untracked"),
    ],
)
def test_expressions_are_those_of_nft(ours: bytes, recorded: str) -> None:
    mine = expressions(without_nested_flag(ours))
    theirs = expressions(bytes.fromhex(recorded))[-len(mine) :]
    assert [name for name, _ in mine] == [name for name, _ in theirs]
    for (name, attributes), (_, full) in zip(mine, theirs, strict=True):
        # The kernel adds defaults to what it was given (NFTA_BITWISE_OP).
        assert attributes.items() <= full.items(), name


def test_comment_is_that_of_nft() -> None:
    assert nft.comment("ipttrace:abc").hex() == COMMENT


def test_longest_interface_name_fills_its_field() -> None:
    assert nft.interface_name("a" * 15) == b"a" * 15 + b"\0"


@pytest.mark.parametrize("name", ["", "a" * 16, "\u00e9" * 8])
def test_interface_name_of_wrong_length_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="interface name"):
        nft.interface_name(name)


def elements(data: bytes) -> list[tuple[int, bytes]]:
    found, offset = [], 0
    while offset < len(data):
        length, kind = _HEADER.unpack_from(data, offset)
        found.append((kind, data[offset + _HEADER.size : offset + length]))
        offset += (length + 3) & ~3
    return found


def expressions(data: bytes) -> list[tuple[str, dict[int, bytes]]]:
    found = []
    for _, element in elements(data):
        parts = parse(element)
        found.append((parts[nft.NFTA_EXPR_NAME].rstrip(b"\0").decode(), parse(parts[2])))
    return found


def without_nested_flag(data: bytes) -> bytes:
    """Return the same attributes as the kernel dumps them (nla_nest_start_noflag)."""
    plain = b""
    for kind, value in elements(data):
        inner = without_nested_flag(value) if kind & NLA_F_NESTED else value
        padding = bytes(-len(inner) % 4)
        plain += _HEADER.pack(4 + len(inner), kind & ~NLA_F_NESTED) + inner + padding
    return plain
