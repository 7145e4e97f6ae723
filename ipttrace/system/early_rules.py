"""What our table of family inet does: trace packets from the first chain on that they meet.

    early-ingress      on the interfaces that have chains of family netdev, or inet's at ingress
    early-prerouting   where chains come before the usual triggers, which stand next to raw
    early-output       likewise

They set the trace bit, and count.  Of a flow, what they let go on meets chains of ours that count
it once more, in the counter `again`: the difference is what was dropped between.  Of a filter,
which traces no more than so many packets a second, the chains behind do not judge again what these
have judged; and there is none at ingress, where the kernel does not take its xt_bpf
(nft_match_validate in net/netfilter/nft_compat.c).
"""

from __future__ import annotations

from ipttrace.netfilter import Hook, PacketFamily
from ipttrace.own_table import EARLY_INGRESS, EARLY_OUTPUT, EARLY_PREROUTING, TRIGGERS
from ipttrace.system import nft_expressions as nft
from ipttrace.system import nft_filtering
from ipttrace.system.flow_selectors import ETHERTYPES, selectors_of
from ipttrace.system.fragment_rules import rules_with_fragments

TYPE_CHECKING = False  # typing's own costs 5 ms to import
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ipttrace.packet import Flow
    from ipttrace.request import PacketFilter, TraceRequest

    Rule = tuple[str, bytes]
    """As in `flow_rules`."""

AGAIN = "again"
DUE = "due"
"""Counts what a filter takes before any limit."""
MATCHING = "matching"
"""The limit of a filter, one for all rules of a table that trace what matches."""


class EarlyRules:
    """The chains of the table of family inet, for any request."""

    remembers = traces_tracked = knows_fragments = False

    def __init__(self, request: TraceRequest) -> None:
        self.limits: dict[str, int] = {}
        self.devices = request.early_devices
        self._hooks = request.early_hooks

    @property
    def chains(self) -> tuple[str, ...]:
        """The names of the chains that are needed."""
        at_ingress = (EARLY_INGRESS,) if self.devices else ()
        at_hooks = {Hook.PREROUTING: EARLY_PREROUTING, Hook.OUTPUT: EARLY_OUTPUT}
        return (*at_ingress, *(at_hooks[hook] for hook in self._hooks))

    def containment(self) -> list[Rule]:
        """Return nothing: what leaves is contained at POSTROUTING."""
        return []


class EarlyFlowRules(EarlyRules):
    """The rules of a request for a flow."""

    def __init__(self, request: TraceRequest, flow: Flow) -> None:
        super().__init__(request)
        self._counted_devices = request.counted_devices
        self._selectors = selectors_of(request, flow)

    def triggers(self) -> list[Rule]:
        """Return the rules that set the trace bit, and those that count."""
        rules: list[Rule] = []
        if EARLY_PREROUTING in self.chains:
            counted = self._counted_devices
            rules += counted_again(EARLY_PREROUTING, counted, self._selectors)
        for chain in self.chains:
            for selector, counter in self._selectors:
                end = nft.trace() + nft.count(counter) + nft.accept()
                rules.append((chain, selector + end))
        return rules


class EarlyFilterRules(EarlyRules):
    """The rules of a request for a filter; they stand with the owner trigger only."""

    knows_fragments = True

    def __init__(self, request: TraceRequest, packet_filter: PacketFilter) -> None:
        super().__init__(request)
        self.limits = {} if request.limit is None else {MATCHING: request.limit}
        self._request = request
        self._filter = packet_filter

    def triggers(self) -> list[Rule]:
        """Return the rules that set the trace bit."""
        rules: list[Rule] = []
        for chain in self.chains:
            rules += judged_in_output(chain)
            rules += [(chain, each) for family in PacketFamily for each in self._traced(family)]
        return rules

    def _traced(self, family: PacketFamily) -> Iterator[bytes]:
        """Yield the rules for packets of one family.

        Answers are what matches the other way round, where no connection will tell them.
        """
        request = self._request
        tracked = request.conntrack_active and family not in request.untracked
        both_ways = self._filter.both_ways if request.replies and not tracked else ()
        matches = nft_filtering.matches(both_ways or self._filter.program)
        limited = nft_filtering.limited(MATCHING) if self.limits else b""
        of_family = nft.meta_is(nft.NFT_META_PROTOCOL, ETHERTYPES[family])
        taken = nft.count(DUE) + limited + nft.trace()
        probe = taken + nft.count("probe")
        if family is PacketFamily.IPV4:
            later = nft.count(DUE) + nft.trace() + nft.count("probe")
            yield from (of_family + each for each in rules_with_fragments(matches, probe, later))
        else:
            yield of_family + matches + probe + nft.accept()
        errors = nft_filtering.errors_about(self._filter, family)
        if errors and request.replies and not tracked:
            yield of_family + errors + taken + nft.count("reply") + nft.accept()


def seen_before(request: TraceRequest, flow: Flow) -> list[Rule]:
    """Return the rules of the usual triggers' chains that count what came by early chains."""
    selectors = selectors_of(request, flow)
    rules: list[Rule] = []
    for hook, chain in zip((Hook.PREROUTING, Hook.OUTPUT), TRIGGERS, strict=True):
        if hook in request.early_hooks:
            rules += [(chain, selector + nft.count(AGAIN)) for selector, _ in selectors]
        elif hook is Hook.PREROUTING:
            rules += counted_again(chain, request.counted_devices, selectors)
    return rules


def judged_in_output(chain: str) -> list[Rule]:
    """Return the rule that lets pass at PREROUTING what a filter has judged in OUTPUT."""
    if not chain.endswith("-prerouting"):
        return []
    return [(chain, nft.received_on_loopback() + nft.accept())]


def counted_again(
    chain: str, devices: Sequence[str], selectors: Sequence[tuple[bytes, str]]
) -> list[Rule]:
    """Return the rules that count what came in by one of the interfaces."""
    names = [nft.meta_is(nft.NFT_META_IIFNAME, nft.interface_name(name)) for name in devices]
    return [
        (chain, name + selector + nft.count(AGAIN)) for name in names for selector, _ in selectors
    ]
