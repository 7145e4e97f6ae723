"""A small blocking request socket for NETLINK_NETFILTER.

Message forms: include/uapi/linux/netlink.h and include/uapi/linux/netfilter/nfnetlink.h.  What
the kernel refuses is raised as OSError with its errno; `explaining` makes one clear line of it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ipttrace.errors import IptTraceError, KernelError, NotPermittedError, NotSupportedError
from ipttrace.system.netlink_requests import messages_in

NETLINK_NETFILTER = 12
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10

NLM_F_REQUEST = 0x01
NLM_F_ACK = 0x04
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLMSG_ERROR = 2

NFNL_MSG_BATCH_BEGIN = 0x10
NFNL_MSG_BATCH_END = 0x11
NFNL_SUBSYS_CTNETLINK = 1
NFNL_SUBSYS_NFTABLES = 10

ANSWER_SECONDS = 10.0
"""The kernel answers within the system call; this is for a kernel that does not."""
READ_SIZE = 1 << 16

_NLMSGHDR = struct.Struct("=IHHII")
_NFGENMSG = struct.Struct(">BBH")
_ERRNO = struct.Struct("=i")

_NOT_PERMITTED = (errno.EPERM, errno.EACCES)
_NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT)


class Message:
    """One request: its type (subsystem and number), flags, and what stands after the header."""

    __slots__ = ("body", "flags", "kind")

    def __init__(
        self, subsystem: int, number: int, family: int, attributes: bytes, flags: int = 0
    ) -> None:
        self.kind = subsystem << 8 | number
        self.flags = flags
        self.body = _NFGENMSG.pack(family, 0, 0) + attributes

    def encode(self, sequence: int, flags: int = 0) -> bytes:
        """Return the message as it goes to the kernel."""
        length = _NLMSGHDR.size + len(self.body)
        all_flags = NLM_F_REQUEST | self.flags | flags
        return _NLMSGHDR.pack(length, self.kind, all_flags, sequence, 0) + self.body


class NfnetlinkSocket:
    """Sends requests to netfilter in the namespace where it was made, and waits for answers.

    Bound to the kernel's port number at its first request; nft tables with NFT_TABLE_F_OWNER
    belong to that number.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._socket.settimeout(ANSWER_SECONDS)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._sequence = 0

    def close(self) -> None:
        """Give the socket back; the kernel takes the tables that belong to it."""
        self._socket.close()

    def request(self, message: Message) -> None:
        """Send one request and wait for its acknowledgement; OSError if it is refused."""
        self._sequence += 1
        self._socket.send(message.encode(self._sequence, NLM_F_ACK))
        self._settle({self._sequence})

    def get(self, message: Message) -> bytes:
        """Return the attributes of the one object that is asked for; OSError if there is none."""
        self._sequence += 1
        self._socket.send(message.encode(self._sequence))
        while True:
            for kind, sequence, body in self._read():
                if sequence != self._sequence:
                    continue
                if kind == NLMSG_ERROR:
                    _raise_if_refused(body)
                return body[_NFGENMSG.size :]

    def transact(self, messages: Sequence[Message]) -> None:
        """Let nf_tables take all messages or none; OSError for the first that it refuses.

        A refusal of the whole batch (no privilege, no memory, commit) carries the number of its
        first header; refusals of single messages come before the last message's own answer
        (nfnetlink_rcv_batch in net/netfilter/nfnetlink.c).
        """
        first = self._sequence + 1
        last = first + len(messages)
        self._sequence = last + 1
        parts = [_batch_edge(NFNL_MSG_BATCH_BEGIN, first)]
        parts += [
            message.encode(number, NLM_F_ACK if number == last else 0)
            for number, message in enumerate(messages, first + 1)
        ]
        parts.append(_batch_edge(NFNL_MSG_BATCH_END, last + 1))
        self._socket.send(b"".join(parts))
        self._settle(set(range(first, last + 1)))

    def _settle(self, sequences: set[int]) -> None:
        """Read until the highest of `sequences` is answered; raise for the first refusal."""
        while True:
            for kind, sequence, body in self._read():
                if kind != NLMSG_ERROR or sequence not in sequences:
                    continue
                _raise_if_refused(body)
                if sequence == max(sequences):
                    return

    def _read(self) -> Iterator[tuple[int, int, bytes]]:
        return messages_in(self._socket.recv(READ_SIZE))


def _batch_edge(kind: int, sequence: int) -> bytes:
    """Return the first or last message of a batch; its res_id names the subsystem."""
    length = _NLMSGHDR.size + _NFGENMSG.size
    header = _NLMSGHDR.pack(length, kind, NLM_F_REQUEST, sequence, 0)
    return header + _NFGENMSG.pack(socket.AF_UNSPEC, 0, NFNL_SUBSYS_NFTABLES)


def _raise_if_refused(body: bytes) -> None:
    (code,) = _ERRNO.unpack_from(body)
    if code:
        raise OSError(-code, os.strerror(-code))


@contextmanager
def explaining(attempt: str) -> Iterator[None]:
    """Turn an OSError of the block into the user's error: `cannot <attempt>: <reason>`."""
    try:
        yield
    except OSError as error:
        raise refusal(attempt, error) from error


def refusal(attempt: str, error: OSError) -> IptTraceError:
    """Return what a user is told about a refused request."""
    line = f"cannot {attempt}: {error.strerror or 'the kernel did not answer'}"
    if error.errno in _NOT_PERMITTED:
        return NotPermittedError(line, "Run as root, or grant CAP_NET_ADMIN.")
    if error.errno in _NOT_SUPPORTED:
        return NotSupportedError(line, "The kernel lacks it, or its module is not loaded.")
    return KernelError(line)
