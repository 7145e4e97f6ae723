"""The nf_tables expressions that our rules are made of, as bytes.

Numbers are those of include/uapi/linux/netfilter/nf_tables.h.  A rule is the concatenation of
expressions: the kernel runs them in order and leaves the rule at the first one that does not hold,
so what stands before a comparison has already happened.
"""

from __future__ import annotations

import struct

from ipttrace.system.netlink_attributes import attribute, nested, number8, number32, string

NFT_REG_VERDICT = 0
NFT_REG_1 = 1

NFTA_LIST_ELEM = 1
NFTA_EXPR_NAME = 1
NFTA_EXPR_DATA = 2
NFTA_DATA_VALUE = 1
NFTA_DATA_VERDICT = 2
NFTA_VERDICT_CODE = 1

NFTA_CMP_SREG = 1
NFTA_CMP_OP = 2
NFTA_CMP_DATA = 3
NFT_CMP_EQ = 0
NFT_CMP_NEQ = 1
NFT_CMP_LTE = 3
NFT_CMP_GTE = 5

NFTA_META_DREG = 1
NFTA_META_KEY = 2
NFTA_META_SREG = 3
NFT_META_PROTOCOL = 1
NFT_META_IIF = 4
NFT_META_OIF = 5
NFT_META_IIFNAME = 6
NFT_META_OIFNAME = 7
NFT_META_NFTRACE = 12
NFT_META_NFPROTO = 15
NFT_META_L4PROTO = 16

NFTA_PAYLOAD_DREG = 1
NFTA_PAYLOAD_BASE = 2
NFTA_PAYLOAD_OFFSET = 3
NFTA_PAYLOAD_LEN = 4
NFT_PAYLOAD_NETWORK_HEADER = 1
NFT_PAYLOAD_TRANSPORT_HEADER = 2

NFTA_BITWISE_SREG = 1
NFTA_BITWISE_DREG = 2
NFTA_BITWISE_LEN = 3
NFTA_BITWISE_MASK = 4
NFTA_BITWISE_XOR = 5

NFTA_CT_DREG = 1
NFTA_CT_KEY = 2
NFTA_CT_DIRECTION = 3
NFT_CT_STATE = 0
NFT_CT_DIRECTION = 1
NFT_CT_STATUS = 2
NFT_CT_PROTOCOL = 10
NFT_CT_PROTO_SRC = 11
NFT_CT_PROTO_DST = 12
NFT_CT_SRC_IP = 19
NFT_CT_DST_IP = 20
NFT_CT_SRC_IP6 = 21
NFT_CT_DST_IP6 = 22
NFT_CT_ID = 23
IP_CT_DIR_ORIGINAL = 0
IP_CT_DIR_REPLY = 1
"""uapi/linux/netfilter/nf_conntrack_tuple_common.h."""
NF_CT_STATE_UNTRACKED_BIT = 1 << 6
IPS_NAT_MASK = 1 << 4 | 1 << 5
"""uapi/linux/netfilter/nf_conntrack_common.h."""

NFTA_IMMEDIATE_DREG = 1
NFTA_IMMEDIATE_DATA = 2
NF_DROP = 0
NF_ACCEPT = 1

NFTA_OBJREF_IMM_TYPE = 1
NFTA_OBJREF_IMM_NAME = 2
NFT_OBJECT_COUNTER = 1

NFTNL_UDATA_RULE_COMMENT = 0
"""Of libnftnl's udata.h: how `nft` finds a rule's comment in NFTA_RULE_USERDATA."""

IFNAMSIZ = 16
LOOPBACK_IFINDEX = 1
"""include/net/flow.h: in every namespace."""

_NATIVE32 = struct.Struct("=I")


def meta_is(key: int, value: bytes, operation: int = NFT_CMP_EQ) -> bytes:
    """Compare what the kernel knows of the packet; integers are in this machine's byte order."""
    load = expression("meta", number32(NFTA_META_DREG, NFT_REG_1), number32(NFTA_META_KEY, key))
    return load + _compare(operation, value)


def payload_is(base: int, offset: int, value: bytes) -> bytes:
    """Compare bytes of the packet from `offset` of the network or transport header on."""
    return payload(base, offset, len(value)) + _compare(NFT_CMP_EQ, value)


def payload_masked(
    base: int, offset: int, mask: bytes, value: bytes, operation: int = NFT_CMP_EQ
) -> bytes:
    """Compare some bits of two bytes of the packet."""
    kept = _masked(mask.ljust(_NATIVE32.size, b"\0"))
    return payload(base, offset, len(mask)) + kept + _compare(operation, value.ljust(4, b"\0"))


def payload_between(base: int, offset: int, low: bytes, high: bytes) -> bytes:
    """Compare bytes of the packet with both ends of a range, ends included."""
    load = payload(base, offset, len(low))
    return load + _compare(NFT_CMP_GTE, low) + _compare(NFT_CMP_LTE, high)


def ct_is(key: int, value: bytes, direction: int | None = None) -> bytes:
    """Compare what conntrack knows of the packet.  Having it in a rule switches conntrack on."""
    return _ct(key, direction) + _compare(NFT_CMP_EQ, value)


def ct_untracked() -> bytes:
    """Hold for packets that conntrack was told to leave alone (NOTRACK, TEE's clones)."""
    return _ct_has(NFT_CT_STATE, NF_CT_STATE_UNTRACKED_BIT)


def ct_translated() -> bytes:
    """Hold for packets of connections whose addresses or ports are rewritten."""
    return _ct_has(NFT_CT_STATUS, IPS_NAT_MASK)


def ct_id() -> bytes:
    """Load the number of the packet's connection into register 1; hold only if it has one."""
    return _ct(NFT_CT_ID, None)


def interface_name(name: str) -> bytes:
    """Return a name as the kernel compares it, with all its NULs; ValueError if it is too long."""
    data = name.encode()
    if not 0 < len(data) < IFNAMSIZ:
        raise ValueError(f"no interface name has {len(data)} bytes")
    return data.ljust(IFNAMSIZ, b"\0")


def not_received_on_loopback() -> bytes:
    """Hold unless the packet came in over `lo`."""
    return meta_is(NFT_META_IIF, _NATIVE32.pack(LOOPBACK_IFINDEX), NFT_CMP_NEQ)


def received_on_loopback() -> bytes:
    """Hold if the packet came in over `lo`."""
    return meta_is(NFT_META_IIF, _NATIVE32.pack(LOOPBACK_IFINDEX))


def leaves_over_loopback() -> bytes:
    """Hold if the packet goes out over `lo`."""
    return meta_is(NFT_META_OIF, _NATIVE32.pack(LOOPBACK_IFINDEX))


def never() -> bytes:
    """Hold for no packet: none has NFPROTO_UNSPEC."""
    return meta_is(NFT_META_NFPROTO, b"\0")


def trace() -> bytes:
    """Set the packet's trace bit."""
    value = nested(NFTA_IMMEDIATE_DATA, attribute(NFTA_DATA_VALUE, b"\1"))
    key = number32(NFTA_META_KEY, NFT_META_NFTRACE)
    return expression("immediate", number32(NFTA_IMMEDIATE_DREG, NFT_REG_1), value) + expression(
        "meta", key, number32(NFTA_META_SREG, NFT_REG_1)
    )


def count(name: str) -> bytes:
    """Count the packet in the table's named counter."""
    return object_of(NFT_OBJECT_COUNTER, name)


def object_of(kind: int, name: str) -> bytes:
    """Show the packet to a named object of the table."""
    return expression(
        "objref", number32(NFTA_OBJREF_IMM_TYPE, kind), string(NFTA_OBJREF_IMM_NAME, name)
    )


def accept() -> bytes:
    """Leave this base chain; the packet goes on to the next."""
    return _verdict(NF_ACCEPT)


def drop() -> bytes:
    """End the packet."""
    return _verdict(NF_DROP)


def comment(text: str) -> bytes:
    """Return the user data in which `nft` shows a rule's comment."""
    data = text.encode() + b"\0"
    return bytes((NFTNL_UDATA_RULE_COMMENT, len(data))) + data


def expression(name: str, *attributes: bytes) -> bytes:
    """Return one expression by its kernel name, with its own attributes."""
    return nested(NFTA_LIST_ELEM, string(NFTA_EXPR_NAME, name), nested(NFTA_EXPR_DATA, *attributes))


def _value(kind: int, value: bytes) -> bytes:
    return nested(kind, attribute(NFTA_DATA_VALUE, value))


def _compare(operation: int, value: bytes) -> bytes:
    return expression(
        "cmp",
        number32(NFTA_CMP_SREG, NFT_REG_1),
        number32(NFTA_CMP_OP, operation),
        _value(NFTA_CMP_DATA, value),
    )


def payload(base: int, offset: int, length: int, register: int = NFT_REG_1) -> bytes:
    """Load bytes of the packet into a register."""
    return expression(
        "payload",
        number32(NFTA_PAYLOAD_DREG, register),
        number32(NFTA_PAYLOAD_BASE, base),
        number32(NFTA_PAYLOAD_OFFSET, offset),
        number32(NFTA_PAYLOAD_LEN, length),
    )


def _ct(key: int, direction: int | None) -> bytes:
    way = b"" if direction is None else number8(NFTA_CT_DIRECTION, direction)
    return expression("ct", number32(NFTA_CT_DREG, NFT_REG_1), number32(NFTA_CT_KEY, key), way)


def _ct_has(key: int, mask: int) -> bytes:
    return _ct(key, None) + _masked(_NATIVE32.pack(mask)) + _compare(NFT_CMP_NEQ, _NATIVE32.pack(0))


def _masked(mask: bytes) -> bytes:
    return expression(
        "bitwise",
        number32(NFTA_BITWISE_SREG, NFT_REG_1),
        number32(NFTA_BITWISE_DREG, NFT_REG_1),
        number32(NFTA_BITWISE_LEN, _NATIVE32.size),
        _value(NFTA_BITWISE_MASK, mask),
        _value(NFTA_BITWISE_XOR, _NATIVE32.pack(0)),
    )


def _verdict(code: int) -> bytes:
    verdict = nested(NFTA_DATA_VERDICT, number32(NFTA_VERDICT_CODE, code))
    return expression(
        "immediate",
        number32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT),
        nested(NFTA_IMMEDIATE_DATA, verdict),
    )
