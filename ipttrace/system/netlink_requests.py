"""A small blocking socket that asks the kernel over netlink, one question at a time.

Message form: struct nlmsghdr of include/uapi/linux/netlink.h; integers are in host order.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Self

NLM_F_REQUEST, NLM_F_DUMP = 0x01, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3

ANSWER_SECONDS = 5.0
"""The kernel answers within the system call; this is for a kernel that does not."""
READ_SIZE = 1 << 18

_NLMSGHDR = struct.Struct("=IHHII")
_INT = struct.Struct("=i")


class RequestSocket:
    """Asks in the namespace where it was made."""

    def __init__(self, protocol: int) -> None:
        """Open the socket; `protocol` is one of NETLINK_*."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.settimeout(ANSWER_SECONDS)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _ask(self, kind: int, body: bytes, flags: int = 0) -> list[bytes]:
        """Return the answers without their headers; raises OSError."""
        self._sequence += 1
        length = _NLMSGHDR.size + len(body)
        header = _NLMSGHDR.pack(length, kind, NLM_F_REQUEST | flags, self._sequence, 0)
        self._socket.send(header + body)
        answers: list[bytes] = []
        while True:
            for found, sequence, answer in self._read():
                if sequence != self._sequence:
                    continue
                if found == NLMSG_DONE:
                    return answers
                if found == NLMSG_ERROR:
                    (code,) = _INT.unpack_from(answer)
                    raise OSError(-code, os.strerror(-code))
                answers.append(answer)
            if answers and not flags & NLM_F_DUMP:
                return answers

    def _read(self) -> Iterator[tuple[int, int, bytes]]:
        return messages_in(self._socket.recv(READ_SIZE))


def messages_in(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield type, sequence number and body of each message of a datagram (struct nlmsghdr)."""
    offset = 0
    while offset + _NLMSGHDR.size <= len(data):
        length, kind, _, sequence, _ = _NLMSGHDR.unpack_from(data, offset)
        if length < _NLMSGHDR.size:
            return
        yield kind, sequence, data[offset + _NLMSGHDR.size : offset + length]
        offset += (length + 3) & ~3
