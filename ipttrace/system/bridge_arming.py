"""What stands in a namespace for one request and what its bridges bridge: our second table."""

from __future__ import annotations

from dataclasses import replace

from ipttrace.errors import IptTraceError, NotSupportedError
from ipttrace.netfilter import PacketFamily
from ipttrace.request import TraceRequest
from ipttrace.system.bridges import Bridges
from ipttrace.system.held_table import HeldTable
from ipttrace.system.owner_table import OwnerTable

NOT_TRACED = "frames that are only bridged are not traced: {reason}"


def arm_bridges(request: TraceRequest, bridges: Bridges, held: HeldTable) -> tuple[str, ...]:
    """Make the table if there are bridges; return warnings.

    NotSupportedError: it cannot be had, and would have kept a probe inside the namespace.
    """
    silent = _silent(request, bridges)
    if not bridges.bridge_of or not (silent or request.flow):
        return ()
    try:
        held.make(OwnerTable(request, bridges=bridges))
    except IptTraceError as error:
        if not silent:
            return ()  # nothing is lost but sight
        if request.contain:
            raise NotSupportedError(
                f"cannot keep the probe inside the namespace, which has bridges: {error.message}",
                "Load nf_tables' bridge family, or let the probe out with --let-out.",
            ) from error
        return (NOT_TRACED.format(reason=error),)
    return ()


def _silent(request: TraceRequest, bridges: Bridges) -> bool:
    """Tell whether some bridge hides frames that are asked for from the chains of IP."""
    families = tuple(PacketFamily) if request.flow is None else (request.flow.family,)
    return any(bridges.silent(family) for family in families)


def as_ip_sees_it(request: TraceRequest, bridges: Bridges) -> TraceRequest:
    """Return `request` with the interface that IP's chains see: of a bridge's port, the bridge."""
    interface = bridges.bridge_of.get(request.in_interface or "", request.in_interface)
    return replace(request, in_interface=interface)


def counted_at_ingress(request: TraceRequest, bridges: Bridges) -> tuple[str, ...]:
    """Return by what IP's chains know packets that INGRESS has counted.

    Of what comes in by a port they see the bridge: which port it was they tell no more, so that it
    counts as one of those only if all ports do, or if the packets are known to come in by it.
    """
    ports = set(request.early_devices)
    names = list(request.early_devices)
    for bridge in sorted(bridges.names):
        others = {port for port, of in bridges.bridge_of.items() if of == bridge}
        if others <= ports or request.in_interface in others & ports:
            names.append(bridge)
    return tuple(names)
