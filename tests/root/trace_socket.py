"""A netlink reader of trace reports that shares nothing with ipttrace's own.

Formats: uapi/linux/netfilter/nfnetlink_log.h, nf_tables.h; messages: uapi/linux/netlink.h.
"""

from __future__ import annotations

import re
import select
import socket
import struct
from collections.abc import Iterator
from typing import Self

from tests.root.kernel import in_namespace
from tests.root.oracle import Headers, Heard, Rules

NETLINK_NETFILTER = 12
NFLOG_CONFIG, NFLOG_PACKET = 0x0401, 0x0400
NFT_TRACE = 0x0A11
NFTRACE_GROUP = 9
REQUEST_ACK = 5
NLMSG_ERROR = 2

PREFIX = re.compile(rb"TRACE: (\w+):(.+):(rule|return|policy):(\d+) \0?$")
FAMILY = {2: "ip", 10: "ip6"}
NFT_VERDICT = {
    0: "DROP",
    1: "ACCEPT",
    2: "STOLEN",
    3: "QUEUE",
    0xFFFFFFFF: "CONTINUE",
    0xFFFFFFFE: "CONTINUE",
    0xFFFFFFFD: "JUMP",
    0xFFFFFFFC: "GOTO",
    0xFFFFFFFB: "RETURN",
}
TRACE_KIND = {1: "policy", 2: "return", 3: "rule"}


class TraceSocket:
    """Hears all trace reports of one namespace: `heard` has them in the kernel's order."""

    def __init__(self, netns: str, rules: Rules) -> None:
        self._rules = rules
        self._socket = in_namespace(netns).run(
            lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        )
        self._socket.bind((0, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
        for family in (socket.AF_INET, socket.AF_INET6):
            self._configure(family, _attribute(1, b"\3\0\0\0"))  # PF_BIND
        self._configure(0, _attribute(1, b"\1\0\0\0"))  # BIND to group 0
        self._configure(0, _attribute(2, struct.pack("!IBx", 256, 2)))  # copy 256 bytes
        self._configure(0, _attribute(5, struct.pack("!I", 1)))  # report each at once
        self._socket.setsockopt(270, 1, NFTRACE_GROUP)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the log group back; may be called more than once."""
        self._socket.close()

    def _configure(self, family: int, attributes: bytes) -> None:
        body = struct.pack("!BBH", family, 0, 0) + attributes
        self._socket.send(
            struct.pack("=IHHII", 16 + len(body), NFLOG_CONFIG, REQUEST_ACK, 1, 0) + body
        )
        answer = self._socket.recv(1 << 16)
        while struct.unpack_from("=H", answer, 4)[0] != NLMSG_ERROR:
            answer = self._socket.recv(1 << 16)
        error = struct.unpack_from("=i", answer, 16)[0]
        assert error == 0, f"cannot listen to the log group: error {error}"

    def until(self, port: int) -> list[Heard]:
        """Return what was heard of the rules before the first report of a packet to `port`."""
        heard: list[Heard] = []
        while True:
            readable, _, _ = select.select([self._socket], [], [], 5)
            assert readable, f"no report of a packet to port {port} after {heard}"
            for one in self._decode(self._socket.recv(1 << 16)):
                if one.headers is not None and one.headers.dport == port:
                    return heard
                if one.spot is not None:
                    heard.append(one)

    def _decode(self, data: bytes) -> Iterator[Heard]:
        at = 0
        while at < len(data):
            length, kind = struct.unpack_from("=IH", data, at)
            attributes = dict(_attributes(data[at + 20 : at + length]))
            if kind == NFLOG_PACKET:
                yield from self._logged(data[at + 16], attributes)
            elif kind == NFT_TRACE:
                yield self._traced(data[at + 16], attributes)
            at += (length + 3) & ~3

    def _logged(self, number: int, attributes: dict[int, bytes]) -> Iterator[Heard]:
        found = PREFIX.match(attributes[10])
        if found is None:
            return
        family = FAMILY[number]
        spot = self._rules.legacy(family, found[1].decode(), found[2].decode(), int(found[4]))
        mark = int.from_bytes(attributes.get(2, b""), "big")
        packet = attributes[9]
        start = (packet[0] & 15) * 4 if number == 2 else 40
        yield Heard(spot, None, mark, _headers(packet, packet[start:]))

    def _traced(self, number: int, attributes: dict[int, bytes]) -> Heard:
        headers = _headers(attributes[8], attributes.get(9, b"")) if 8 in attributes else None
        family = {**FAMILY, 1: "inet"}[number]
        table, chain = (attributes[key].rstrip(b"\0").decode() for key in (1, 2))
        kind = TRACE_KIND[int.from_bytes(attributes[4], "big")]
        spot, code = None, None
        if kind == "policy":
            code = int.from_bytes(attributes[16], "big")
            spot = self._rules.nft_policy(family, table, chain)
        elif 3 in attributes:
            code = int.from_bytes(dict(_attributes(attributes[5]))[1], "big")
            handle = int.from_bytes(attributes[3], "big")
            spot = self._rules.nft(family, table, chain, handle)
        verdict = None if code is None else NFT_VERDICT.get(code) or NFT_VERDICT[code & 0xFF]
        mark = int.from_bytes(attributes.get(14, b""), "big")
        return Heard(spot, verdict, mark, headers, attributes[6].hex())


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += (length + 3) & ~3


def _headers(network: bytes, transport: bytes) -> Headers:
    if network[0] >> 4 == 4:
        family, protocol, ends = socket.AF_INET, network[9], (network[12:16], network[16:20])
    else:
        family, protocol, ends = socket.AF_INET6, network[6], (network[8:24], network[24:40])
    src, dst = (socket.inet_ntop(family, end) for end in ends)
    if protocol not in (6, 17) or len(transport) < 4:
        return Headers(src, dst, None, None)
    return Headers(src, dst, *struct.unpack_from("!HH", transport))
