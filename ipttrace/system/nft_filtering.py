"""The nf_tables expressions of a packet filter: xt_bpf, rate limits, remembered connections.

Numbers are those of include/uapi/linux/netfilter/nf_tables.h and nf_tables_compat.h.
"""

from __future__ import annotations

import struct

from ipttrace.request import burst
from ipttrace.system import nft_expressions as nft
from ipttrace.system.netlink_attributes import attribute, nested, number32, number64, string
from ipttrace.system.quoted_filter import about_quoted

TYPE_CHECKING = False  # typing's own costs 5 ms to import
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipttrace.netfilter import PacketFamily
    from ipttrace.request import Instruction, PacketFilter

NFTA_MATCH_NAME = 1
NFTA_MATCH_REV = 2
NFTA_MATCH_INFO = 3
XT_BPF_MAX_NUM_INSTR = 64
_SOCK_FILTER = struct.Struct("=HBBI")
XT_BPF_INFO_SIZE = 528
"""struct xt_bpf_info of uapi/linux/netfilter/xt_bpf.h: its pointer is aligned to 8 everywhere."""
PROGRAM_OFFSET = 4

NFT_OBJECT_LIMIT = 4
NFTA_LIMIT_RATE = 1
NFTA_LIMIT_UNIT = 2
NFTA_LIMIT_BURST = 3

NFTA_DYNSET_SET_NAME = 1
NFTA_DYNSET_SET_ID = 2
NFTA_DYNSET_OP = 3
NFTA_DYNSET_SREG_KEY = 4
NFT_DYNSET_OP_UPDATE = 1
NFTA_LOOKUP_SET = 1
NFTA_LOOKUP_SREG = 2
NFTA_LOOKUP_SET_ID = 4

NFTA_SET_TABLE = 1
NFTA_SET_NAME = 2
NFTA_SET_FLAGS = 3
NFTA_SET_KEY_TYPE = 4
NFTA_SET_KEY_LEN = 5
NFTA_SET_DESC = 9
NFTA_SET_ID = 10
NFTA_SET_TIMEOUT = 11
NFTA_SET_DESC_SIZE = 1
NFT_SET_TIMEOUT = 0x10
NFT_SET_EVAL = 0x20
TYPE_MARK = 19
"""Of nft's datatype.h: how `nft list` prints 32 bits in the machine's byte order."""
CT_ID_SIZE = 4

CONNECTIONS = "connections"
"""The set of connections in which a packet matched."""
CONNECTIONS_ID = 1
"""The set's number inside the transaction that makes it."""
MOST_CONNECTIONS = 65536
MEMORY = 120
"""Seconds after the last matching packet for which a connection is remembered."""


def matches(program: Sequence[Instruction]) -> bytes:
    """Hold for packets that a BPF program takes (xt_bpf, through nft_compat)."""
    code = b"".join(_SOCK_FILTER.pack(*instruction) for instruction in program)
    head = struct.pack("=H", len(program)).ljust(PROGRAM_OFFSET, b"\0")
    return nft.expression(
        "match",
        string(NFTA_MATCH_NAME, "bpf"),
        number32(NFTA_MATCH_REV, 0),
        attribute(NFTA_MATCH_INFO, (head + code).ljust(XT_BPF_INFO_SIZE, b"\0")),
    )


def errors_about(packet_filter: PacketFilter, family: PacketFamily) -> bytes:
    """Hold for ICMP errors about packets of the filter, or of the other direction.

    Empty if there is no program for that which the kernel takes.
    """
    program = about_quoted(packet_filter.both_ways or packet_filter.program, family)
    return matches(program) if 0 < len(program) <= XT_BPF_MAX_NUM_INSTR else b""


def limit_data(per_second: int) -> bytes:
    """Return the attributes of a limit, of an expression or of a named object."""
    return b"".join(
        (
            number64(NFTA_LIMIT_RATE, per_second),
            number64(NFTA_LIMIT_UNIT, 1),
            number32(NFTA_LIMIT_BURST, burst(per_second)),
        )
    )


def limit(per_second: int) -> bytes:
    """Hold for at most so many packets a second."""
    return nft.expression("limit", limit_data(per_second))


def limited(name: str) -> bytes:
    """Hold for as many packets as a named limit lets pass, in all the rules that name it."""
    return nft.object_of(NFT_OBJECT_LIMIT, name)


def connections(table: str) -> bytes:
    """Return the attributes of the set of connections."""
    return b"".join(
        (
            string(NFTA_SET_TABLE, table),
            string(NFTA_SET_NAME, CONNECTIONS),
            number32(NFTA_SET_FLAGS, NFT_SET_TIMEOUT | NFT_SET_EVAL),
            number32(NFTA_SET_KEY_TYPE, TYPE_MARK),
            number32(NFTA_SET_KEY_LEN, CT_ID_SIZE),
            nested(NFTA_SET_DESC, number32(NFTA_SET_DESC_SIZE, MOST_CONNECTIONS)),
            number32(NFTA_SET_ID, CONNECTIONS_ID),
            number64(NFTA_SET_TIMEOUT, MEMORY * 1000),
        )
    )


def remember() -> bytes:
    """Put the packet's connection into the set, or renew it there; hold unless the set is full."""
    return nft.ct_id() + nft.expression(
        "dynset",
        string(NFTA_DYNSET_SET_NAME, CONNECTIONS),
        number32(NFTA_DYNSET_SET_ID, CONNECTIONS_ID),
        number32(NFTA_DYNSET_OP, NFT_DYNSET_OP_UPDATE),
        number32(NFTA_DYNSET_SREG_KEY, nft.NFT_REG_1),
    )


def remembered() -> bytes:
    """Hold for packets whose connection is in the set."""
    return nft.ct_id() + nft.expression(
        "lookup",
        string(NFTA_LOOKUP_SET, CONNECTIONS),
        number32(NFTA_LOOKUP_SREG, nft.NFT_REG_1),
        number32(NFTA_LOOKUP_SET_ID, CONNECTIONS_ID),
    )
