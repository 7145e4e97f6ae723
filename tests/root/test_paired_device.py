"""The stand-in for a TAP device: what is written comes in, and nothing of it outlives us."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys

import pytest

from ipttrace.netfilter import PacketFamily
from ipttrace.system import paired_device, tap
from ipttrace.system.addresses import Interface, find_interface, rtnetlink
from tests.root.kernel import Iptables, Pair, in_namespace, run
from tests.waiting import wait_until

MARK = "a TAP is refused in this test"


@pytest.fixture
def no_tap(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where only root may open /dev/net/tun."""

    def refuse(_: str) -> int:
        raise PermissionError(13, MARK)

    monkeypatch.setattr(tap, "_create", refuse)


def devices(netns: str) -> bool:
    return "iptt" in run("ip", "-o", "link", netns=netns)


@pytest.mark.parametrize("size", [28, 1500, 9000, 60000])
def test_frames_of_any_size_come_in_on_the_target(
    pair: Pair, iptables: Iptables, no_tap: None, size: int
) -> None:
    server = pair.server
    inside = in_namespace(server.netns)
    iptables(server.netns, PacketFamily.IPV4, "-A", "INPUT", "-i", "eth0", "-p", "udp")

    def look() -> Interface:
        with rtnetlink() as ipr:
            return find_interface(ipr, "eth0", inside)

    def saved() -> str:
        return iptables.save(server.netns, PacketFamily.IPV4)

    target = inside.run(look)
    device = tap.open_tap(inside, target, target.mac)
    try:
        device.write(frame(target.mac, size))
        wait_until(lambda: f"[1:{size}] -A INPUT -i eth0 -p udp" in saved(), what="the packet")
    finally:
        device.close()
    assert not devices(server.netns)


def frame(mac: str | None, size: int) -> bytes:
    """Return an Ethernet frame with an IPv4 packet of `size` bytes, UDP without checksum."""
    to = bytes.fromhex((mac or "").replace(":", "")) + bytes.fromhex("0200000000020800")
    fields = (0x4500, size, 1, 0, 0x4011, 0, *ADDRESSES)
    header = struct.pack("!10H", *fields[:5], checksum(fields), *ADDRESSES)
    return to + header + struct.pack("!4H", 9, 9, size - 20, 0) + bytes(size - 28)


ADDRESSES = struct.unpack("!4H", bytes([198, 51, 100, 2, 198, 51, 100, 1]))


def checksum(words: tuple[int, ...]) -> int:
    """Return the checksum of an IPv4 header (RFC 791)."""
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


HOLD = """
import os, signal, sys
from ipttrace.system import paired_device
from ipttrace.system.namespaces import NAMED, Namespace

netns = Namespace(sys.argv[1], NAMED / sys.argv[1])
netns.run(lambda: paired_device.create("iptt0"))
print("made", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_takes_it_away(pair: Pair) -> None:
    netns = pair.server.netns
    done = subprocess.run(
        [sys.executable, "-c", HOLD, netns], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "made\n"), done.stderr
    wait_until(lambda: not devices(netns), what="no device")


def test_the_last_descriptor_keeps_it(pair: Pair) -> None:
    netns = pair.server.netns
    descriptor = in_namespace(netns).run(lambda: paired_device.create("iptt1"))
    second = os.dup(descriptor)
    os.close(descriptor)
    assert devices(netns)
    os.close(second)
    wait_until(lambda: not devices(netns), what="no device")
