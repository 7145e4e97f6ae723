"""Where a packet's way is over as far as the rules can tell, where no observer reports."""

from __future__ import annotations

from ipttrace.netfilter import LOOPBACK_INDEX, Hook, TableFamily
from ipttrace.ruleset import Ruleset
from ipttrace.walk import Walk


class Ends:
    """The last chains of one ruleset."""

    def __init__(self, ruleset: Ruleset) -> None:
        self._last_stage = _last_stages(ruleset)
        self.egress = any(chain.hook is Hook.EGRESS for chain in ruleset.chains.values())
        """Whether a packet may be reported after it left IP: netdev's chains come later."""

    def reached_by(self, walk: Walk) -> bool:
        """Tell whether no later chain can report a packet, wherever it goes from here."""
        if walk.base_open or walk.hook not in (Hook.INPUT, Hook.OUTPUT, Hook.POSTROUTING):
            return False
        if walk.hook is not Hook.INPUT and walk.out_index == LOOPBACK_INDEX:
            return False
        if walk.hook is Hook.OUTPUT and Hook.POSTROUTING in self._last_stage:
            return False
        return walk.priority >= self._last_stage.get(walk.hook, walk.priority)


def _last_stages(ruleset: Ruleset) -> dict[Hook, int]:
    """Return the priority of the last base chain at each hook that meets every packet.

    A nat table meets only the first one of a connection, a bridge's chains only its frames.
    """
    stages: dict[Hook, int] = {}
    for chain in ruleset.chains.values():
        partial = chain.ref.table == "nat" or chain.ref.table_family is TableFamily.BRIDGE
        if chain.hook is not None and chain.priority is not None and not partial:
            stages[chain.hook] = max(chain.priority, stages.get(chain.hook, chain.priority))
    return stages
