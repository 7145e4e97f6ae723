"""What our tables do for IPv4 fragments: only the first has ports, and tells of the others.

Where a filter takes a first fragment, what all fragments of a packet have in common (RFC 791) is
remembered for as long as the kernel waits for them, and the later ones are known by it.  Senders
send the first one first.  IPv6's fragments have a header of their own: no filter looks behind it.
"""

from __future__ import annotations

from ipttrace.system import nft_expressions as nft
from ipttrace.system.netlink_attributes import nested, number32, number64, string
from ipttrace.system.nft_filtering import (
    NFT_DYNSET_OP_UPDATE,
    NFT_SET_EVAL,
    NFT_SET_TIMEOUT,
    NFTA_DYNSET_OP,
    NFTA_DYNSET_SET_ID,
    NFTA_DYNSET_SET_NAME,
    NFTA_DYNSET_SREG_KEY,
    NFTA_LOOKUP_SET,
    NFTA_LOOKUP_SET_ID,
    NFTA_LOOKUP_SREG,
    NFTA_SET_DESC,
    NFTA_SET_DESC_SIZE,
    NFTA_SET_FLAGS,
    NFTA_SET_ID,
    NFTA_SET_KEY_LEN,
    NFTA_SET_KEY_TYPE,
    NFTA_SET_NAME,
    NFTA_SET_TABLE,
    NFTA_SET_TIMEOUT,
)

FRAGMENTED = "fragmented"
"""The set of packets whose first fragment was taken."""
FRAGMENTED_ID = 2
"""The set's number inside the transaction that makes it."""
MOST_PACKETS = 4096
MEMORY = 30
"""Seconds that the kernel waits for fragments (IP_FRAG_TIME in include/net/ip.h)."""

NFT_REG32_00 = 8
TYPE_ADDRESS, TYPE_PROTOCOL, TYPE_NUMBER = 7, 12, 13
"""Of nft's datatype.h: ipv4_addr, inet_proto, and inet_service for the id, which has no type."""
TYPE_BITS = 6

OFFSET_AT, ID_AT, PROTOCOL_AT, ADDRESSES_AT = 6, 4, 9, 12
MORE = b"\x20\x00"
"""IP_MF alone, which the first fragment has, of these:"""
MORE_OR_LATER, LATER = b"\x3f\xff", b"\x1f\xff"
_NETWORK = nft.NFT_PAYLOAD_NETWORK_HEADER


def rules_with_fragments(matches: bytes, taken: bytes, later: bytes) -> list[bytes]:
    """Return rules in order: `taken` for what matches, `later` for the fragments that follow it."""
    first = nft.payload_masked(_NETWORK, OFFSET_AT, MORE_OR_LATER, MORE)
    following = nft.payload_masked(_NETWORK, OFFSET_AT, LATER, bytes(2), nft.NFT_CMP_NEQ)
    return [
        first + matches + taken + _remember() + nft.accept(),
        first + matches + nft.accept(),
        matches + taken + nft.accept(),
        following + _remembered() + later + nft.accept(),
    ]


def fragmented(table: str) -> bytes:
    """Return the attributes of the set."""
    kind = 0
    for each in (TYPE_ADDRESS, TYPE_ADDRESS, TYPE_NUMBER, TYPE_PROTOCOL):
        kind = kind << TYPE_BITS | each
    return b"".join(
        (
            string(NFTA_SET_TABLE, table),
            string(NFTA_SET_NAME, FRAGMENTED),
            number32(NFTA_SET_FLAGS, NFT_SET_TIMEOUT | NFT_SET_EVAL),
            number32(NFTA_SET_KEY_TYPE, kind),
            number32(NFTA_SET_KEY_LEN, 16),
            nested(NFTA_SET_DESC, number32(NFTA_SET_DESC_SIZE, MOST_PACKETS)),
            number32(NFTA_SET_ID, FRAGMENTED_ID),
            number64(NFTA_SET_TIMEOUT, MEMORY * 1000),
        )
    )


def _key() -> bytes:
    """Load both addresses, id and protocol, each padded to 32 bits."""
    return (
        nft.payload(_NETWORK, ADDRESSES_AT, 8, NFT_REG32_00)
        + nft.payload(_NETWORK, ID_AT, 2, NFT_REG32_00 + 2)
        + nft.payload(_NETWORK, PROTOCOL_AT, 1, NFT_REG32_00 + 3)
    )


def _remember() -> bytes:
    return _key() + nft.expression(
        "dynset",
        string(NFTA_DYNSET_SET_NAME, FRAGMENTED),
        number32(NFTA_DYNSET_SET_ID, FRAGMENTED_ID),
        number32(NFTA_DYNSET_OP, NFT_DYNSET_OP_UPDATE),
        number32(NFTA_DYNSET_SREG_KEY, NFT_REG32_00),
    )


def _remembered() -> bytes:
    return _key() + nft.expression(
        "lookup",
        string(NFTA_LOOKUP_SET, FRAGMENTED),
        number32(NFTA_LOOKUP_SREG, NFT_REG32_00),
        number32(NFTA_LOOKUP_SET_ID, FRAGMENTED_ID),
    )
