"""One packet of a real client each: a TCP connection, a UDP datagram, an echo request."""

from __future__ import annotations

import errno
import select
import socket
import struct
from contextlib import suppress
from dataclasses import replace

from ipttrace.errors import UsageError
from ipttrace.netfilter import PacketFamily
from ipttrace.packet import Flow, PacketSummary
from ipttrace.probe import ProbeSpec
from ipttrace.system import packets
from ipttrace.system.addresses import AF
from ipttrace.system.packets import ECHO_REQUEST, Identity

UNSPECIFIED = {PacketFamily.IPV4: "0.0.0.0", PacketFamily.IPV6: "::"}  # noqa: S104

IP_RECVERR, IPV6_RECVERR = 11, 25
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
TCP_SEND_QUEUE, TCP_REPAIR_OFF_NO_WP = 2, -1
"""uapi/linux/in.h, in6.h, tcp.h."""

ECHO_REPLY = {"icmp": 0, "icmp6": 129}
ECHO_PROTOCOL = {"icmp": socket.IPPROTO_ICMP, "icmp6": socket.IPPROTO_ICMPV6}
LARGEST_ANSWER = 65536


def error_word(number: int) -> str:
    """Return the word for a client's result: an errno's name, TIMEOUT for the kernel's own."""
    return "TIMEOUT" if number == errno.ETIMEDOUT else errno.errorcode.get(number, f"E{number}")


class Attempt:
    """A socket that is bound, and sends its packet later.

    It is made in the client's namespace; afterwards any thread may use it.
    """

    kind = socket.SOCK_STREAM
    events = select.EPOLLIN

    def __init__(self, spec: ProbeSpec) -> None:
        self.spec = spec
        self.identity = Identity()
        self.result: str | None = None
        self.socket = self._open()
        try:
            self._set_options()
            self._identify()
            self._bind()
            self.flow = self._flow()
        except BaseException:
            self.socket.close()
            raise

    @property
    def summary(self) -> PacketSummary:
        """What is known of the packet before it is sent: the kernel chooses the rest."""
        known = packets.describe(self.spec, self.flow, self.identity)
        return replace(known, ip_id=None, ttl=self.spec.ttl or 0)

    def start(self) -> None:
        """Send the packet; a refusal of the kernel is the result."""
        try:
            self._send()
        except BlockingIOError:
            return
        except OSError as error:
            self.result = error_word(error.errno or 0)

    def poll(self) -> str | None:
        """Return the result, None while there is none."""
        if self.result is None:
            try:
                self.result = self._look()
            except BlockingIOError:
                return None
            except OSError as error:
                self.result = error_word(error.errno or 0)
        return self.result

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def _open(self) -> socket.socket:
        return socket.socket(AF[self.spec.family], self.kind | socket.SOCK_NONBLOCK)

    def _set_options(self) -> None:
        if self.spec.family is PacketFamily.IPV4:
            self.socket.setsockopt(socket.IPPROTO_IP, IP_RECVERR, self._wants_errors)
            if self.spec.ttl:
                self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, self.spec.ttl)
            return
        self.socket.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, self._wants_errors)
        if self.spec.ttl:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, self.spec.ttl)

    @property
    def _wants_errors(self) -> int:
        """UDP and ICMP hear of ICMP errors only on request; TCP acts on them by itself."""
        return int(self.kind != socket.SOCK_STREAM)

    def _identify(self) -> None:
        """Make the packet recognisable where the protocol allows it."""

    def _bind(self) -> None:
        """Claim the port; the wildcard leaves the choice of the source to the kernel."""
        source = self.spec.src or UNSPECIFIED[self.spec.family]
        try:
            self.socket.bind((source, self.spec.sport or 0))
        except OSError as error:
            raise UsageError(
                f"cannot send from {source} port {self.spec.sport or 'any'}: {error.strerror}",
                "A real client needs an address of its own namespace and a free port; "
                "to use another source inject with --in.",
            ) from error

    def _flow(self) -> Flow:
        source, port = self.socket.getsockname()[:2]
        if self.spec.src is None:
            source = predicted_source(self.spec)
        return packets.flow_of(self.spec, source, port, self.identity)

    def _connect(self) -> None:
        self.socket.connect((self.spec.dst, self.spec.dport or 0))

    def _send(self) -> None:
        raise NotImplementedError

    def _look(self) -> str | None:
        raise NotImplementedError


def predicted_source(spec: ProbeSpec) -> str:
    """Return the source that the kernel would choose; the unspecified address without a route.

    A connected UDP socket has looked its route up, and has sent nothing.
    """
    with socket.socket(AF[spec.family], socket.SOCK_DGRAM) as lookup:
        try:
            lookup.connect((spec.dst, spec.dport or 1))
        except OSError:
            return UNSPECIFIED[spec.family]
        return str(lookup.getsockname()[0])


class TcpAttempt(Attempt):
    """A connect()."""

    events = select.EPOLLOUT

    @property
    def summary(self) -> PacketSummary:
        """The SYN, without its length: the options are the kernel's."""
        known = super().summary
        return replace(known, length=0, tcp_seq=self._sequence)

    def _identify(self) -> None:
        """Choose the initial sequence number, where the kernel lets us (tcp_v4_connect keeps it).

        TCP_REPAIR needs CAP_NET_ADMIN; without it the number stays unknown.
        """
        self._sequence: int | None = None
        chosen = self.identity.tcp_seq or 1
        with suppress(OSError):
            self._option(TCP_REPAIR, 1)
            try:
                self._option(TCP_REPAIR_QUEUE, TCP_SEND_QUEUE)
                self._option(TCP_QUEUE_SEQ, struct.unpack("=i", struct.pack("=I", chosen))[0])
                self._sequence = chosen
            finally:
                self._option(TCP_REPAIR, TCP_REPAIR_OFF_NO_WP)

    def _option(self, name: int, value: int) -> None:
        self.socket.setsockopt(socket.IPPROTO_TCP, name, value)

    def _send(self) -> None:
        self._connect()
        self.result = "CONNECTED"

    def _look(self) -> str | None:
        waiting = select.poll()
        waiting.register(self.socket, select.POLLOUT)
        if not waiting.poll(0):
            return None
        number = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return error_word(number) if number else "CONNECTED"


class UdpAttempt(Attempt):
    """A datagram with a nonce."""

    kind = socket.SOCK_DGRAM

    def _send(self) -> None:
        self._connect()
        self.socket.send(packets.payload(self.spec, self.identity.nonce))

    def _look(self) -> str | None:
        self.socket.recv(LARGEST_ANSWER)
        return "REPLIED"


class EchoAttempt(Attempt):
    """An echo request, from a ping socket where ping_group_range allows one, else a raw one."""

    kind = socket.SOCK_DGRAM

    def _open(self) -> socket.socket:
        family, protocol = AF[self.spec.family], ECHO_PROTOCOL[self.spec.protocol]
        self._raw = False
        with suppress(PermissionError):
            return socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, protocol)
        self._raw = True
        return socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)

    def _flow(self) -> Flow:
        flow = super()._flow()
        if not self._raw:
            # The port of a ping socket is the id of its echoes (ping_bind in net/ipv4/ping.c).
            self.identity = replace(self.identity, icmp_id=self.socket.getsockname()[1])
        return replace(flow, sport=None, dport=None, icmp_id=self.identity.icmp_id)

    def _send(self) -> None:
        self._connect()
        self.socket.send(self._message())

    def _message(self) -> bytes:
        kind, who = ECHO_REQUEST[self.spec.protocol], self.identity
        data = packets.payload(self.spec, who.nonce)
        bare = struct.pack("!BBHHH", kind, 0, 0, who.icmp_id, who.icmp_seq) + data
        return bare[:2] + packets.checksum(bare) + bare[4:]

    def _look(self) -> str | None:
        while True:
            message = self.socket.recv(LARGEST_ANSWER)
            if self._raw and self.spec.protocol == "icmp":
                message = message[(message[0] & 0xF) * 4 :]
            if self._answers(message):
                return "REPLIED"

    def _answers(self, message: bytes) -> bool:
        if len(message) < 8:
            return False
        kind, _, _, number, sequence = struct.unpack("!BBHHH", message[:8])
        who = self.identity
        expected = (ECHO_REPLY[self.spec.protocol], who.icmp_id, who.icmp_seq)
        data = packets.payload(self.spec, who.nonce)
        return (kind, number, sequence) == expected and message[8:] == data


ATTEMPTS: dict[str, type[Attempt]] = {
    "tcp": TcpAttempt,
    "udp": UdpAttempt,
    "icmp": EchoAttempt,
    "icmp6": EchoAttempt,
}
