"""Traffic of many kinds between a pair, and an independent count of what a filter takes of it."""

from __future__ import annotations

import ctypes
import json
import socket
import struct
from contextlib import ExitStack, suppress
from typing import Self

from ipttrace.netfilter import PacketFamily
from tests.root.kernel import Endpoint, Pair, run, wait_for_addresses
from tests.waiting import wait_until

V4, V6 = PacketFamily.IPV4, PacketFamily.IPV6
AF = {V4: socket.AF_INET, V6: socket.AF_INET6}
ECHO = {V4: (socket.IPPROTO_ICMP, 8), V6: (socket.IPPROTO_ICMPV6, 128)}
ANOTHER = {V4: "198.51.100.3/24", V6: "2001:db8::3/64"}
"""A second address of the client."""

ETH_P_ALL = 3
IP_FRAMES = frozenset({0x0800, 0x86DD})
SO_ATTACH_FILTER = 26
"""uapi/asm-generic/socket.h."""


class Sniffer:
    """Counts the IP packets at an interface that tcpdump's own program for a filter takes.

    A cooked packet socket (SOCK_DGRAM) runs its filter from the network header on (packet_rcv in
    net/packet/af_packet.c), which is what link type RAW means.
    """

    def __init__(self, end: Endpoint, text: str) -> None:
        self._seen = 0
        self._socket = end.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
        self._attach(run("tcpdump", "-y", "RAW", "-ddd", text).splitlines()[1:])
        self._socket.bind((end.interface, ETH_P_ALL))
        self._socket.settimeout(0)

    def _attach(self, lines: list[str]) -> None:
        program = b"".join(struct.pack("=HBBI", *map(int, line.split())) for line in lines)
        kept = ctypes.create_string_buffer(program)
        filter_ = struct.pack("@HP", len(lines), ctypes.addressof(kept))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_)

    def close(self) -> None:
        self._socket.close()

    def seen(self) -> int:
        """Return how many came so far."""
        with suppress(BlockingIOError):
            while True:
                _, (_, kind, *_) = self._socket.recvfrom(64)
                self._seen += kind in IP_FRAMES
        return self._seen


class Mixed:
    """Sends and answers; what it makes is the same every time.

    In each family: 3 datagrams to port 53, 1 more from another address, 1 large one to port 5000,
    2 back from port 53, a TCP connection (SYN, SYN-ACK, ACK, RST) to 8445 and one to 22, and an
    echo with its reply: 17 packets.
    """

    PORTS = (53, 5000)

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._stack = ExitStack()
        self._udp: dict[tuple[PacketFamily, int], socket.socket] = {}

    def __enter__(self) -> Self:
        know_each_other(self._pair)
        for family in PacketFamily:
            client = self._pair.client
            client.run("ip", "address", "add", ANOTHER[family], "dev", client.interface, "nodad")
            wait_for_addresses(client.netns)
            to = self._pair.server.address(family)
            for port in self.PORTS:
                self._udp[family, port] = self._bound(self._pair.server, family, "udp", to, port)
            for port in (8445, 22):
                self._bound(self._pair.server, family, "tcp", to, port).listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _bound(
        self, end: Endpoint, family: PacketFamily, protocol: str, address: str, port: int
    ) -> socket.socket:
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        opened = self._stack.enter_context(end.socket(AF[family], kind))
        opened.bind((address, port))
        return opened

    def send(self) -> None:
        for family in PacketFamily:
            self._datagrams(family)
            for port in (8445, 22):
                connect_and_reset(self._pair.client, family, self._server(family), port)
            echo(self._pair.client, family, self._server(family), 77)

    def _server(self, family: PacketFamily) -> str:
        return self._pair.server.address(family)

    def _datagrams(self, family: PacketFamily) -> None:
        to, other = self._server(family), ANOTHER[family].partition("/")[0]
        client = self._bound(self._pair.client, family, "udp", self._pair.client.address(family), 0)
        for _ in range(3):
            client.sendto(b"0123456789", (to, 53))
        client.sendto(bytes(500), (to, 5000))
        self._bound(self._pair.client, family, "udp", other, 0).sendto(b"other", (to, 53))
        for _ in range(2):
            self._udp[family, 53].sendto(b"answer", client.getsockname()[:2])


def flood(client: Endpoint, server: Endpoint, packets: int, answers: int = 0) -> None:
    """Send datagrams to port 8445 as fast as they are received, and `answers` of them back.

    A receiver that lags behind loses packets before any hook sees them (netdev_max_backlog).
    """
    with (
        client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        server.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind((server.ipv4, 8443 if answers else 8445))
        receiver.settimeout(5)
        for number in range(packets):
            sender.sendto(b"flood", (server.ipv4, 8445))
            _, source = receiver.recvfrom(16)
            if number < answers:
                receiver.sendto(b"answer", source)


def know_each_other(pair: Pair) -> None:
    """Give both ends each other's hardware address, so that none needs to ask."""
    for end, peer in ((pair.client, pair.server), (pair.server, pair.client)):
        link = json.loads(peer.run("ip", "-j", "link", "show", peer.interface))[0]["address"]
        for family in PacketFamily:
            to = ("to", peer.address(family), "lladdr", link, "dev", end.interface)
            end.run("ip", "neigh", "replace", *to, "nud", "permanent")


def connect_and_reset(end: Endpoint, family: PacketFamily, address: str, port: int) -> None:
    """Make a connection and break it: SYN, SYN-ACK, ACK, RST."""
    with end.socket(AF[family], socket.SOCK_STREAM) as client:
        client.settimeout(5)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.bind((end.address(family), 0))
        client.connect((address, port))


def echo(end: Endpoint, family: PacketFamily, address: str, echo_id: int) -> None:
    """Send an echo request, and wait for the reply."""
    protocol, kind = ECHO[family]
    # RFC 1071; a raw ICMPv6 socket fills in its own (RFC 3542).
    total = (kind << 8) + echo_id + 1
    message = struct.pack(">BBHHH", kind, 0, ~total & 0xFFFF, echo_id, 1)
    with end.socket(AF[family], socket.SOCK_RAW, protocol) as opened:
        opened.settimeout(0)
        opened.bind((end.address(family), 0))
        opened.sendto(message, (address, 0))
        wait_until(lambda: _is_answered(opened, family, echo_id), what="the echo reply")


def _is_answered(opened: socket.socket, family: PacketFamily, echo_id: int) -> bool:
    start = 20 if family is V4 else 0
    with suppress(BlockingIOError):
        while True:
            kind, *_, found = struct.unpack_from(">BBHH", opened.recv(256), start)
            if (kind, found) == ({8: 0, 128: 129}[ECHO[family][1]], echo_id):
                return True
    return False
