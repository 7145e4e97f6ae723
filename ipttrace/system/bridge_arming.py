"""What stands in a namespace for one request and what its bridges bridge: our second table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ipttrace.errors import IptTraceError, NotSupportedError
from ipttrace.netfilter import PacketFamily
from ipttrace.ports import TraceRequest
from ipttrace.system.bridges import Bridges
from ipttrace.system.owner_table import OwnerTable

Undo = Callable[[], None]

NOT_TRACED = "frames that are only bridged are not traced: {reason}"


class BridgeArming:
    """The bridges' side of a request; each step is noted for its undoing before it is done."""

    def __init__(self, request: TraceRequest, bridges: Bridges, undo: list[Undo]) -> None:
        self._request = request
        self._bridges = bridges
        self._undo = undo
        self._table: OwnerTable | None = None
        self.hits = 0

    def arm(self) -> tuple[str, ...]:
        """Make the table if there are bridges; return warnings."""
        if not self._bridges.bridge_of or not (self._silent or self._request.flow):
            return ()
        self._undo.append(self.close)
        table = OwnerTable(self._request, bridges=self._bridges)
        try:
            table.create()
        except IptTraceError as error:
            return self._without(error)
        self._table = table
        return ()

    @property
    def _silent(self) -> bool:
        """Whether some bridge hides frames that are asked for from the chains of IP."""
        flow = self._request.flow
        families = tuple(PacketFamily) if flow is None else (flow.family,)
        return any(self._bridges.silent(family) for family in families)

    def _without(self, error: IptTraceError) -> tuple[str, ...]:
        """Go on without the table, where that loses nothing but sight."""
        if not self._silent:
            return ()
        if self._request.contain:
            raise NotSupportedError(
                f"cannot keep the probe inside the namespace, which has bridges: {error.message}",
                "Load nf_tables' bridge family, or let the probe out with --let-out.",
            ) from error
        return (NOT_TRACED.format(reason=error),)

    def quiet(self) -> None:
        """Set no more trace bits; what contains stays."""
        if self._table is not None:
            self._table.quiet()

    def close(self) -> None:
        """Take the table back, and keep its counts."""
        table, self._table = self._table, None
        if table is None:
            return
        try:
            self.hits += table.hits()
        finally:
            table.close()


def as_ip_sees_it(request: TraceRequest, bridges: Bridges) -> TraceRequest:
    """Return `request` with the interface that IP's chains see: of a bridge's port, the bridge."""
    interface = bridges.bridge_of.get(request.in_interface or "", request.in_interface)
    return replace(request, in_interface=interface)
