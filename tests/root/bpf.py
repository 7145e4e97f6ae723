"""Small eBPF programs without a compiler: loaded by bpf(2), attached in private places only."""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.root.kernel import Endpoint, in_namespace, unique_name

BPF = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), 280)
"""The system call's number (scripts/syscall.tbl)."""
PROG_LOAD, PROG_ATTACH, PROG_DETACH = 5, 8, 9
SCHED_CLS, XDP, CGROUP_SKB = 3, 6, 8
CGROUP_INET_EGRESS = 1
STORE_BYTES = 9
"""uapi/linux/bpf.h."""
TC_ACT_OK, TC_ACT_SHOT, XDP_DROP, EGRESS_DROP = 0, 2, 1, 0

UNIFIED = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
"""Handles of the two sides of clsact (uapi/linux/pkt_sched.h)."""
ETH_P_ALL = 3
MAC_HEADER = 14

_INSTRUCTION = struct.Struct("=BBhi")
_libc = ctypes.CDLL(None, use_errno=True)

Program = bytes


def returning(value: int) -> Program:
    """Return the program that gives every packet the same verdict."""
    return _INSTRUCTION.pack(0xB7, 0, 0, value) + _INSTRUCTION.pack(0x95, 0, 0, 0)


def spoiling(offset: int, value: int) -> Program:
    """Return the program that writes two bytes into the packet, and mends no checksum."""
    return b"".join(
        _INSTRUCTION.pack(code, registers, place, number)
        for code, registers, place, number in (
            (0x6A, 0x0A, -8, value),  # *(u16 *)(r10 - 8) = value
            (0xB7, 0x02, 0, MAC_HEADER + offset),  # r2 = offset
            (0xBF, 0xA3, 0, 0),  # r3 = r10
            (0x07, 0x03, 0, -8),  # r3 += -8
            (0xB7, 0x04, 0, 2),  # r4 = 2
            (0xB7, 0x05, 0, 0),  # r5 = 0
            (0x85, 0x00, 0, STORE_BYTES),  # call bpf_skb_store_bytes
        )
    ) + returning(TC_ACT_OK)


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, 128)
    result = int(_libc.syscall(BPF, command, buffer, 128))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


@contextmanager
def loaded(program: Program, kind: int) -> Iterator[int]:
    """Load a program; give its descriptor."""
    code = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"GPL")
    count = len(program) // _INSTRUCTION.size
    places = (ctypes.addressof(code), ctypes.addressof(licence))
    descriptor = _bpf(PROG_LOAD, struct.pack("=IIQQ", kind, count, *places))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def on_traffic(end: Endpoint, program: Program, side: int = INGRESS) -> Iterator[None]:
    """Run a program on all that comes in by an interface of a namespace, or goes out."""
    with loaded(program, SCHED_CLS) as descriptor:
        in_namespace(end.netns).run(lambda: _filter(end.interface, descriptor, side))
        try:
            yield
        finally:
            end.run("tc", "qdisc", "del", "dev", end.interface, "clsact")


def _filter(interface: str, descriptor: int, side: int) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as ipr:  # its socket is that of the namespace which this thread entered
        known = sorted((link["index"], link.get("ifname")) for link in ipr.get_links())
        assert known == sorted(socket.if_nameindex()), "pyroute2 asks in another namespace"
        (index,) = ipr.link_lookup(ifname=interface)
        ipr.tc("add", "clsact", index)
        ipr.tc(
            "add-filter",
            "bpf",
            index,
            fd=descriptor,
            name="test",
            parent=side,
            classid=1,
            direct_action=True,
            protocol=ETH_P_ALL,
        )


@contextmanager
def on_egress_of_this_process(program: Program) -> Iterator[None]:
    """Put this process into a control group of its own, with a program on what it sends."""
    parent = next(path for path in UNIFIED if (path / "cgroup.procs").exists())
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    before = next(line.removeprefix("0::/") for line in lines if line.startswith("0::"))
    group = parent / unique_name("cgroup")
    group.mkdir()
    me = str(os.getpid())
    try:
        with loaded(program, CGROUP_SKB) as descriptor:
            folder = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
            try:
                words = struct.pack("=IIII", folder, descriptor, CGROUP_INET_EGRESS, 0)
                _bpf(PROG_ATTACH, words)
                (group / "cgroup.procs").write_text(me)
                yield
            finally:
                (parent / before / "cgroup.procs").write_text(me)
                with suppress(OSError):  # it goes with the group
                    _bpf(PROG_DETACH, words)
                os.close(folder)
    finally:
        group.rmdir()
