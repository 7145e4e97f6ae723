"""Sockets, as inet_diag describes them: include/uapi/linux/inet_diag.h, sock_diag.h.

Ports and addresses are in network order, all else in the machine's own.  `request` is here as well:
question and answer share `struct inet_diag_sockid`.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from struct import Struct, error

from ipttrace.decode.attributes import Malformed, read_attributes

AF_INET, AF_INET6 = 2, 10
ADDRESS_LENGTH = {AF_INET: 4, AF_INET6: 16}

TCP_ESTABLISHED, TCP_SYN_RECV, TCP_TIME_WAIT, TCP_CLOSE, TCP_LISTEN = 1, 3, 6, 7, 10
TCP_NEW_SYN_RECV = 12
"""include/net/tcp_states.h; an unconnected UDP socket is in TCP_CLOSE."""

INET_DIAG_SKV6ONLY = 11
NO_COOKIE = 0xFFFFFFFF

_SOCKID = Struct("=2s2s16s16sIII")
_REQUEST = Struct("=BBBxI")
"""inet_diag_req_v2 before its id: family, protocol, extensions, states."""
_HEAD = Struct("=BBBB")
_TAIL = Struct("=IIIII")
"""expires, rqueue, wqueue, uid, inode."""
SIZE = _HEAD.size + _SOCKID.size + _TAIL.size


@dataclass(frozen=True, slots=True)
class DiagSocket:
    """One socket (struct inet_diag_msg)."""

    family: int
    state: int
    address: str
    """One that an IPv6 socket maps from IPv4 (RFC 4291 section 2.5.5.2) is written in IPv4."""
    port: int
    remote: str
    remote_port: int
    interface: int
    """Index of the device that it is bound to (SO_BINDTODEVICE); 0: to none."""
    rqueue: int
    """Of a listener: connections that wait for accept(); else bytes."""
    wqueue: int
    """Of a listener: the backlog; else bytes."""
    inode: int
    """0 of a connection that nobody accepted yet."""
    v6_only: bool


def request(
    family: int,
    protocol: int,
    states: int,
    port: int,
    *,
    address: str | None = None,
    remote: tuple[str, int] | None = None,
    interface: int = 0,
) -> bytes:
    """Return the body of a request (struct inet_diag_req_v2).

    For a dump the port alone chooses (inet_diag_dump_icsk); with both ends the kernel looks up the
    socket that takes the remote one's packets (inet_diag_find_one_icsk), as they come in by the
    interface of that index.
    """
    sockid = _SOCKID.pack(
        port.to_bytes(2, "big"),
        (remote[1] if remote else 0).to_bytes(2, "big"),
        ip_address(address).packed if address else b"",
        ip_address(remote[0]).packed if remote else b"",
        interface,
        NO_COOKIE,
        NO_COOKIE,
    )
    return _REQUEST.pack(family, protocol, 0, states) + sockid


def decode_socket(body: bytes) -> DiagSocket:
    """Return the socket of a message without its nlmsghdr; raises Malformed."""
    try:
        family, state, _, _ = _HEAD.unpack_from(body)
        sport, dport, src, dst, interface, _, _ = _SOCKID.unpack_from(body, _HEAD.size)
        _, rqueue, wqueue, _, inode = _TAIL.unpack_from(body, _HEAD.size + _SOCKID.size)
    except error as cause:
        raise Malformed("a socket's description is cut off") from cause
    length = ADDRESS_LENGTH.get(family)
    if length is None:
        raise Malformed(f"a socket is of the unknown family {family}")
    flag = read_attributes(body, SIZE).get(INET_DIAG_SKV6ONLY, b"\0")
    return DiagSocket(
        family,
        state,
        _address(src[:length]),
        int.from_bytes(sport, "big"),
        _address(dst[:length]),
        int.from_bytes(dport, "big"),
        interface,
        rqueue,
        wqueue,
        inode,
        flag[:1] == b"\1",
    )


def _address(packed: bytes) -> str:
    found = ip_address(packed)
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return str(mapped or found)
