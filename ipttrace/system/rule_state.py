"""Whether the rules and links of a namespace are still the same, asked without reading them out.

nf_tables counts its commits.  ip_tables counts nothing: its tables are fetched as the kernel has
them (uapi/linux/netfilter_ipv4/ip_tables.h and its IPv6 twin) and compared without the counters.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import time
from collections.abc import Hashable
from typing import BinaryIO

from ipttrace.errors import NotSupportedError
from ipttrace.netfilter import PacketFamily
from ipttrace.system.legacy_rules import TABLE_NAMES
from ipttrace.system.link_state import LinkState
from ipttrace.system.namespaces import Namespace
from ipttrace.system.nft_netlink import NftSocket

SO_GET_INFO, SO_GET_ENTRIES = 64, 65
INFO = struct.Struct("=32s13I")
"""struct ipt_getinfo: the name first, the size of the entries last."""
HEAD = 40
"""Where the entries begin in struct ipt_get_entries."""
COUNTERS = 16
LAYOUTS = {
    PacketFamily.IPV4: (socket.AF_INET, socket.IPPROTO_IP, 90, 96),
    PacketFamily.IPV6: (socket.AF_INET6, socket.IPPROTO_IPV6, 142, 152),
}
"""Socket family and option level; where an entry has its length, and its counters."""
RETRY = 1.0
"""Seconds until ip_tables is looked for again in a kernel that had none."""
ATTEMPTS = 5
"""A table that is replaced between the question for its size and its entries is asked again."""

_libc = ctypes.CDLL(None, use_errno=True)


class NamespaceRuleState:
    """The RuleState of one namespace."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._nft: NftSocket | None = namespace.run(NftSocket)
        self._tables = [_LegacyTables(family, namespace) for family in PacketFamily]
        self._links = LinkState(namespace)

    def now(self) -> Hashable:
        """Return a value that differs from the last one if any rule or link was changed."""
        tables = (tables.now() for tables in self._tables)
        return (self._generation(), self._links.now(), *tables)

    def close(self) -> None:
        """Close the sockets."""
        if self._nft is not None:
            self._nft.close()
            self._nft = None
        for tables in self._tables:
            tables.close()
        self._links.close()

    def _generation(self) -> int | None:
        if self._nft is None:
            return None
        try:
            return self._nft.generation()
        except NotSupportedError:
            self._nft.close()
            self._nft = None
            return None


class _LegacyTables:
    """The ip_tables of one family."""

    def __init__(self, family: PacketFamily, namespace: Namespace) -> None:
        self._family = family
        self._namespace = namespace
        self._names: BinaryIO | None = None
        self._socket: socket.socket | None = None
        self._next_try = 0.0
        self._seen: dict[str, tuple[int, int]] = {}
        """By table: the mask that leaves its counters out, and what it was under this mask."""

    def now(self) -> Hashable:
        """Return the tables, as far as they are rules; makes none."""
        if self._names is None and not self._open():
            return ()
        assert self._names is not None
        self._names.seek(0)
        names = self._names.read().decode().split()
        return tuple((name, self._masked(name)) for name in sorted(names))

    def close(self) -> None:
        """Close what is open."""
        if self._names is not None:
            self._names.close()
        if self._socket is not None:
            self._socket.close()
        self._names = self._socket = None

    def _open(self) -> bool:
        """Open the list of tables, and a socket to ask by; both stay in the namespace."""
        if time.monotonic() < self._next_try:
            return False
        self._next_try = time.monotonic() + RETRY

        def inside() -> tuple[BinaryIO, socket.socket]:
            names = TABLE_NAMES[self._family].open("rb", buffering=0)
            kind = LAYOUTS[self._family][0]
            try:
                return names, socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_RAW)
            except OSError:
                names.close()
                raise

        try:
            self._names, self._socket = self._namespace.run(inside)
        except OSError:
            return False
        return True

    def _masked(self, name: str) -> int:
        """Return a table without its counters.

        A mask fits as long as nothing else is different: the first entry of another length shows.
        """
        entries = self._entries(name)
        value = int.from_bytes(entries, "little")
        mask, last = self._seen.get(name, (-1, -1))
        if value & mask != last:
            mask = _mask(entries, *LAYOUTS[self._family][2:])
            self._seen[name] = mask, value & mask
        return value & mask

    def _entries(self, name: str) -> bytes:
        """Return the entries of a table, empty if it has gone."""
        for _ in range(ATTEMPTS):
            try:
                size = INFO.unpack(self._ask(SO_GET_INFO, name, INFO.size))[-1]
                return self._ask(SO_GET_ENTRIES, name, HEAD + size, size)[HEAD:]
            except OSError as error:
                if error.errno not in {errno.EAGAIN, errno.EINVAL, errno.ENOENT}:
                    raise
        return b""

    def _ask(self, option: int, name: str, length: int, size: int = 0) -> bytes:
        assert self._socket is not None
        buffer = ctypes.create_string_buffer(struct.pack("=32sI", name.encode(), size), length)
        level = LAYOUTS[self._family][1]
        given = ctypes.c_uint32(length)
        descriptor = self._socket.fileno()
        if _libc.getsockopt(descriptor, level, option, buffer, ctypes.byref(given)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return buffer.raw


def _mask(entries: bytes, length_at: int, counters_at: int) -> int:
    """Return a number with all bits set but those of the entries' counters."""
    mask = bytearray(b"\xff" * len(entries))
    offset = 0
    while offset + counters_at + COUNTERS <= len(entries):
        mask[offset + counters_at : offset + counters_at + COUNTERS] = bytes(COUNTERS)
        (length,) = struct.unpack_from("=H", entries, offset + length_at)
        if length == 0:
            break
        offset += length
    return int.from_bytes(mask, "little")
