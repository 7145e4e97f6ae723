"""Sockets as kernel 6.18 described them (struct inet_diag_msg), and what asks for them."""

from __future__ import annotations

import sys

import pytest

from ipttrace.decode.attributes import Malformed
from ipttrace.decode.sock_diag import (
    AF_INET,
    AF_INET6,
    TCP_CLOSE,
    TCP_ESTABLISHED,
    TCP_LISTEN,
    DiagSocket,
    decode_socket,
    request,
)

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="recorded on such a machine")

BOUND = (
    "020a000020fb00007f00000100000000000000000000000000000000000000000000000000000000"
    "0100000025ad000000000000000000000000000007000000000000003bb820000500080000000000"
    "08000f00000000000c00150001000000000000000600160052000000"
)
"""127.0.0.1:8443 bound to lo, listen(7)."""
V6_ONLY = (
    "0a0a000020fb00000000000000000000000000000000000000000000000000000000000000000000"
    "0000000026ad000000000000000000000000000005000000000000003cb820000500080000000000"
    "05000b000100000008000f00000000000c00150001000000000000000600160012000000"
)
BOTH = (
    "0a0a000020fc00000000000000000000000000000000000000000000000000000000000000000000"
    "0000000027ad000000000000000000000100000005000000000000003db820000500080000000000"
    "05000b000000000008000f00000000000c00150001000000000000000600160012000000"
)
"""One connection waits."""
MAPPED = (
    "0a01000020fcd52a00000000000000000000ffff7f00000100000000000000000000ffff7f000001"
    "0000000028ad00000000000000000000000000000000000000000000000000000500080000000000"
    "08000f00000000000c00150001000000000000000600160012000000"
)
DATAGRAMS = (
    "0207000020fd00007f00000100000000000000000000000000000000000000000000000000000000"
    "0000000029ad000000000000000000000000000000000000000000003fb820000500080000000000"
    "08000f00000000000c00150001000000000000000600160050000000"
)


def told(
    family: int, state: int, ends: str, numbers: tuple[int, int, int, int], *, v6_only: bool = False
) -> DiagSocket:
    """Return a socket; `ends` are its own and the remote one, `numbers` the rest in order."""
    (address, port), (remote, remote_port) = (end.rsplit(" ", 1) for end in ends.split(" > "))
    interface, rqueue, wqueue, inode = numbers
    return DiagSocket(
        family,
        state,
        address,
        int(port),
        remote,
        int(remote_port),
        interface,
        rqueue,
        wqueue,
        inode,
        v6_only,
    )


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        (BOUND, told(AF_INET, TCP_LISTEN, "127.0.0.1 8443 > 0.0.0.0 0", (1, 0, 7, 2144315))),
        (V6_ONLY, told(AF_INET6, TCP_LISTEN, ":: 8443 > :: 0", (0, 0, 5, 2144316), v6_only=True)),
        (BOTH, told(AF_INET6, TCP_LISTEN, ":: 8444 > :: 0", (0, 1, 5, 2144317))),
        (
            MAPPED,
            told(AF_INET6, TCP_ESTABLISHED, "127.0.0.1 8444 > 127.0.0.1 54570", (0, 0, 0, 0)),
        ),
        (DATAGRAMS, told(AF_INET, TCP_CLOSE, "127.0.0.1 8445 > 0.0.0.0 0", (0, 0, 0, 2144319))),
    ],
    ids=["bound", "IPv6 only", "both families", "mapped", "datagrams"],
)
def test_a_socket_of_the_real_kernel(recorded: str, expected: DiagSocket) -> None:
    assert decode_socket(bytes.fromhex(recorded)) == expected


@pytest.mark.parametrize("length", range(72))
def test_every_truncation_is_told(length: int) -> None:
    with pytest.raises(Malformed):
        decode_socket(bytes.fromhex(BOUND)[:length])


def test_an_attribute_that_reaches_too_far_is_told() -> None:
    with pytest.raises(Malformed):
        decode_socket(bytes.fromhex(V6_ONLY)[:-3])


def test_an_unknown_family_is_told() -> None:
    with pytest.raises(Malformed, match="family 1"):
        decode_socket(b"\1" + bytes.fromhex(BOUND)[1:])


def test_a_dump_is_asked_for_by_its_port_alone() -> None:
    body = request(AF_INET, 6, 1 << TCP_LISTEN, 8443)
    assert body.hex() == "020600000004000020fb" + "00" * 38 + "ffffffff" * 2
    assert len(body) == 56


def test_one_connection_is_asked_for_by_both_ends() -> None:
    body = request(AF_INET, 6, 0, 80, address="192.0.2.1", remote=("192.0.2.2", 40000), interface=3)
    assert body[8:12].hex() == "00509c40"
    assert body[12:16] == bytes([192, 0, 2, 1])
    assert body[28:32] == bytes([192, 0, 2, 2])
    assert body[44:48] == (3).to_bytes(4, sys.byteorder)
