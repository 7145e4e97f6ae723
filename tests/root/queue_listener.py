"""A program on an NFQUEUE queue: it takes packets, and holds them."""

from __future__ import annotations

import socket
import struct
from typing import Self

from ipttrace.system.netlink_attributes import attribute
from ipttrace.system.nfnetlink import NETLINK_NETFILTER, NLM_F_ACK, Message
from tests.root.kernel import in_namespace

NFNL_SUBSYS_QUEUE = 3
NFQNL_MSG_CONFIG = 2
NFQA_CFG_CMD, NFQNL_CFG_CMD_BIND = 1, 1
NFQA_CFG_PARAMS, NFQNL_COPY_META = 2, 1
NLMSG_ERROR = 2

"""uapi/linux/netfilter/nfnetlink_queue.h."""


class QueueListener:
    """Listens on one queue of a namespace."""

    def __init__(self, netns: str, number: int) -> None:
        self._number = number
        self._socket = in_namespace(netns).run(
            lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        )
        self._socket.settimeout(10)
        self._configure(attribute(NFQA_CFG_CMD, struct.pack(">BxH", NFQNL_CFG_CMD_BIND, 0)))
        self._configure(attribute(NFQA_CFG_PARAMS, struct.pack(">IB", 0, NFQNL_COPY_META)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _configure(self, attributes: bytes) -> None:
        self._send(NFQNL_MSG_CONFIG, attributes, NLM_F_ACK)
        kind, body = self._receive()
        assert kind == NLMSG_ERROR
        assert struct.unpack_from("=i", body) == (0,)

    def _send(self, number: int, attributes: bytes, flags: int = 0) -> None:
        message = bytearray(Message(NFNL_SUBSYS_QUEUE, number, 0, attributes, flags).encode(1))
        struct.pack_into(">H", message, 18, self._number)  # nfgenmsg.res_id
        self._socket.send(message)

    def _receive(self) -> tuple[int, bytes]:
        data = self._socket.recv(1 << 16)
        return struct.unpack_from("=H", data, 4)[0], data[16:]
