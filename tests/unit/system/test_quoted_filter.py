"""The program for ICMP errors about what a filter takes, run as the kernel runs it."""

from __future__ import annotations

import pytest

from ipttrace.netfilter import PacketFamily
from ipttrace.request import Instruction
from ipttrace.system.pcap_filter import compile_filter
from ipttrace.system.quoted_filter import about_quoted
from tests.bpf_machine import takes

V4, V6 = PacketFamily.IPV4, PacketFamily.IPV6


def header(family: PacketFamily, protocol: int, payload: bytes, *, options: int = 0) -> bytes:
    if family is V4:
        first = bytes((0x45 + options, 0)) + (20 + 4 * options + len(payload)).to_bytes(2, "big")
        rest = bytes(4) + bytes((64, protocol)) + bytes(2)
        return (
            first + rest + bytes((198, 51, 100, 1, 198, 51, 100, 2)) + bytes(4 * options) + payload
        )
    first = bytes((0x60, 0, 0, 0)) + len(payload).to_bytes(2, "big") + bytes((protocol, 64))
    return first + bytes(15) + b"\1" + bytes(15) + b"\2" + payload


def udp(family: PacketFamily, dport: int, *, options: int = 0) -> bytes:
    ports = (40000).to_bytes(2, "big") + dport.to_bytes(2, "big")
    return header(family, 17, ports + bytes(4), options=options)


def error(family: PacketFamily, kind: int, quoted: bytes, *, options: int = 0) -> bytes:
    protocol = 1 if family is V4 else 58
    return header(family, protocol, bytes((kind, 0)) + bytes(6) + quoted, options=options)


def program(text: str, family: PacketFamily) -> tuple[Instruction, ...]:
    return about_quoted(compile_filter(text).both_ways, family)


KINDS = [*((V4, kind) for kind in (3, 4, 5, 11, 12)), *((V6, kind) for kind in (1, 2, 3, 4))]


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_an_error_about_what_the_filter_takes(family: PacketFamily, kind: int) -> None:
    made = program("udp dst port 53", family)
    assert takes(made, error(family, kind, udp(family, 53)))
    assert not takes(made, error(family, kind, udp(family, 54)))


@pytest.mark.parametrize("family", list(PacketFamily))
def test_what_is_no_error(family: PacketFamily) -> None:
    made = program("udp port 53", family)
    echo = 8 if family is V4 else 128
    assert not takes(made, error(family, echo, udp(family, 53)))
    assert not takes(made, udp(family, 53))
    assert not takes(made, b"")
    other = V6 if family is V4 else V4
    assert not takes(made, error(other, 3, udp(other, 53)))


def test_a_quoted_header_with_options_and_the_other_direction() -> None:
    made = program("udp src port 53", V4)
    assert takes(made, error(V4, 3, udp(V4, 53, options=2)))


def test_an_error_whose_own_header_has_options_is_not_judged() -> None:
    assert not takes(program("udp port 53", V4), error(V4, 3, udp(V4, 53), options=1))


def test_a_later_fragment_is_no_error() -> None:
    whole = error(V4, 3, udp(V4, 53))
    fragment = whole[:6] + b"\0\2" + whole[8:]
    assert not takes(program("udp port 53", V4), fragment)


@pytest.mark.parametrize("text", ["greater 1000", "udp and less 64"])
def test_lengths_cannot_be_judged_by_a_quotation(text: str) -> None:
    assert program(text, V4) == ()
