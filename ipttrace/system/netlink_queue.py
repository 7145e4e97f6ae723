"""One netlink socket that carries a namespace's trace reports and conntrack events in kernel order.

The socket listens to NFLOG group 0 (legacy trace reports), NFNLGRP_NFTRACE (nft trace reports) and
the conntrack groups at once: include/uapi/linux/netfilter/nfnetlink.h, nfnetlink_log.h.  The
reader only drains bytes; decoding happens later, outside the kernel's hurry.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from ipttrace.checkup.facts import Listener
from ipttrace.decode.netlink import decode_datagram
from ipttrace.decode.text import clean_text
from ipttrace.errors import KernelError, NotPermittedError, NotSupportedError
from ipttrace.event import Event
from ipttrace.ports import Datagram
from ipttrace.ruleset import Ruleset
from ipttrace.system.namespaces import Namespace
from ipttrace.system.port_owner import owner_of_port

NETLINK_NETFILTER = 12
SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
SO_RCVBUFFORCE = 33
RECEIVE_BUFFER = 64 << 20
"""Bytes: held a burst of 20,000 packets of 7 reports each without a loss."""
READ_SIZE = 1 << 16

NFNL_SUBSYS_ULOG = 4
NFULNL_MSG_CONFIG = 1
NFULA_CFG_CMD = 1
NFULA_CFG_MODE = 2
NFULA_CFG_QTHRESH = 5
NFULA_CFG_FLAGS = 6
NFULNL_CFG_CMD_BIND = 1
NFULNL_CFG_CMD_PF_BIND = 3
NFULNL_COPY_PACKET = 2
NFULNL_CFG_F_SEQ = 1
NFULNL_CFG_F_SEQ_GLOBAL = 2
COPY_BYTES = 256
"""Enough for every header the decoder reads, and the first bytes of the payload."""

NFNLGRP_CONNTRACK_NEW = 1
NFNLGRP_CONNTRACK_UPDATE = 2
NFNLGRP_CONNTRACK_DESTROY = 3
NFNLGRP_NFTRACE = 9

LOG_GROUPS = Path("/proc/thread-self/net/netfilter/nfnetlink_log")

NLM_F_REQUEST = 1
NLM_F_ACK = 4
NLMSG_NOOP = 1
NLMSG_ERROR = 2


class LogGroupAbsentError(NotSupportedError):
    """The kernel has no nfnetlink_log."""


class LogGroupTakenError(KernelError):
    """Another program listens to NFLOG group 0 of the namespace."""

    def __init__(self, namespace: Namespace, owner: Listener | None) -> None:
        self.owner = owner
        super().__init__(
            f"cannot listen to NFLOG group 0 in {namespace}: {owner_text(owner)} holds it",
            "Stop the other listener (ulogd2, another tracer) and try again.",
        )


def owner_text(owner: Listener | None) -> str:
    """Return the words for who holds the group."""
    if owner is None:
        return "another program"
    if owner.pid is None:
        return f"the program with netlink port {owner.port}"
    return f"pid {owner.pid} ({clean_text(owner.name or 'unknown')})"


class NetlinkQueue:
    """The trace reports of one namespace (an `ports.EventSource`)."""

    warnings: tuple[str, ...] = ()

    def __init__(self, namespace: Namespace, *, legacy: bool = True) -> None:
        """Open the socket inside `namespace`, and join the groups.

        Only with `legacy` the log group is bound: one program alone can hold it.
        LogGroupTakenError if another one does, LogGroupAbsentError if the kernel has none; the
        loggers are then as they were.
        """
        self._namespace = namespace
        self.position: int | None = None
        self._socket = namespace.run(_open_socket)
        try:
            if legacy:
                self._bind_log_group()
            self._join_groups()
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def drain(self) -> tuple[Sequence[Datagram], int]:
        """Return all datagrams that wait, and how often the kernel said ENOBUFS; never blocks."""
        datagrams: list[Datagram] = []
        overruns = 0
        receive = self._socket.recv
        while True:
            try:
                datagrams.append(Datagram(time.time(), receive(READ_SIZE, socket.MSG_DONTWAIT)))
            except BlockingIOError:
                if self.position is not None:
                    self.position += len(datagrams)
                return datagrams, overruns
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                overruns += 1

    def decode(
        self,
        datagrams: Sequence[Datagram],
        ruleset: Ruleset,  # noqa: ARG002 - other sources need it
    ) -> Sequence[Event]:
        """Return the events in order: the socket keeps it, whatever the rules."""
        return [
            event
            for datagram in datagrams
            for event in decode_datagram(datagram.data, datagram.time)
        ]

    def announce(self) -> None:
        """Let the kernel put one message into the queue, and take it out; count from here on.

        A control message that asks for an acknowledgement has no other effect (netlink_rcv_skb).
        To be called before anything is armed.
        """
        header = struct.pack("=IHHII", 16, NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, 1, 0)
        self._socket.send(header)
        self._expect_ack()
        self.position = 0

    def close(self) -> None:
        """Give the socket, and with it the log group, back to the kernel."""
        self._socket.close()

    def _bind_log_group(self) -> None:
        self._configure(0, (NFULA_CFG_CMD, struct.pack("Bxxx", NFULNL_CFG_CMD_BIND)))
        for family in (socket.AF_INET, socket.AF_INET6):
            command = struct.pack("Bxxx", NFULNL_CFG_CMD_PF_BIND)
            self._configure(family, (NFULA_CFG_CMD, command))
        self._configure(
            0,
            (NFULA_CFG_MODE, struct.pack(">IBx", COPY_BYTES, NFULNL_COPY_PACKET)),
            (NFULA_CFG_QTHRESH, struct.pack(">I", 1)),
            (NFULA_CFG_FLAGS, struct.pack(">H", NFULNL_CFG_F_SEQ | NFULNL_CFG_F_SEQ_GLOBAL)),
        )

    def _join_groups(self) -> None:
        for group in (
            NFNLGRP_NFTRACE,
            NFNLGRP_CONNTRACK_NEW,
            NFNLGRP_CONNTRACK_UPDATE,
            NFNLGRP_CONNTRACK_DESTROY,
        ):
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)

    def _configure(self, family: int, *attributes: tuple[int, bytes]) -> None:
        body = struct.pack(">BBH", family, 0, 0)
        body += b"".join(_attribute(number, value) for number, value in attributes)
        kind = (NFNL_SUBSYS_ULOG << 8) | NFULNL_MSG_CONFIG
        header = struct.pack("=IHHII", 16 + len(body), kind, NLM_F_REQUEST | NLM_F_ACK, 1, 0)
        self._socket.send(header + body)
        self._expect_ack()

    def _expect_ack(self) -> None:
        """Read until the kernel's answer; what others' rules report meanwhile is not ours."""
        kind, reply = NLMSG_NOOP, b""
        while kind != NLMSG_ERROR:
            try:
                reply = self._socket.recv(READ_SIZE)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue
            (kind,) = struct.unpack_from("=H", reply, 4)
        number = -struct.unpack_from("=i", reply, 16)[0]
        if number == 0:
            return
        if number == errno.EPERM and os.geteuid() == 0:
            raise LogGroupTakenError(self._namespace, self._namespace.run(_group_owner))
        if number == errno.EINVAL:  # nfnetlink_rcv_msg: no such subsystem
            raise LogGroupAbsentError(
                f"cannot listen to trace reports in {self._namespace}: no nfnetlink_log",
                "Load it: modprobe nfnetlink_log.",
            )
        reason = os.strerror(number)
        kind_of = NotPermittedError if number == errno.EPERM else KernelError
        raise kind_of(
            f"cannot listen to trace reports in {self._namespace}: {reason}",
            "Run as root, or grant CAP_NET_ADMIN.",
        )


def _open_socket() -> socket.socket:
    opened = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
    )
    try:
        opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    opened.bind((0, 0))
    return opened


def _attribute(number: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)


def _group_owner() -> Listener | None:
    """Return who holds group 0 of this thread's namespace."""
    try:
        rows = [line.split() for line in LOG_GROUPS.read_text().splitlines()]
        ports = [int(row[1]) for row in rows if len(row) > 1 and row[0] == "0"]
        return owner_of_port(ports[0]) if ports else None
    except (OSError, ValueError):
        return None
