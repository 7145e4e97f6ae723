"""A TAP device whose frames the kernel takes for received on another interface.

Its ingress qdisc redirects every frame to the ingress of the target (act_mirred), so that
netfilter, rp_filter and packet sockets see the target as the incoming interface.  The device is
non-persistent: the kernel removes it when its last descriptor closes, SIGKILL included.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipttrace.errors import IptTraceError, KernelError, NotPermittedError, NotSupportedError
from ipttrace.system import paired_device
from ipttrace.system.addresses import Interface, rtnetlink
from ipttrace.system.capabilities import load_modules
from ipttrace.system.namespaces import Namespace

NAME_PREFIX = "iptt"
"""Every device of ours is called so, followed by hexadecimal digits."""

TUN = Path("/dev/net/tun")
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
"""uapi/linux/if_tun.h."""

UNREACHABLE = (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENODEV, errno.ENXIO)
"""Why /dev/net/tun cannot be opened: the file is not there or not for us, or has no driver."""

INGRESS = 0xFFFF0000
ETH_P_ALL = 0x0003
EVERYTHING = {"keys": ["0x0/0x0+0"], "target": 0x10000}
"""A u32 selector that every packet matches."""


@dataclass(slots=True)
class Tap:
    """An open device: what is written to `descriptor` arrives on the target."""

    descriptor: int
    name: str
    namespace: Namespace

    def write(self, frame: bytes) -> None:
        """Let one Ethernet frame arrive; raises KernelError."""
        try:
            os.write(self.descriptor, frame)
        except OSError as error:
            raise KernelError(
                f"cannot inject a packet through {self.name} in {self.namespace}: {error.strerror}",
                "Has somebody changed the interface meanwhile? Try again.",
            ) from error

    def close(self) -> None:
        """Remove the device, also while another process holds its descriptor."""
        if self.descriptor < 0:
            return
        os.close(self.descriptor)
        self.descriptor = -1
        self.namespace.run(lambda: _delete(self.name))


def open_tap(namespace: Namespace, target: Interface, mac: str | None) -> Tap:
    """Make the device in `namespace` with the MAC to which its frames will be sent.

    With another MAC the packet would be PACKET_OTHERHOST and die before PREROUTING
    (eth_type_trans).  Raises NotPermittedError or NotSupportedError; nothing stays behind.
    """
    return namespace.run(lambda: _open(namespace, target, mac))


def _open(namespace: Namespace, target: Interface, mac: str | None) -> Tap:
    name = NAME_PREFIX + secrets.token_hex(4)
    try:
        descriptor = _create(name)
    except OSError as error:
        if error.errno not in UNREACHABLE:
            raise _refused(namespace, error.errno, error.strerror) from error
        descriptor = _create_pair(namespace, name, error)
    try:
        _silence(name)
        _redirect(name, target, mac)
    except Exception as error:
        os.close(descriptor)
        raise _translated(namespace, error) from error
    except BaseException:
        os.close(descriptor)
        raise
    return Tap(descriptor, name, namespace)


def _create(name: str) -> int:
    if not TUN.exists():  # without udev nothing makes it before the module is loaded
        load_modules(["tun"])
    descriptor = os.open(TUN, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.ioctl(
            descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI)
        )
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _create_pair(namespace: Namespace, name: str, refusal: OSError) -> int:
    """Make another kind of device that does the same; if there is none either, tell of the TAP."""
    try:
        return paired_device.create(name)
    except Exception as error:
        if isinstance(_translated(namespace, error), IptTraceError):
            raise _refused(namespace, refusal.errno, refusal.strerror) from error
        raise


def _silence(name: str) -> None:
    """Keep the kernel from sending frames of its own (ND, MLD) into the device."""
    settings = Path("/proc/sys/net/ipv6/conf", name)
    if settings.exists():
        (settings / "disable_ipv6").write_text("1")


def _redirect(name: str, target: Interface, mac: str | None) -> None:
    with rtnetlink() as ipr:
        (index,) = ipr.link_lookup(ifname=name)
        address = {"address": mac} if mac else {}
        ipr.link("set", index=index, arp=False, multicast=False, **address)
        ipr.tc("add", "ingress", index, "ffff:")
        _match_all(ipr, index, target.index)
        ipr.link("set", index=index, state="up")


def _match_all(ipr: Any, index: int, target: int) -> None:
    """Add the filter: u32 where it is built, else matchall."""
    from pyroute2.netlink.exceptions import NetlinkError

    action = {
        "kind": "mirred",
        "direction": "ingress",
        "action": "redirect",
        "ifindex": target,
    }
    rest = {"parent": INGRESS, "protocol": ETH_P_ALL, "prio": 1, "action": [action]}
    try:
        ipr.tc("add-filter", "u32", index, **rest, **EVERYTHING)
    except NetlinkError:
        ipr.tc("add-filter", "matchall", index, **rest)


def _delete(name: str) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    with rtnetlink() as ipr, suppress(NetlinkError):
        for index in ipr.link_lookup(ifname=name):
            ipr.link("del", index=index)


def _translated(namespace: Namespace, error: Exception) -> Exception:
    from pyroute2.netlink.exceptions import NetlinkError

    if isinstance(error, NetlinkError):
        return _refused(namespace, error.code, os.strerror(error.code))
    if isinstance(error, OSError):
        return _refused(namespace, error.errno, error.strerror)
    return error


def _refused(namespace: Namespace, number: int | None, reason: str | None) -> IptTraceError:
    tried = f"cannot make a device to inject through in {namespace}: {reason}"
    if number == errno.EACCES:
        return NotPermittedError(tried, "Run as root, allow /dev/net/tun, or use --from.")
    if number == errno.EPERM:
        return NotPermittedError(tried, "Run as root, or grant CAP_NET_ADMIN.")
    return NotSupportedError(
        tried, "Load the modules tun, sch_ingress, cls_u32 and act_mirred, or use --from."
    )
