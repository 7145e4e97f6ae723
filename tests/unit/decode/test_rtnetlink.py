"""Answers of NETLINK_ROUTE, recorded on kernel 6.18 (the link's cut to its first attributes)."""

from __future__ import annotations

import pytest

from ipttrace.decode.attributes import Malformed
from ipttrace.decode.rtnetlink import (
    NeighbourMessage,
    RouteMessage,
    decode_mtu,
    decode_neighbour,
    decode_route,
)

CACHE = "24000c00" + "00" * 32
GATEWAY = (
    "02202000fe0000010002000008000f00fe00000008000100c000020108000200c63364020800040003000000"
    "08000500cb0071020c00080008000200780500000800030002000000" + CACHE
)
LOCAL_LOOKED_UP_IN_MAIN = (
    "02202000ff0000020002000008000f00fe00000008000100c633640108000200c63364020800040001000000"
)
NO_TABLE = LOCAL_LOOKED_UP_IN_MAIN.replace("ff000002", "00000002").replace("0f00fe", "0f0000")
BLACKHOLE = "020f0000fe0300060000000008000f00fe00000008000100c6120000"
PROHIBIT6 = (
    "0a400000fe0300080000000008000f00fe0000001400010020010db80009000000000000000000000800060000"
    "0400000800040001000000" + CACHE + "0500140000000000"
)
OUTPUT = (
    "02200000fe0000010002000008000f00fe00000008000100cb007102080004000300000008000700cb007101"
    "0800190000000000" + CACHE
)
VIA6 = "02200000fe0000010002000008000100cb0071021600120" + "00a0020010db800020000000000000000000200"
NEIGHBOUR = "02000000030000008000000108000100cb0071020a00020002000000cb020000"
LINK = "0000010003000000431001000000000009000300657468310000000008000400dc050000"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            GATEWAY,
            RouteMessage("unicast", "192.0.2.1/32", "main", 3, "203.0.113.2", None, 1400),
        ),
        (LOCAL_LOOKED_UP_IN_MAIN, RouteMessage("local", "198.51.100.1/32", "local", 1)),
        (BLACKHOLE, RouteMessage("blackhole", "198.18.0.0/15", "main")),
        (PROHIBIT6, RouteMessage("prohibit", "2001:db8:9::/64", "main", 1)),
        (OUTPUT, RouteMessage("unicast", "203.0.113.2/32", "main", 3, None, "203.0.113.1")),
    ],
)
def test_a_route(data: str, expected: RouteMessage) -> None:
    assert decode_route(bytes.fromhex(data)) == expected


def test_a_table_that_the_kernel_does_not_name_stays_unknown() -> None:
    assert decode_route(bytes.fromhex(NO_TABLE)).table is None


def test_an_ipv4_route_may_have_an_ipv6_gateway() -> None:
    assert decode_route(bytes.fromhex(VIA6)).gateway == "2001:db8:2::2"


def test_a_prefix_covers_its_addresses() -> None:
    route = decode_route(bytes.fromhex(BLACKHOLE))
    assert [route.covers(each) for each in ("198.19.255.1", "198.20.0.1")] == [True, False]
    assert route.bits == 15


def test_a_neighbour() -> None:
    found = decode_neighbour(bytes.fromhex(NEIGHBOUR))
    assert found == NeighbourMessage("permanent", "203.0.113.2")
    incomplete = NEIGHBOUR.replace("80000001", "01000001")
    assert decode_neighbour(bytes.fromhex(incomplete)).state == "incomplete"


def test_an_mtu() -> None:
    assert decode_mtu(bytes.fromhex(LINK)) == 1500


@pytest.mark.parametrize("decode", [decode_route, decode_neighbour, decode_mtu])
def test_what_is_cut_off_in_its_header_is_malformed(decode: object) -> None:
    assert callable(decode)
    with pytest.raises(Malformed):
        decode(b"\x02" * 7)


def test_an_attribute_of_another_size_is_malformed() -> None:
    with pytest.raises(Malformed):
        decode_route(bytes.fromhex(BLACKHOLE + "0600040001000000"))
