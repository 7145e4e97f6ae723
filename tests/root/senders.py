"""Packets equal to ipttrace's, made by the kernel for plain sockets, and what arrives of them."""

from __future__ import annotations

import os
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

from ipttrace.netfilter import PacketFamily
from ipttrace.probe import ProbeSpec
from tests.root.kernel import Endpoint
from tests.root.oracle import Headers
from tests.root.routed import Routed

AF = {PacketFamily.IPV4: socket.AF_INET, PacketFamily.IPV6: socket.AF_INET6}
ETHERTYPE = {PacketFamily.IPV4: 0x0800, PacketFamily.IPV6: 0x86DD}
ECHO = {PacketFamily.IPV4: (socket.IPPROTO_ICMP, 8), PacketFamily.IPV6: (58, 128)}
TCP, UDP = 6, 17
SYN, ACK = 2, 16
SENTINELS = (7, 9)
"""Ports of datagrams to the router that come after all else; no service of a test has them."""
PACKET_OUTGOING = 4
"""uapi/linux/if_packet.h."""


class Sender:
    """Sends one packet like that of `spec` from `end`; its socket stays open until the end."""

    def __init__(self, spec: ProbeSpec, end: Endpoint) -> None:
        self._spec = spec
        kinds = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
        kind = kinds.get(spec.protocol, socket.SOCK_RAW)
        number = 0 if kind is not socket.SOCK_RAW else ECHO[spec.family][0]
        self._socket = end.socket(AF[spec.family], kind, number)
        self._socket.setblocking(False)  # noqa: FBT003 - its only argument
        self._socket.bind(("::" if spec.family is PacketFamily.IPV6 else "0.0.0.0", 0))
        self.port = self._socket.getsockname()[1] if kind is not socket.SOCK_RAW else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self) -> None:
        """Send it; what the kernel refuses was traced all the same."""
        target = (self._spec.dst, self._spec.dport or 0)
        try:
            self._socket.connect(target)
            if self._spec.protocol == "udp":
                self._socket.send(bytes(16))
            elif self._spec.protocol != "tcp":
                self._socket.send(echo_request(ECHO[self._spec.family][1]))
        except OSError:
            return


def echo_request(kind: int) -> bytes:
    """Return an echo request of 56 bytes of data; the kernel writes the checksum of ICMPv6."""
    bare = struct.pack("!BBHHH", kind, 0, 0, 77, 1) + bytes(56)
    total = sum(struct.unpack(f"!{len(bare) // 2}H", bare))
    total = (total & 0xFFFF) + (total >> 16)
    return bare[:2] + struct.pack("!H", ~total & 0xFFFF) + bare[4:]


def send_sentinel(routed: Routed, family: PacketFamily, port: int) -> None:
    """Send a datagram from the client to the router."""
    spec = ProbeSpec("udp", routed.router.address(family), port)
    with Sender(spec, routed.client) as sender:
        sender.send()


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """Keep this thread on one CPU: what it sends over veth links is received in that order.

    netif_rx queues to the sender's CPU (enqueue_to_backlog in net/core/dev.c).
    """
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


class Arrivals:
    """Sees the packets of a probe's kind that come in at `ends`, not their answers."""

    def __init__(self, spec: ProbeSpec, *ends: Endpoint) -> None:
        self._spec = spec
        self._stack = ExitStack()
        self._sockets = {end.netns: self._open(end) for end in ends}
        self.seen: Counter[tuple[str, Headers]] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self, end: Endpoint) -> socket.socket:
        number = ETHERTYPE[self._spec.family]
        opened = end.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(number))
        self._stack.callback(opened.close)
        opened.bind((end.interface, number))
        opened.setblocking(False)  # noqa: FBT003 - its only argument
        return opened

    def look(self) -> Counter[tuple[str, Headers]]:
        """Return how often each packet has come in where so far."""
        for netns, opened in self._sockets.items():
            self.seen.update((netns, headers) for headers in self._received(opened))
        return self.seen

    def _received(self, opened: socket.socket) -> Iterator[Headers]:
        while True:
            try:
                data, address = opened.recvfrom(2048)
            except BlockingIOError:
                return
            if address[2] != PACKET_OUTGOING and self._is_of_its_kind(*split(data)):
                headers = headers_of(*split(data))
                if headers.dport not in SENTINELS:
                    yield headers

    def _is_of_its_kind(self, protocol: int, network: bytes, transport: bytes) -> bool:
        if self._spec.protocol == "tcp":
            return protocol == TCP and transport[13] & (SYN | ACK) == SYN
        if self._spec.protocol == "udp":
            return protocol == UDP
        return (protocol, transport[0]) == ECHO[self._spec.family]


def split(data: bytes) -> tuple[int, bytes, bytes]:
    """Return the transport protocol, the network header and what follows it."""
    if data[0] >> 4 == 6:
        return data[6], data[:40], data[40:]
    length = (data[0] & 15) * 4
    return data[9], data[:length], data[length:]


def headers_of(protocol: int, network: bytes, transport: bytes) -> Headers:
    """Return the addresses, and the ports of TCP and UDP."""
    v4 = network[0] >> 4 == 4
    ends = (network[12:16], network[16:20]) if v4 else (network[8:24], network[24:40])
    src, dst = (socket.inet_ntop(socket.AF_INET if v4 else socket.AF_INET6, end) for end in ends)
    if protocol not in (TCP, UDP) or len(transport) < 4:
        return Headers(src, dst, None, None)
    return Headers(src, dst, *struct.unpack_from("!HH", transport))
