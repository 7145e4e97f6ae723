"""Injected bytes: the template with changed bytes is what scapy would have built."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttrace.packet import Flow
from ipttrace.probe import ProbeSpec, validate
from ipttrace.system.packets import (
    Identity,
    checksum,
    describe,
    flow_of,
    frames,
    opens_connection,
    reset_frames,
)

MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
ADDRESSES = {4: ("198.51.100.1", "203.0.113.7"), 6: ("2001:db8::1", "2001:db8::7")}


def spec_of(protocol: str, version: int = 4, **words: object) -> ProbeSpec:
    dst, src = ADDRESSES[version]
    port = None if protocol.startswith("icmp") else 8443
    spec = ProbeSpec(protocol, dst, port, src, in_interface="eth0")
    return validate(replace(spec, **words))  # type: ignore[arg-type]


def built(spec: ProbeSpec, count: int = 3) -> tuple[list[bytes], list[Flow], list[Identity]]:
    identities = [Identity() for _ in range(count)]
    flows = [
        flow_of(spec, spec.src or "", 40000 + number if spec.dport else None, identity)
        for number, identity in enumerate(identities)
    ]
    return list(frames(spec, flows, identities, MACS)), flows, identities


SPECS = {
    "syn": spec_of("tcp"),
    "syn6": spec_of("tcp", 6),
    "syn with data": spec_of("tcp", size=201),
    "syn without room for options": spec_of("tcp", size=59),
    "fin ack cwr": spec_of("tcp", tcp_flags=("FIN", "ACK", "CWR"), size=40),
    "no flags": spec_of("tcp", 6, tcp_flags=(), ttl=1),
    "udp": spec_of("udp"),
    "udp of one byte": spec_of("udp", size=29),
    "largest udp": spec_of("udp", size=65535),
    "udp6": spec_of("udp", 6),
    "icmp": spec_of("icmp", ttl=255),
    "icmp without data": spec_of("icmp", size=28),
    "icmp6": spec_of("icmp6", 6),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_frames_are_what_scapy_would_build(spec: ProbeSpec) -> None:
    """Scapy reads each frame; without its checksums it computes them again."""
    from scapy.layers.l2 import Ether

    made, flows, identities = built(spec)
    for frame, flow, identity in zip(made, flows, identities, strict=True):
        read = Ether(frame)
        layer = read
        while layer.payload:
            layer = layer.payload
            for name in {"chksum", "cksum", "len", "plen", "dataofs"} & set(layer.fields):
                layer.delfieldval(name)
        assert bytes(read) == frame
        assert len(frame) - 14 == describe(spec, flow, identity).length


def test_announced_headers_are_in_the_bytes() -> None:
    made, flows, identities = built(SPECS["syn"])
    for frame, flow, identity in zip(made, flows, identities, strict=True):
        known = describe(SPECS["syn"], flow, identity)
        assert int.from_bytes(frame[18:20], "big") == known.ip_id != 0
        assert int.from_bytes(frame[34:36], "big") == known.sport
        assert int.from_bytes(frame[38:42], "big") == known.tcp_seq
    assert len({identity.tcp_seq for identity in identities}) == 3


def test_nonce_is_the_payload() -> None:
    made, flows, identities = built(SPECS["udp"])
    for frame, flow, identity in zip(made, flows, identities, strict=True):
        assert frame[42:] == identity.nonce == describe(SPECS["udp"], flow, identity).payload


def test_rst_follows_the_syn() -> None:
    spec = SPECS["syn"]
    _, flows, identities = built(spec)
    identities[0] = replace(identities[0], tcp_seq=0xFFFFFFFF)
    resets = list(reset_frames(spec, flows, identities, MACS))
    assert resets[0][38:42] == bytes(4)
    assert [frame[47] for frame in resets] == [0x04] * 3
    assert [len(frame) for frame in resets] == [54] * 3
    assert [frame[34:38] for frame in resets] == [frame[34:38] for frame in built(spec)[0]]


@pytest.mark.parametrize("name", ["udp", "icmp", "fin ack cwr", "no flags"])
def test_no_rst_where_nothing_was_opened(name: str) -> None:
    spec = SPECS[name]
    _, flows, identities = built(spec)
    assert list(reset_frames(spec, flows, identities, MACS)) == []


def test_what_opens_a_connection() -> None:
    assert opens_connection(("SYN",))
    assert opens_connection(("SYN", "ECE", "CWR"))
    assert not opens_connection(("SYN", "ACK"))
    assert not opens_connection(("SYN", "RST"))
    assert not opens_connection(())


@given(st.binary(max_size=200))
def test_checksum_is_that_of_rfc_1071(data: bytes) -> None:
    padded = data + b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(padded[i : i + 2], "big") for i in range(0, len(padded), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    assert checksum(data) == (~total & 0xFFFF).to_bytes(2, "big")
