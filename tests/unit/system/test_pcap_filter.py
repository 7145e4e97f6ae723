"""Packet filters: what libpcap makes of them, and what never gets that far."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from ipttrace.errors import NotSupportedError, UsageError
from ipttrace.system import pcap_filter
from ipttrace.system.pcap_filter import ALL, both_directions, compile_filter

LONG = " or ".join(f"port {number}" for number in range(1, 30))


@pytest.mark.parametrize(
    "text",
    [
        "tcp port 8445",
        "udp and dst port 53",
        "icmp",
        "host 198.51.100.2 and not port 22",
        "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn",
        "icmp6[icmp6type] = icmp6-echo",
        "ip6 and udp",
        "less 100",
        "src net 10.0.0.0/8",
        "net 10.0.0.0 mask 255.0.0.0",
        "host 2001:db8::1 or net 2001:db8:1::/48",
        "ip proto \\udp",
        "portrange 1000-2000",
        "tcp port http or domain",
        "not (icmp or igmp)",
        "ip[8] < 5 and len > 0x40",
    ],
)
def test_filters_of_tcpdump_are_taken(text: str) -> None:
    assert compile_filter(text) == compile_filter(f" {text}\n")
    assert 1 < len(compile_filter(text).program) <= 64


def test_program_is_in_the_kernels_words() -> None:
    """uapi/linux/bpf_common.h: BPF_LD | BPF_W | BPF_LEN, BPF_JMP | BPF_JGT | BPF_K, BPF_RET."""
    load, jump, *returns = compile_filter("less 100").program
    assert load == (0x80, 0, 0, 0)
    assert (jump[0], sorted(jump[1:3]), jump[3]) == (0x25, [0, 1], 100)
    assert [code for code, *_ in returns] == [6, 6]


def test_no_filter_takes_all() -> None:
    assert compile_filter(" \n").program == compile_filter("").both_ways == ALL


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tcp prt 80", "prt is no word of the filter language and no address. Names of hosts"),
        ("host www.example.org", "www.example.org is no word"),
        ("localhost", "localhost is no word"),
        ("port http and (udp or smtp)", "smtp is no word"),
        ("host fe80::1%eth0", "eth0 is no word"),
        ("3com.example", "3com.example is no word"),
        ("tcp and (", "can't parse filter expression: syntax error. See pcap-filter"),
        ("port 99999", "illegal port number 99999 > 65535"),
        ("port nonesuch", "unknown port 'nonesuch'"),
        ("arp", "expression rejects all packets"),
        ("vlan 4", "no VLAN support for Raw IP"),
        ("ether host 00:11:22:33:44:55", "ethernet addresses supported only on ethernet"),
        ("ether[0] & 1 != 0", "there is no ether header"),
        ("inbound and tcp", "netfilter does not say inbound"),
        ("host \x1b[2J", "it has control characters"),
        ("host \udcff", "it has control characters"),
        (LONG, "instructions, the kernel takes 64. Make it shorter"),
    ],
)
def test_what_cannot_be_used_is_said(text: str, reason: str) -> None:
    with pytest.raises(UsageError) as refused:
        compile_filter(text)
    assert str(refused.value).startswith("cannot use packet filter '")
    assert reason in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("text", "both"),
    [
        ("tcp port 80", "tcp port 80"),
        ("dst port 53", "(dst port 53) or (src port 53)"),
        (
            "src host 10.0.0.1 and dst port 80",
            "(src host 10.0.0.1 and dst port 80) or (dst host 10.0.0.1 and src port 80)",
        ),
        ("(src or dst) port 80", "((src or dst) port 80) or ((dst or src) port 80)"),
        ("proto \\src", "proto \\src"),
        ("tcp[tcpflags] & tcp-syn != 0", "tcp[tcpflags] & tcp-syn != 0"),
    ],
)
def test_other_direction(text: str, both: str) -> None:
    assert both_directions(text) == both


def test_other_direction_is_left_out_where_it_makes_a_filter_too_long() -> None:
    text = " or ".join(f"src port {number}" for number in range(1, 25))
    assert compile_filter(text).both_ways == ()
    assert compile_filter("src port 1").both_ways == compile_filter("port 1").program


def test_no_libpcap(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(NotSupportedError, match="there is no libpcap"):
        compile_filter("tcp")
    assert compile_filter("").program == ALL


def test_libpcap_is_not_loaded_before_it_is_used() -> None:
    script = (
        "import ipttrace.system.pcap_filter, pathlib\n"
        "print('libpcap' in pathlib.Path('/proc/self/maps').read_text())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
    assert pcap_filter.LIBRARIES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tcp[tcpflags] & tcp-syn != 0", True),
        ("port 53 and udp [8] > 1", True),
        ("ip and tcp[13] & 2 != 0", False),
        ("host 198.51.100.2 and tcp[13] & 2 != 0", False),
        ("icmp6[icmp6type] = icmp6-echo", False),
        ("ip6[53] & 2 != 0", False),
        ("tcp port 80", False),
    ],
)
def test_that_libpcap_looks_into_no_tcp_of_ipv6_is_said(text: str, said: bool) -> None:
    cautions = compile_filter(text).cautions
    assert len(cautions) == said
    assert all("takes IPv4 packets alone" in each for each in cautions)


def test_a_filter_that_takes_nothing_says_why() -> None:
    with pytest.raises(UsageError, match=r"rejects all packets.*'tcp\[\.\.\.\]' takes IPv4"):
        compile_filter("ip6 and tcp[13] & 2 != 0")
    with pytest.raises(UsageError, match="no ARP"):
        compile_filter("arp")
