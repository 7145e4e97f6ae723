"""Conntrack entries as the kernel answers IPCTNL_MSG_CT_GET, and the list of NFQUEUE's queues."""

from __future__ import annotations

import pytest

from ipttrace.decode.attributes import Malformed
from ipttrace.decode.conntrack import IPCTNL_MSG_CT_NEW, decode_conntrack, decode_tcp_state
from ipttrace.decode.queues import decode_queues

TCP = bytes.fromhex(
    "340001801400018008000100cb00710708000200c63364011c0002800500010006000000060002009c400000"
    "0600030020fb0000340002801400018008000100c633640908000200cb0071071c00028005000100060000000600"
    "020000500000060003009c40000008000300000001ae080008000000000508000c00a389f69d08000b0000000002"
    "0800070000000063300004802c000180050001000300000005000200000000000500030000000000060004000a00"
    "0000060005000a0000001c001880080001000000000008000200000000000800030000000000"
)
"""Kernel 6.18: conntrack -I -p tcp ... --state ESTABLISHED -m 5 --dst-nat 198.51.100.9:80."""

UDP = bytes.fromhex(
    "340001801400018008000100cb00710708000200c63364011c0002800500010011000000060002009c400000"
    "0600030020fb0000340002801400018008000100c633640108000200cb0071071c00028005000100110000000600"
    "020020fb0000060003009c4000000800030000000008080008000000000008000c00c95cd6e008000b0000000002"
    "08000700000000631c001880080001000000000008000200000000000800030000000000"
)


def test_an_entry_with_nat() -> None:
    entry = decode_conntrack(TCP, IPCTNL_MSG_CT_NEW, 0, 1.0)
    assert (entry.original.dst, entry.original.dport) == ("198.51.100.1", 8443)
    assert (entry.reply.src, entry.reply.sport) == ("198.51.100.9", 80)
    assert (entry.mark, entry.status) == (5, 0x1AE)
    assert decode_tcp_state(TCP) == "ESTABLISHED"


def test_other_protocols_have_no_state() -> None:
    assert decode_conntrack(UDP, IPCTNL_MSG_CT_NEW, 0, 1.0).original.protocol == "udp"
    assert decode_tcp_state(UDP) is None


def test_a_state_that_has_no_name_yet() -> None:
    assert decode_tcp_state(TCP.replace(b"\x05\0\1\0\3", b"\x05\0\1\0\x63")) is None


@pytest.mark.parametrize("length", range(4, len(TCP), 8))
def test_what_is_cut_off_is_malformed_or_has_no_state(length: int) -> None:
    try:
        state = decode_tcp_state(TCP[:length])
    except Malformed:
        return
    assert state in (None, "ESTABLISHED")


QUEUES = """\
    7  31337     0 2 65531     0     0        1  1
65535  -4213    12 2   128     3     0       44  1
"""


def test_queues_are_listed_by_number() -> None:
    assert decode_queues(QUEUES) == {7, 65535}


@pytest.mark.parametrize("text", ["", "\n", "nothing of the kind\n"])
def test_no_queues(text: str) -> None:
    assert decode_queues(text) == frozenset()
