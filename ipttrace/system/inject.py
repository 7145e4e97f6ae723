"""A client whose packets arrive on an interface as if received from outside."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Protocol

from ipttrace.errors import IptTraceError, NotSupportedError, UsageError
from ipttrace.netfilter import PacketFamily
from ipttrace.packet import Flow, PacketSummary
from ipttrace.probe import ProbeSpec, family_of
from ipttrace.system import packets
from ipttrace.system.addresses import (
    Interface,
    addresses,
    choose_source,
    find_interface,
    free_ports,
    interface_at,
    neighbours,
    route_to,
    rtnetlink,
)
from ipttrace.system.namespaces import Namespace
from ipttrace.system.packets import Identity
from ipttrace.system.tap import Tap, open_tap


def warm_up(family: PacketFamily | None = None) -> None:
    """Import what injecting needs (0.25 s); meant for a thread, while others work."""
    import pyroute2  # noqa: F401

    packets.warm_up(family)


class Heir(Protocol):
    """Who takes the packets back if this process is killed."""

    def bequeath(self, fd: int, frames: Sequence[bytes], flows: Sequence[Flow], /) -> None:
        """Hand over a descriptor, the frames to write to it, the conntrack entries to delete."""
        ...

    def release(self) -> None:
        """Forget what was handed over."""
        ...


class InjectingClient:
    """Implements `ports.ProbeClient`: writes frames to a TAP that is redirected to a target."""

    def __init__(
        self, spec: ProbeSpec, namespace: Namespace, session: str, guardian: Heir | None = None
    ) -> None:
        self.spec = spec
        self.namespace = namespace
        self.session = session
        self.guardian = guardian
        self.flows: list[Flow] = []
        self.farewell_frames: list[bytes] = []
        """What takes half-open connections back: one RST a SYN."""
        self._summaries: list[PacketSummary] = []
        self._frames: list[bytes] = []
        self._tap: Tap | None = None
        self._sent = 0

    @property
    def device(self) -> str | None:
        """The device through which the packets come; None before `prepare`."""
        return self._tap.name if self._tap is not None else None

    @property
    def thread(self) -> None:
        """Packets that come in are known by the device."""
        return

    @property
    def identities(self) -> Sequence[PacketSummary]:
        """The headers and payload of each packet, in the order of sending."""
        return self._summaries

    def prepare(self) -> Sequence[Flow]:
        """Choose source and ports, build the frames, make the device."""
        target, source, macs, ports = self.namespace.run(self._look_around)
        identities = [Identity() for _ in range(self.spec.count)]
        self.flows = [
            packets.flow_of(self.spec, source, port, identity)
            for port, identity in zip(ports, identities, strict=True)
        ]
        self._summaries = [
            packets.describe(self.spec, flow, identity)
            for flow, identity in zip(self.flows, identities, strict=True)
        ]
        self._frames = list(packets.frames(self.spec, self.flows, identities, macs))
        self.farewell_frames = list(packets.reset_frames(self.spec, self.flows, identities, macs))
        self._tap = open_tap(self.namespace, target, macs[0])
        if self.guardian is not None:
            self.guardian.bequeath(self._tap.descriptor, self.farewell_frames, self.flows)
        return self.flows

    def send(self) -> None:
        """Let the next packet arrive; the kernel has walked it through when this returns."""
        if self._tap is None:
            raise RuntimeError("prepare() comes before send()")
        self._tap.write(self._frames[self._sent])
        self._sent += 1

    def poll(self) -> str | None:
        """Return SENT: nobody waits for an answer."""
        return "SENT" if self._sent else None

    def fileno(self) -> int | None:
        """Return None: there is nothing to wait for."""
        return None

    def finish(self) -> Sequence[str]:
        """Reset half-open connections, forget the conntrack entries, remove the device."""
        tap, self._tap = self._tap, None
        if tap is None:
            return ()
        try:
            return tuple(self._take_back(tap)) if self._sent else ()
        finally:
            if self.guardian is not None:
                self.guardian.release()
            tap.close()

    def _take_back(self, tap: Tap) -> list[str]:
        """Do each step whether or not the one before failed; return what failed."""
        failed = []
        try:
            for frame in self.farewell_frames[: self._sent]:
                tap.write(frame)
        except IptTraceError as error:
            failed.append(f"half-open connections may stay for a minute: {error}")
        try:
            self.namespace.run(self._forget)
        except IptTraceError as error:
            failed.append(f"conntrack entries of the probe stay until they expire: {error}")
        return failed

    def _forget(self) -> None:
        from ipttrace.system.conntrack import delete_entry

        for flow in dict.fromkeys(self.flows[: self._sent]):
            delete_entry(flow)

    def _look_around(self) -> tuple[Interface, str, tuple[str, str], list[int | None]]:
        with rtnetlink() as ipr:
            target = find_interface(ipr, self.spec.in_interface or "", self.namespace)
            check_target(target, self.namespace)
            source = self.spec.src or self._unused_source(ipr, target)
            macs = self._macs(ipr, target, source)
        return target, source, macs, self._ports()

    def _ports(self) -> list[int | None]:
        if self.spec.dport is None:
            return [None] * self.spec.count
        if self.spec.sport is not None:
            return [self.spec.sport] * self.spec.count
        return list(free_ports(self.spec.count))

    def _unused_source(self, ipr: Any, target: Interface) -> str:
        family = family_of(self.spec.dst)
        for index in (target.index, target.master):
            if index is None:
                continue
            own = addresses(ipr, family, index)
            source = choose_source(own, set(neighbours(ipr, family, index)), self.spec.dst)
            if source is not None:
                return source
        raise UsageError(
            f"cannot choose a source for {self.spec.dst} on {target.name} in {self.namespace}: "
            f"it has no {family} network with room for one",
            "Give the source with --src.",
        )

    def _macs(self, ipr: Any, target: Interface, source: str) -> tuple[str, str]:
        """Return destination and source.

        A frame for a bridge's host has the bridge's MAC, also on its ports; one for a neighbour
        behind the bridge has that neighbour's, or, if it is not known, one that makes the bridge
        send it out of all ports.
        """
        family = family_of(self.spec.dst)
        station, known = target, neighbours(ipr, family, target.index)
        if target.master is not None:
            station = interface_at(ipr, target.master)
            known |= neighbours(ipr, family, station.index)
        behind = known.get(self.spec.dst) if station.kind == "bridge" else None
        if behind is None and station is not target and self._is_bridged(ipr, station):
            behind = random_mac()
        destination = behind or station.mac or target.mac or random_mac()
        return destination, known.get(source) or random_mac()

    def _is_bridged(self, ipr: Any, master: Interface) -> bool:
        """Tell whether senders address such frames to another host, not to this one.

        They do if the destination is on the bridge's own network, or the bridge has no address.
        """
        family = family_of(self.spec.dst)
        route = route_to(ipr, self.spec.dst, family)
        if master.kind != "bridge" or (route is not None and route.local):
            return False
        on_link = route is not None and route.gateway is None and route.interface == master.name
        own = [each for each in addresses(ipr, family, master.index) if not each.own.is_link_local]
        return on_link or not own


def check_target(target: Interface, namespace: Namespace) -> None:
    """Refuse an interface on which the kernel would throw the packet away unseen."""
    tried = f"cannot inject on {target.name} in {namespace}"
    if target.loopback:
        raise UsageError(
            f"{tried}: it is a loopback device, the kernel takes no packets from outside there",
            "Use a real connect(): leave --in out.",
        )
    if not target.up:
        raise NotSupportedError(
            f"{tried}: it is down", f"Bring it up: ip link set {target.name} up"
        )
    if target.kind == "tun" and not target.carrier:
        raise NotSupportedError(
            f"{tried}: it is a tun device that no program has open", "Start the program first."
        )


def random_mac() -> str:
    """Return a locally administered unicast address (IEEE 802, section 8.2 of Std 802-2014)."""
    return ":".join(f"{byte:02x}" for byte in b"\x02" + secrets.token_bytes(5))
