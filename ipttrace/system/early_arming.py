"""What stands in a namespace for one request where chains come before the usual triggers."""

from __future__ import annotations

from ipttrace.errors import IptTraceError
from ipttrace.request import TraceRequest
from ipttrace.system.capabilities import load_modules
from ipttrace.system.held_table import HeldTable
from ipttrace.system.owner_table import OwnerTable

NOT_TRACED = "the chains that packets meet before the triggers are not traced: {reason}"


def arm_early(request: TraceRequest, held: HeldTable) -> tuple[str, ...]:
    """Make our table of family inet, if there are such chains; return warnings."""
    if not (request.early_devices or request.early_hooks):
        return ()
    if request.filter is not None:
        # In family inet the kernel asks for a module of no name (xt_prefix, x_tables.c).
        load_modules(("xt_bpf",))
    try:
        held.make(OwnerTable(request, early=True))
    except IptTraceError as error:
        return (NOT_TRACED.format(reason=error),)
    return ()
