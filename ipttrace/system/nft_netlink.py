"""The few nf_tables requests that need no program: dumps, and deletions that are all or nothing.

Messages are those of uapi/linux/netfilter/nf_tables.h.  A batch of deletions carries the
generation that its dumps were made at (NFNL_BATCH_GENID): if anybody changed any rule since, the
kernel refuses the whole batch with ERESTART, so nothing of somebody else's can go with ours.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ipttrace.errors import NotSupportedError
from ipttrace.netfilter import NFPROTO, NFPROTO_NUMBER, TableFamily
from ipttrace.system.netlink_attributes import attribute, string
from ipttrace.system.nfnetlink import (
    NETLINK_NETFILTER,
    NFNL_MSG_BATCH_BEGIN,
    NFNL_MSG_BATCH_END,
    NFNL_SUBSYS_NFTABLES,
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_ERROR,
)

NLM_F_DUMP = 0x300
NLMSG_DONE = 3
SUBSYSTEM = NFNL_SUBSYS_NFTABLES << 8

GETTABLE, DELTABLE, GETCHAIN, DELCHAIN, GETRULE, DELRULE, GETGEN = 1, 2, 4, 5, 7, 8, 16
RECEIVE = 1 << 18
TIMEOUT = 5.0
"""Seconds that the kernel has for an answer."""


@dataclass(frozen=True, slots=True)
class NftObject:
    """One table, chain or rule of a dump: its family and its attributes, undecoded."""

    family: TableFamily
    attributes: Mapping[int, bytes]

    def text(self, kind: int) -> str:
        """Return a string attribute."""
        return self.attributes.get(kind, b"").rstrip(b"\0").decode(errors="replace")

    def number(self, kind: int) -> int:
        """Return an attribute in network byte order, 0 if it is not there."""
        return int.from_bytes(self.attributes.get(kind, b""), "big")


class StaleError(Exception):
    """Somebody changed the rules between the dump and the batch."""


class NftSocket:
    """A netlink socket to nf_tables in the calling thread's namespace."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._socket.settimeout(TIMEOUT)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def generation(self) -> int:
        """Return the number that every change of any rule raises; NotSupportedError without nft."""
        try:
            answers = self._ask(GETGEN, NLM_F_ACK, 0, b"")
        except OSError as error:
            raise NotSupportedError(f"no nf_tables in this kernel: {error.strerror}") from error
        return next((answer.number(1) for answer in answers), 0)

    def tables(self) -> list[NftObject]:
        """Return all tables (NFTA_TABLE_*)."""
        return self._ask(GETTABLE, NLM_F_DUMP, 0, b"")

    def chains(self) -> list[NftObject]:
        """Return all chains of all tables (NFTA_CHAIN_*)."""
        return self._ask(GETCHAIN, NLM_F_DUMP, 0, b"")

    def rules(self, family: TableFamily, table: str) -> list[NftObject]:
        """Return the rules of one table (NFTA_RULE_*)."""
        return self._ask(GETRULE, NLM_F_DUMP, NFPROTO_NUMBER[family], string(1, table))

    def batch(self, generation: int, deletions: list[tuple[int, TableFamily, bytes]]) -> None:
        """Delete all or nothing; StaleError if the rules are no longer of that generation."""
        begin = attribute(1, struct.pack(">I", generation))
        messages = [self._message(NFNL_MSG_BATCH_BEGIN, 0, 0, begin, NFNL_SUBSYS_NFTABLES)]
        for kind, family, attributes in deletions:
            number = NFPROTO_NUMBER[family]
            messages.append(self._message(SUBSYSTEM | kind, NLM_F_ACK, number, attributes))
        messages.append(self._message(NFNL_MSG_BATCH_END, 0, 0, b"", NFNL_SUBSYS_NFTABLES))
        self._socket.send(b"".join(messages))
        for _ in deletions:
            for answer_type, payload in _split(self._socket.recv(RECEIVE)):
                _check(answer_type, payload)

    def _ask(self, kind: int, flags: int, family: int, attributes: bytes) -> list[NftObject]:
        self._socket.send(self._message(SUBSYSTEM | kind, flags, family, attributes))
        found: list[NftObject] = []
        while True:
            for answer_type, payload in _split(self._socket.recv(RECEIVE)):
                if answer_type in {NLMSG_DONE, NLMSG_ERROR}:
                    _check(answer_type, payload)
                    return found
                found += _object(payload)

    def _message(
        self, kind: int, flags: int, family: int, attributes: bytes, res: int = 0
    ) -> bytes:
        """Build nlmsghdr and nfgenmsg; `res` is res_id, in network byte order."""
        self._sequence += 1
        body = struct.pack(">BBH", family, 0, res) + attributes
        header = struct.pack(
            "=IHHII", 16 + len(body), kind, NLM_F_REQUEST | flags, self._sequence, 0
        )
        return header + body


def delete_table(table: NftObject) -> tuple[int, TableFamily, bytes]:
    """Return the deletion of a table with all that is in it."""
    return DELTABLE, table.family, attribute(1, table.attributes[1])


def delete_chain(chain: NftObject) -> tuple[int, TableFamily, bytes]:
    """Return the deletion of a chain; the kernel refuses (EBUSY) if it has rules."""
    return (
        DELCHAIN,
        chain.family,
        attribute(1, chain.attributes[1]) + attribute(3, chain.attributes[3]),
    )


def delete_rule(rule: NftObject) -> tuple[int, TableFamily, bytes]:
    """Return the deletion of a rule by its handle."""
    names = b"".join(attribute(kind, rule.attributes[kind]) for kind in (1, 2, 3))
    return DELRULE, rule.family, names


def packets(rule: NftObject) -> int:
    """Return the packets that a rule's first counter expression has seen (NFTA_COUNTER_PACKETS)."""
    for _, element in attributes(rule.attributes.get(4, b"")):
        parts = dict(attributes(element))
        if parts.get(1) == b"counter\0":
            return int.from_bytes(dict(attributes(parts.get(2, b""))).get(2, b""), "big")
    return 0


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and value of each netlink attribute, without the nested and byte order flags."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _split(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if length < 16:
            return
        yield kind, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def _object(payload: bytes) -> list[NftObject]:
    family = NFPROTO.get(payload[0], TableFamily.IP) if payload else TableFamily.IP
    return [NftObject(family, dict(attributes(payload[4:])))]


def _check(kind: int, payload: bytes) -> None:
    """Raise what an NLMSG_ERROR or NLMSG_DONE says; a dump that was disturbed is stale, too."""
    number = -struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
    if kind not in {NLMSG_ERROR, NLMSG_DONE} or number == 0:
        return
    if number in {errno.ERESTART, errno.EINTR}:
        raise StaleError
    raise OSError(number, os.strerror(number))
