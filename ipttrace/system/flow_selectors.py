"""Which packets belong to a flow, as nf_tables expressions: the flow, its answers, its errors.

Offsets: RFC 791 and RFC 8200 (network header), RFC 793, 768, 792, 4443 (transport header).  The
header that an ICMP error quotes is taken as an IPv4 header without options or as the fixed IPv6
header: the kernel's own errors about the flow have that form.
"""

from __future__ import annotations

import socket

from ipttrace.netfilter import PacketFamily
from ipttrace.system import nft_expressions as nft

TYPE_CHECKING = False  # typing's own costs 5 ms to import
if TYPE_CHECKING:
    from ipttrace.packet import Flow
    from ipttrace.request import TraceRequest

IPPROTO = {
    "icmp": 1,
    "tcp": 6,
    "udp": 17,
    "icmp6": 58,
    "sctp": 132,
}
ETHERTYPES = {PacketFamily.IPV4: b"\x08\x00", PacketFamily.IPV6: b"\x86\xdd"}
_NETWORK = nft.NFT_PAYLOAD_NETWORK_HEADER
_TRANSPORT = nft.NFT_PAYLOAD_TRANSPORT_HEADER

ECHO = {"icmp": (8, 0), "icmp6": (128, 129)}
"""Types of echo request and echo reply (RFC 792, RFC 4443)."""
ECHO_ID_OFFSET = 4

ERROR_TYPES = {False: ((3, 5), (11, 12)), True: ((1, 4),)}
"""Ranges of the ICMP and ICMPv6 types that quote a packet, by whether it is IPv6."""
ERROR_HEADER_SIZE = 8
ND_REDIRECT = 137
"""RFC 4861: made about a forwarded packet, but quotes it behind options of any length."""


class FlowSelectors:
    """The selectors of one flow.

    With `any_source` its source address is left out of them all, with `any_destination` its
    destination address and port.
    """

    def __init__(
        self, flow: Flow, *, any_source: bool = False, any_destination: bool = False
    ) -> None:
        self._ipv6 = flow.family == "ipv6"
        self._protocol = protocol_number(flow.protocol)
        self._source = None if any_source else packed_address(flow.src)
        self._destination = None if any_destination else packed_address(flow.dst)
        self._source_port = _word(flow.sport)
        self._destination_port = None if any_destination else _word(flow.dport)
        self._echo = ECHO.get(flow.protocol, (0, 0))
        self._echo_id = _word(flow.icmp_id)

    def flow(self) -> bytes:
        """Hold for packets of the flow, by their own headers."""
        return self._headers(answers=False)

    def answers(self) -> bytes:
        """Hold for packets with the flow's headers swapped, and for echo replies to it."""
        return self._headers(answers=True)

    def answers_from_elsewhere(self) -> list[bytes]:
        """Hold for answers of another address than was asked, which TCP never gives.

        A service that is bound to none answers from where the route back leads out, and what was
        sent to many is answered by one.
        """
        named = self._source_port is not None and self._destination_port is not None
        known = named or (self._source is not None and self._echo_id is not None)
        if not known or self._protocol == IPPROTO["tcp"]:
            return []
        client = self._address(None, self._source, _NETWORK, 0)
        ports = self._ports(self._destination_port, self._source_port, 0)
        return [_l4(self._protocol) + client + ports + self._echoed(0, answers=True)]

    def errors(self) -> list[bytes]:
        """Hold, each alternative, for ICMP errors that quote a packet of the flow."""
        return self._errors(answers=False)

    def errors_about_answers(self) -> list[bytes]:
        """Hold, each alternative, for ICMP errors that quote an answer."""
        return self._errors(answers=True)

    def redirects(self) -> list[bytes]:
        """Hold for IPv6 redirects sent to the flow's source; IPv4's are among the errors."""
        if not self._ipv6 or self._source is None:
            return []
        kind = nft.payload_is(_TRANSPORT, 0, bytes((ND_REDIRECT,)))
        return [_l4(IPPROTO["icmp6"]) + self._address(None, self._source, _NETWORK, 0) + kind]

    def tracked(self) -> bytes:
        """Hold for all packets of the conntrack entry that the flow made, however rewritten."""
        keys = (nft.NFT_CT_SRC_IP, nft.NFT_CT_DST_IP)
        if self._ipv6:
            keys = (nft.NFT_CT_SRC_IP6, nft.NFT_CT_DST_IP6)
        # An entry of ICMP keeps the echo id where others keep the source port.
        port = self._source_port or self._echo_id
        return b"".join(
            (
                _original(nft.NFT_CT_PROTOCOL, bytes((self._protocol,))),
                _original(keys[0], self._source),
                _original(keys[1], self._destination),
                _original(nft.NFT_CT_PROTO_SRC, port),
                _original(nft.NFT_CT_PROTO_DST, self._destination_port),
            )
        )

    def tracked_answers(self) -> bytes:
        """Hold for answers, and errors about the flow, that its conntrack entry knows."""
        reply = bytes((nft.IP_CT_DIR_REPLY,))
        return nft.ct_is(nft.NFT_CT_DIRECTION, reply) + self.tracked()

    def untracked_copies(self) -> list[bytes]:
        """Hold for untracked packets from the flow's source, wherever they go.

        A TEE rule behind DNAT copies the packet with its new destination, and its copy has no
        conntrack entry (nf_dup_ipv4 in net/ipv4/netfilter/nf_dup_ipv4.c).
        """
        if self._source is None or (self._source_port is None and self._echo_id is None):
            return []
        source = self._address(self._source, None, _NETWORK, 0)
        ports = self._ports(self._source_port, None, 0) + self._echoed(0, answers=False)
        return [_l4(self._protocol) + source + ports + nft.ct_untracked()]

    def _headers(self, *, answers: bool) -> bytes:
        ends = self._ends(answers=answers)
        return b"".join(
            (
                _l4(self._protocol),
                self._address(ends[0], ends[1], _NETWORK, 0),
                self._ports(ends[2], ends[3], 0),
                self._echoed(0, answers=answers),
            )
        )

    def _errors(self, *, answers: bool) -> list[bytes]:
        ends = self._ends(answers=answers)
        inner = ERROR_HEADER_SIZE + (40 if self._ipv6 else 20)
        quoted = b"".join(
            (
                self._quoted_protocol(),
                self._address(ends[0], ends[1], _TRANSPORT, ERROR_HEADER_SIZE),
                self._ports(ends[2], ends[3], inner),
                self._echoed(inner, answers=answers),
            )
        )
        icmp = _l4(IPPROTO["icmp6" if self._ipv6 else "icmp"])
        return [
            icmp + nft.payload_between(_TRANSPORT, 0, bytes((low,)), bytes((high,))) + quoted
            for low, high in ERROR_TYPES[self._ipv6]
        ]

    def _ends(
        self, *, answers: bool
    ) -> tuple[bytes | None, bytes | None, bytes | None, bytes | None]:
        if answers:
            return self._destination, self._source, self._destination_port, self._source_port
        return self._source, self._destination, self._source_port, self._destination_port

    def _address(
        self, source: bytes | None, destination: bytes | None, base: int, start: int
    ) -> bytes:
        offsets = (8, 24) if self._ipv6 else (12, 16)
        return _field(base, start + offsets[0], source) + _field(
            base, start + offsets[1], destination
        )

    def _ports(self, source: bytes | None, destination: bytes | None, start: int) -> bytes:
        return _field(_TRANSPORT, start, source) + _field(_TRANSPORT, start + 2, destination)

    def _echoed(self, start: int, *, answers: bool) -> bytes:
        if self._echo_id is None:
            return b""
        kind = bytes((self._echo[answers],))
        return _field(_TRANSPORT, start, kind) + _field(
            _TRANSPORT, start + ECHO_ID_OFFSET, self._echo_id
        )

    def _quoted_protocol(self) -> bytes:
        protocol = bytes((self._protocol,))
        if self._ipv6:
            return _field(_TRANSPORT, ERROR_HEADER_SIZE + 6, protocol)
        version_and_length = _field(_TRANSPORT, ERROR_HEADER_SIZE, b"\x45")
        return version_and_length + _field(_TRANSPORT, ERROR_HEADER_SIZE + 9, protocol)


def selectors_of(request: TraceRequest, flow: Flow) -> list[tuple[bytes, str]]:
    """Return what holds for packets of a request's flow and for its answers, and what counts them.

    For tables that meet both families.
    """
    family, select = _of_family(flow), _asked(request, flow)
    found = [(family + select.flow(), "probe")]
    if request.replies:
        back = (select.answers(), *select.answers_from_elsewhere(), *select.errors())
        found += [(family + each, "reply") for each in back]
    return found


def errors_about_answers(request: TraceRequest, flow: Flow) -> list[bytes]:
    """Return what holds, each alternative, for ICMP errors that quote an answer, as above."""
    family = _of_family(flow)
    return [family + each for each in _asked(request, flow).errors_about_answers()]


def _of_family(flow: Flow) -> bytes:
    return nft.meta_is(nft.NFT_META_PROTOCOL, ETHERTYPES[flow.family])


def _asked(request: TraceRequest, flow: Flow) -> FlowSelectors:
    return FlowSelectors(
        flow, any_source=request.any_source, any_destination=request.any_destination
    )


def protocol_number(protocol: str) -> int:
    """Return IPPROTO_* of a flow's protocol, which is a name or the number as text."""
    return IPPROTO.get(protocol) or int(protocol)


def packed_address(address: str) -> bytes:
    """Return an address as in a header; the zone of a link-local one is not part of it."""
    bare = address.partition("%")[0]
    return socket.inet_pton(socket.AF_INET6 if ":" in bare else socket.AF_INET, bare)


def _word(number: int | None) -> bytes | None:
    return None if number is None else number.to_bytes(2, "big")


def _l4(protocol: int) -> bytes:
    return nft.meta_is(nft.NFT_META_L4PROTO, bytes((protocol,)))


def _field(base: int, offset: int, value: bytes | None) -> bytes:
    return b"" if value is None else nft.payload_is(base, offset, value)


def _original(key: int, value: bytes | None) -> bytes:
    return b"" if value is None else nft.ct_is(key, value, nft.IP_CT_DIR_ORIGINAL)
