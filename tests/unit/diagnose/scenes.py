"""Scenes around packets that died on their way, for the tests of their causes."""

from __future__ import annotations

from typing import Any

from ipttrace.diagnose import Case, diagnose
from ipttrace.evidence import NeighbourWait, Route, Scene, Trail
from ipttrace.packet import PacketSummary
from ipttrace.path import Diagnosis, DropHop, Outcome, PacketPath, Strength
from tests import builders as b

FORWARDING = {f"net/ipv4/conf/{each}/forwarding": "1" for each in ("all", "eth0")}
ROUTED_ON = Route("unicast", "eth1", table="main")
NO_ROUTE = Route("none", error="ENETUNREACH")


def drop(reason: str, location: str = "ip_error") -> DropHop:
    """Return a death that the kernel told."""
    return DropHop(b.TIME + 1, reason, location, Strength.REPORTED)


def died(reason: str, location: str = "ip_error", *, waited: bool = False) -> Trail:
    """Return the trail of a packet that the kernel freed."""
    waits = (NeighbourWait(b.TIME, "eth1", b.SERVER),) if waited else ()
    return Trail(drops=(drop(reason, location),), waits=waits)


def early(packet: PacketSummary | None = None, **fields: Any) -> PacketPath:
    """Return a packet whose last report is of PREROUTING."""
    hop = b.policy_hop("raw", "PREROUTING")
    return b.path(hop, outcome=Outcome.DROPPED, packet=packet, **fields)


def unsent(packet: PacketSummary | None = None) -> PacketPath:
    """Return a packet of a local client whose call failed."""
    return b.path(outcome=Outcome.DROPPED, packet=packet, in_interface=None, out_interface=None)


def why(path: PacketPath, scene: Scene, **fields: Any) -> Diagnosis:
    """Return the diagnosis of a path in a scene."""
    return diagnose(Case(path, scene=scene, **fields))


def words(diagnosis: Diagnosis) -> list[str]:
    """Return the evidence, each with its strength."""
    return [f"{each.text} ({each.strength})" for each in diagnosis.evidence]
