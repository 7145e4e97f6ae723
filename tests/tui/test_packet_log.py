"""Paths are packed and come back as they were; the log lets the oldest go."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest

from ipttrace.netfilter import Basis
from ipttrace.path import (
    Decision,
    DropHop,
    PacketPath,
    ResetHop,
    RouteHop,
    SocketHop,
    SocketState,
    WireHop,
)
from ipttrace_tui.packet_log import PacketLog
from ipttrace_tui.packing import Packer
from tests.builders import (
    TIME,
    forward_path,
    icmp,
    mark_drop_path,
    path,
    redirect_path,
    reply_path,
    tcp,
)
from tests.tui.builders import MARK_DROP, both_backends, dropped, forwarded, hostile, loopback

ROUTED = path(
    RouteHop(TIME, Decision.LOCAL, Basis.INFERRED, table="local"),
    SocketHop(TIME, SocketState.LISTEN, "0.0.0.0", 8443, 7, "python"),
    DropHop(TIME, "NO_SOCKET", "tcp_v4_rcv"),
    ResetHop(TIME, None, "kernel"),
    packet=replace(tcp(), quoted=icmp(), payload=b"\x00\xff"),
    reports=(1, 2**40),
)
PATHS = [
    dropped(),
    loopback(),
    reply_path(),
    ROUTED,
    forward_path(WireHop(TIME, "sent", "eth1")),
    *forwarded().paths,
    *both_backends().paths,
    *hostile().paths,
]


@pytest.mark.parametrize("whole", PATHS)
@pytest.mark.parametrize("shared", [0, 3, 1000])
def test_a_packed_path_comes_back_as_it_was(whole: PacketPath, shared: int) -> None:
    packer = Packer(most_shared=shared)
    assert packer.unpack(packer.pack(whole)) == whole


def test_a_packed_path_is_small() -> None:
    packer = Packer()
    sizes = [len(packer.pack(replace(dropped(), id=n, time=TIME + n))) for n in range(100)]
    assert max(sizes[1:]) < 700


def test_the_table_of_what_is_shared_is_bounded() -> None:
    packer = Packer(most_shared=5)
    before = len(packer._table)
    names = [f"a-very-long-namespace-{n}" for n in range(50)]
    packed = [packer.pack(replace(dropped(), netns=name)) for name in names]
    assert len(packer._table) == before + 5
    assert [packer.unpack(each).netns for each in packed] == names


def test_a_view_does_not_change_while_the_log_grows() -> None:
    log = PacketLog()
    log.append(mark_drop_path(number=1))
    view = log.view()
    log.append(mark_drop_path(number=2))
    assert [each.id for each in view] == [1]
    assert [each.id for each in log.view()] == [1, 2]
    assert [each.id for each in log.view()[-1:]] == [2]
    assert log.view()[-1].id == 2
    with pytest.raises(IndexError):
        view[1]


def test_the_oldest_packets_are_let_go_and_counted() -> None:
    log = PacketLog(capacity=10, slack=5)
    views = []
    for number in range(1, 26):
        log.append(mark_drop_path(number=number))
        views.append(log.view())
    assert [each.id for each in views[14]] == list(range(1, 16))
    assert [each.id for each in log.view()] == list(range(11, 26))
    assert log.view().forgotten == 10


def test_the_garbage_collector_does_not_walk_through_the_log() -> None:
    log = PacketLog()
    log.append(dropped())
    assert not gc.is_tracked(log.view().entries[0])


def test_an_entry_says_what_the_list_needs() -> None:
    log = PacketLog()
    log.append(mark_drop_path(number=2, diagnosis=MARK_DROP))
    log.append(redirect_path())
    first, second = log.view().entries
    assert (first.id, first.cause, first.dport, len(first.rules)) == (2, "mark-drop", 8443, 2)
    assert (second.cause, second.netns, second.outcome) == ("", "server", "delivered")
