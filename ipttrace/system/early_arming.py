"""What stands in a namespace for one request where chains come before the usual triggers."""

from __future__ import annotations

from collections.abc import Callable

from ipttrace.errors import IptTraceError
from ipttrace.ports import TraceRequest
from ipttrace.system.capabilities import load_modules
from ipttrace.system.owner_table import OwnerTable

Undo = Callable[[], None]

NOT_TRACED = "the chains that packets meet before the triggers are not traced: {reason}"


class EarlyArming:
    """Our table of family inet; each step is noted for its undoing before it is done."""

    def __init__(self, request: TraceRequest, undo: list[Undo]) -> None:
        self._request = request
        self._undo = undo
        self._table: OwnerTable | None = None
        self.hits = 0

    @property
    def stands(self) -> bool:
        """Whether the table is there."""
        return self._table is not None

    def arm(self) -> tuple[str, ...]:
        """Make the table if there are such chains; return warnings."""
        if not (self._request.early_devices or self._request.early_hooks):
            return ()
        if self._request.filter is not None:
            # In family inet the kernel asks for a module of no name (xt_prefix, x_tables.c).
            load_modules(("xt_bpf",))
        self._undo.append(self.close)
        table = OwnerTable(self._request, early=True)
        try:
            table.create()
        except IptTraceError as error:
            return (NOT_TRACED.format(reason=error),)
        self._table = table
        return ()

    def quiet(self) -> None:
        """Set no more trace bits."""
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
