"""A stand-in for a TAP device where /dev/net/tun may not be opened, as in a user namespace.

A veth pair whose other end is in a network namespace that nothing but one packet socket keeps
alive: what is written to the socket comes in on the device, and when the socket's last descriptor
closes, SIGKILL included, the kernel removes that namespace and with it the pair.
"""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ipttrace.system.addresses import rtnetlink
from ipttrace.system.namespaces import leave_for_new_network

ETH_P_NONE = 0
"""A socket of this protocol receives nothing (packet(7))."""
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20
"""uapi/linux/if_packet.h; a device that just came up has no queue yet (noop_enqueue)."""
FAR_NAME = "iptt-far"
FAR_INDEX = 1001
"""Another one than the near end's: with equal ones the carrier is told a second late."""
LARGEST_MTU = 65535


def create(name: str) -> int:
    """Make the device in the calling thread's namespace, down; return the descriptor to write to.

    Raises OSError, and what pyroute2 raises.
    """
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="pair") as pool:
            return pool.submit(_make, name, here).result()
    finally:
        os.close(here)


def _make(name: str, target: int) -> int:
    leave_for_new_network()
    _silence()
    peer = {"ifname": name, "net_ns_fd": target, "mtu": LARGEST_MTU}
    with rtnetlink() as ipr:
        ipr.link("add", ifname=FAR_NAME, index=FAR_INDEX, kind="veth", peer=peer, mtu=LARGEST_MTU)
        ipr.link("set", index=FAR_INDEX, state="up")
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, ETH_P_NONE)
    try:
        sender.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        sender.bind((FAR_NAME, ETH_P_NONE))
    except OSError:
        sender.close()
        raise
    return sender.detach()


def _silence() -> None:
    """Keep the kernel from sending frames of its own (ND, MLD) into the device."""
    setting = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
    if setting.exists():
        setting.write_text("1")
