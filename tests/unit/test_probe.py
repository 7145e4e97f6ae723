"""The words of a probe: what is read, and what is refused with which words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttrace.errors import UsageError
from ipttrace.netfilter import PacketFamily
from ipttrace.probe import (
    ProbeSpec,
    parse_endpoint,
    parse_flags,
    parse_port,
    smallest_size,
    validate,
)

GOOD = ProbeSpec("tcp", "198.51.100.1", 8445)
INJECTED = replace(GOOD, in_interface="eth0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("198.51.100.1", ("198.51.100.1", None)),
        ("198.51.100.1:8445", ("198.51.100.1", 8445)),
        ("2001:db8::1", ("2001:db8::1", None)),
        ("2001:0DB8:0::1", ("2001:db8::1", None)),
        ("[2001:db8::1]", ("2001:db8::1", None)),
        ("[2001:db8::1]:53", ("2001:db8::1", 53)),
        ("2001:db8::1:53", ("2001:db8::1:53", None)),
        ("[198.51.100.1]:53", ("198.51.100.1", 53)),
    ],
)
def test_endpoints(text: str, expected: tuple[str, int | None]) -> None:
    assert parse_endpoint(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":80",
        "host",
        "host:80",
        "198.51.100.1:",
        "198.51.100.1:0",
        "198.51.100.1:65536",
        "198.51.100.1:-1",
        "198.51.100.1:+1",
        "198.51.100.1:8²",
        "198.51.100",
        "[2001:db8::1",
        "[2001:db8::1]53",
        "[2001:db8::1]:",
        "fe80::1%eth0",
        "[fe80::1%eth0]:80",
        "198.51.100.1:" + "9" * 5000,
        "198.51.100.1:0000080",
        "\x1b[31m",
    ],
)
def test_unreadable_endpoints(text: str) -> None:
    with pytest.raises(UsageError):
        parse_endpoint(text)


@given(st.text(max_size=60))
def test_any_text_is_an_endpoint_or_a_usage_error(text: str) -> None:
    try:
        address, port = parse_endpoint(text)
    except UsageError:
        return
    assert parse_endpoint(f"[{address}]" if port is None else f"[{address}]:{port}") == (
        address,
        port,
    )


def test_flags_come_in_wire_order() -> None:
    assert parse_flags("ack, syn") == ("SYN", "ACK")
    assert parse_flags("none") == ()


@pytest.mark.parametrize("text", ["", "SYN,", "SIN", "NONE,SYN"])
def test_unknown_flags(text: str) -> None:
    with pytest.raises(UsageError, match="there is no such flag"):
        parse_flags(text)


def test_ports() -> None:
    assert (parse_port("1"), parse_port("65535")) == (1, 65535)


@pytest.mark.parametrize(
    "spec",
    [
        GOOD,
        INJECTED,
        replace(INJECTED, tcp_flags=()),
        replace(INJECTED, tcp_flags=("SYN", "ACK"), sport=40000, count=3),
        replace(INJECTED, size=40, let_out=True),
        replace(GOOD, src="198.51.100.2", sport=40000, from_netns="client"),
        ProbeSpec("icmp", "198.51.100.1", size=28, ttl=255),
        ProbeSpec("icmp6", "2001:db8::1", size=48, ttl=1),
        ProbeSpec("udp", "2001:db8::1", 53, size=65575, count=500),
        ProbeSpec("icmp6", "fe80::1", in_interface="eth0"),
        ProbeSpec("icmp", "169.254.1.1"),
    ],
    ids=str,
)
def test_fitting_words(spec: ProbeSpec) -> None:
    assert validate(spec) is spec


REFUSED: list[tuple[ProbeSpec, dict[str, Any], str]] = [
    (GOOD, {"protocol": "sctp"}, "cannot send protocol 'sctp': it is not known. Choose one of"),
    (GOOD, {"dst": "2001:0db8::1"}, "not in its short form"),
    (GOOD, {"dst": "0.0.0.0"}, "it is the unspecified address"),
    (GOOD, {"dst": "::ffff:7f00:1"}, "IPv4 is sent there. Use 127.0.0.1."),
    (GOOD, {"src": "2001:db8::2"}, "one is IPv4, the other IPv6"),
    (GOOD, {"protocol": "icmp6", "dport": None}, "of the wrong family. Use icmp, or"),
    (ProbeSpec("icmp", "2001:db8::1"), {}, "of the wrong family. Use icmp6, or"),
    (GOOD, {"dport": None}, "the port is missing. Write A:P."),
    (ProbeSpec("udp", "2001:db8::1"), {}, "the port is missing. Write [A]:P."),
    (GOOD, {"protocol": "icmp"}, "icmp has no ports. Leave the port out."),
    (ProbeSpec("icmp", "198.51.100.1", sport=7), {}, "icmp has no ports"),
    (GOOD, {"dport": 0}, "cannot use port 0: not a number from 1 to 65535"),
    (GOOD, {"sport": 65536}, "cannot use port 65536"),
    (GOOD, {"in_interface": "lo"}, "Use a real connect(): leave --in out."),
    (INJECTED, {"from_netns": "client"}, "cannot use --in eth0 with --from client"),
    (ProbeSpec("icmp6", "fe80::1"), {}, "a link-local address needs an interface"),
    (GOOD, {"tcp_flags": ("ACK",)}, "a real client starts with SYN. Inject the packet with --in."),
    (INJECTED, {"tcp_flags": ("SIN",)}, "there is no such flag"),
    (INJECTED, {"protocol": "udp", "tcp_flags": ()}, "cannot set TCP flags NONE: the protocol"),
    (GOOD, {"size": 60}, "the kernel decides the size of a real SYN"),
    (INJECTED, {"size": 39}, "a packet has from 40 to 65535 bytes"),
    (ProbeSpec("udp", "2001:db8::1", 53), {"size": 65576}, "from 48 to 65575 bytes"),
    (GOOD, {"ttl": 0}, "cannot set --ttl 0: not a number from 1 to 255"),
    (GOOD, {"ttl": 256}, "cannot set --ttl 256"),
    (GOOD, {"count": 0}, "cannot send --count 0: not a number from 1 to 500"),
    (GOOD, {"count": 501}, "cannot send --count 501"),
    (GOOD, {"count": 2, "sport": 40000}, "has a socket of its own. Leave the source port out."),
    (GOOD, {"wait": 0.0}, "cannot wait 0 s"),
    (GOOD, {"wait": float("nan")}, "cannot wait nan s"),
    (GOOD, {"let_out": True}, "only an injected packet is kept in"),
    (GOOD, {"evidence": "some"}, "it is 'all' or 'none'"),
]


@pytest.mark.parametrize(("spec", "words", "message"), REFUSED, ids=[row[2] for row in REFUSED])
def test_words_that_do_not_fit(spec: ProbeSpec, words: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        validate(replace(spec, **words))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("protocol", "dst", "size"),
    [("tcp", "198.51.100.1", 40), ("udp", "2001:db8::1", 48), ("icmp6", "2001:db8::1", 48)],
)
def test_smallest_size(protocol: str, dst: str, size: int) -> None:
    spec = ProbeSpec(protocol, dst)
    assert smallest_size(spec) == size
    assert spec.family is (PacketFamily.IPV6 if ":" in dst else PacketFamily.IPV4)
