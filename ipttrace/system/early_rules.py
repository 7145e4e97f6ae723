"""What our table of family inet does: trace a flow from the first chain on that it meets.

    early-ingress      on the interfaces that have chains of family netdev, or inet's at ingress
    early-prerouting   where chains come before the usual triggers, which stand next to raw
    early-output       likewise

They set the trace bit, and count.  What they let go on meets chains of ours that count it once
more, in the counter `again`: the difference is what was dropped between.
"""

from __future__ import annotations

from ipttrace.netfilter import Hook
from ipttrace.own_table import EARLY_INGRESS, EARLY_OUTPUT, EARLY_PREROUTING, TRIGGERS
from ipttrace.system import nft_expressions as nft
from ipttrace.system.flow_selectors import selectors_of

TYPE_CHECKING = False  # typing's own costs 5 ms to import
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipttrace.packet import Flow
    from ipttrace.ports import TraceRequest

    Rule = tuple[str, bytes]
    """As in `flow_rules`."""

AGAIN = "again"


class EarlyFlowRules:
    """The rules of a request for a flow, in the table of family inet."""

    def __init__(self, request: TraceRequest, flow: Flow) -> None:
        self.limits: dict[str, int] = {}
        self.remembers = self.traces_tracked = False
        self.devices = request.early_devices
        self._hooks = request.early_hooks
        self._selectors = selectors_of(request, flow)

    @property
    def chains(self) -> tuple[str, ...]:
        """The names of the chains that are needed."""
        at_ingress = (EARLY_INGRESS,) if self.devices else ()
        at_hooks = {Hook.PREROUTING: EARLY_PREROUTING, Hook.OUTPUT: EARLY_OUTPUT}
        return (*at_ingress, *(at_hooks[hook] for hook in self._hooks))

    def triggers(self) -> list[Rule]:
        """Return the rules that set the trace bit, and those that count."""
        rules: list[Rule] = []
        if EARLY_PREROUTING in self.chains:
            rules += counted_again(EARLY_PREROUTING, self.devices, self._selectors)
        for chain in self.chains:
            for selector, counter in self._selectors:
                end = nft.trace() + nft.count(counter) + nft.accept()
                rules.append((chain, selector + end))
        return rules

    def containment(self) -> list[Rule]:
        """Return nothing: what leaves is contained at POSTROUTING."""
        return []


def seen_before(request: TraceRequest, flow: Flow) -> list[Rule]:
    """Return the rules of the usual triggers' chains that count what came by early chains."""
    selectors = selectors_of(request, flow)
    rules: list[Rule] = []
    for hook, chain in zip((Hook.PREROUTING, Hook.OUTPUT), TRIGGERS, strict=True):
        if hook in request.early_hooks:
            rules += [(chain, selector + nft.count(AGAIN)) for selector, _ in selectors]
        elif hook is Hook.PREROUTING:
            rules += counted_again(chain, request.early_devices, selectors)
    return rules


def counted_again(
    chain: str, devices: Sequence[str], selectors: Sequence[tuple[bytes, str]]
) -> list[Rule]:
    """Return the rules that count what came in by one of the interfaces."""
    names = [nft.meta_is(nft.NFT_META_IIFNAME, nft.interface_name(name)) for name in devices]
    return [
        (chain, name + selector + nft.count(AGAIN)) for name in names for selector, _ in selectors
    ]
