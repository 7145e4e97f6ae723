from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.netfilter import PacketFamily
from ipttrace.packet import Flow
from ipttrace.system import nft_expressions as nft
from ipttrace.system.flow_selectors import FlowSelectors
from ipttrace.system.netlink_attributes import attribute, parse

V4, V6 = PacketFamily.IPV4, PacketFamily.IPV6
TCP = Flow(V4, "tcp", "198.51.100.2", "198.51.100.1", 40000, 8443)
PING6 = Flow(V6, "icmp6", "2001:db8::2", "2001:db8::1", icmp_id=7)
CLIENT, SERVER = bytes((198, 51, 100, 2)), bytes((198, 51, 100, 1))
SPORT, DPORT = (40000).to_bytes(2, "big"), (8443).to_bytes(2, "big")
CT = attribute(nft.NFTA_EXPR_NAME, b"ct\0")


def compared(selector: bytes) -> list[tuple[str, int, bytes]]:
    """Return what each comparison looks at (base or key, offset) and wants."""
    found: list[tuple[str, int, bytes]] = []
    loaded = ("", 0)
    while selector:
        length = int.from_bytes(selector[:2], "little")
        parts = parse(selector[4:length])
        name, data = parts[1].rstrip(b"\0").decode(), parse(parts[2])
        if name == "payload":
            base = {1: "network", 2: "transport"}[int.from_bytes(data[2], "big")]
            loaded = (base, int.from_bytes(data[3], "big"))
        elif name in ("meta", "ct"):
            loaded = (name, int.from_bytes(data[2], "big"))
        elif name == "cmp":
            found.append((*loaded, parse(data[3])[1]))
        selector = selector[(length + 3) & ~3 :]
    return found


def test_flow_is_its_five_tuple() -> None:
    assert compared(FlowSelectors(TCP).flow()) == [
        ("meta", nft.NFT_META_L4PROTO, b"\6"),
        ("network", 12, CLIENT),
        ("network", 16, SERVER),
        ("transport", 0, SPORT),
        ("transport", 2, DPORT),
    ]


def test_answers_swap_both_ends() -> None:
    assert compared(FlowSelectors(TCP).answers())[1:] == [
        ("network", 12, SERVER),
        ("network", 16, CLIENT),
        ("transport", 0, DPORT),
        ("transport", 2, SPORT),
    ]


def test_unknown_parts_are_left_out() -> None:
    flow = Flow(V4, "tcp", "0.0.0.0", "198.51.100.1", None, 8443)
    known = [("network", 16, SERVER), ("transport", 2, DPORT)]
    assert compared(FlowSelectors(flow, any_source=True).flow())[1:] == known


def test_errors_quote_the_flow_behind_eight_bytes() -> None:
    kinds = [(b"\3", b"\5"), (b"\x0b", b"\x0c")]
    for selector, (low, high) in zip(FlowSelectors(TCP).errors(), kinds, strict=True):
        assert compared(selector) == [
            ("meta", nft.NFT_META_L4PROTO, b"\1"),
            ("transport", 0, low),
            ("transport", 0, high),
            ("transport", 8, b"\x45"),
            ("transport", 17, b"\6"),
            ("transport", 20, CLIENT),
            ("transport", 24, SERVER),
            ("transport", 28, SPORT),
            ("transport", 30, DPORT),
        ]


def test_echo_is_known_by_type_and_id() -> None:
    select = FlowSelectors(PING6)
    assert compared(select.flow())[3:] == [("transport", 0, b"\x80"), ("transport", 4, b"\0\7")]
    assert compared(select.answers())[3:] == [("transport", 0, b"\x81"), ("transport", 4, b"\0\7")]
    (error,) = select.errors()
    assert compared(error)[-2:] == [("transport", 48, b"\x80"), ("transport", 52, b"\0\7")]


def test_entry_of_an_echo_has_its_id_for_a_source_port() -> None:
    keys = [(key, value) for name, key, value in compared(FlowSelectors(PING6).tracked())]
    assert keys[0] == (nft.NFT_CT_PROTOCOL, b"\x3a")
    assert keys[-1] == (nft.NFT_CT_PROTO_SRC, b"\0\7")


def test_only_tracked_selectors_have_ct() -> None:
    for flow in (TCP, PING6):
        select = FlowSelectors(flow)
        plain = [select.flow(), select.answers(), *select.errors(), *select.redirects()]
        assert not any(CT in selector for selector in plain + select.errors_about_answers())
        assert all(CT in selector for selector in [select.tracked(), *select.untracked_copies()])


@pytest.mark.parametrize(
    "flow",
    [
        Flow(V4, "icmp", "198.51.100.2", "198.51.100.1"),
        Flow(V4, "47", "198.51.100.2", "203.0.113.1"),
    ],
    ids=["icmp without id", "protocol by number"],
)
def test_copies_are_not_known_by_address_alone(flow: Flow) -> None:
    assert FlowSelectors(flow).untracked_copies() == []


def test_zone_of_a_link_local_address_is_no_part_of_it() -> None:
    flow = Flow(V6, "tcp", "fe80::2%eth0", "fe80::1%eth0", 1, 2)
    assert ("network", 8, bytes.fromhex("fe80" + "0" * 27 + "2")) in compared(
        FlowSelectors(flow).flow()
    )


def test_answers_from_elsewhere_are_known_by_the_client_and_its_port() -> None:
    udp = replace(TCP, protocol="udp")
    (selector,) = FlowSelectors(udp).answers_from_elsewhere()
    without_source = [
        each for n, each in enumerate(compared(FlowSelectors(udp).answers())) if n != 1
    ]
    assert compared(selector) == without_source
    assert FlowSelectors(TCP).answers_from_elsewhere() == []
    assert len(FlowSelectors(PING6).answers_from_elsewhere()) == 1
    assert FlowSelectors(PING6, any_source=True).answers_from_elsewhere() == []
    assert FlowSelectors(replace(udp, sport=None)).answers_from_elsewhere() == []
