"""Any bytes are read, and nothing is raised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttrace.netfilter import PacketFamily
from ipttrace.packet import PAYLOAD_KEPT, parse_headers, parse_packet

FAMILIES = st.sampled_from(PacketFamily)
LIKELY_V4 = st.builds(
    lambda rest, protocol, fragment: b"\x45" + rest[:5] + fragment + b"\x40" + protocol + rest,
    st.binary(min_size=20, max_size=120),
    st.sampled_from([1, 6, 17, 58, 132, 200]).map(lambda number: bytes([number])),
    st.sampled_from([b"\0\0", b"\x20\0", b"\0\x09"]),
)
LIKELY_V6 = st.builds(
    lambda rest, following: b"\x60" + rest[:5] + following + b"\x40" + rest,
    st.binary(min_size=40, max_size=160),
    st.sampled_from([0, 1, 6, 17, 43, 44, 51, 58, 59, 60, 132]).map(lambda n: bytes([n])),
)
BYTES = st.binary(max_size=120) | LIKELY_V4 | LIKELY_V6


@given(BYTES, FAMILIES)
def test_any_bytes_give_a_summary_or_nothing(data: bytes, family: PacketFamily) -> None:
    packet = parse_packet(data, family)
    assert packet is None or len(packet.payload) <= PAYLOAD_KEPT


@given(BYTES, st.binary(max_size=20), FAMILIES)
def test_any_two_headers_give_a_summary_or_nothing(
    network: bytes, transport: bytes, family: PacketFamily
) -> None:
    packet = parse_headers(network[:40], transport, family)
    assert packet is None or packet.family is family


@pytest.mark.parametrize(
    ("likely", "family"), [(LIKELY_V4, PacketFamily.IPV4), (LIKELY_V6, PacketFamily.IPV6)]
)
def test_a_cut_packet_never_says_something_else(
    likely: st.SearchStrategy[bytes], family: PacketFamily
) -> None:
    @given(likely, st.integers(0, 160))
    def check(data: bytes, kept: int) -> None:
        whole, cut = parse_packet(data, family), parse_packet(data[:kept], family)
        if whole is None or cut is None:
            assert cut is None
            return
        assert (cut.src, cut.dst, cut.length, cut.ttl) == (
            whole.src,
            whole.dst,
            whole.length,
            whole.ttl,
        )
        assert cut.sport in (whole.sport, None)
        assert cut.dport in (whole.dport, None)
        assert cut.tcp_seq in (whole.tcp_seq, None)

    check()
