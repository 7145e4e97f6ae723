"""What our table of family bridge does: trace frames, and keep in those that no IP chain sees.

    bridged-prerouting   sets the trace bit, before all other chains
    bridged-forward      tells the correlator that a frame is bridged; counts it
    bridged-postrouting  tells that it left, and contains

Frames that meet IP's chains inside the bridge's (br_netfilter), or come up to this host, are
counted and contained there.
"""

from __future__ import annotations

from ipttrace.own_table import BRIDGED_CONTAINMENT, BRIDGED_OBSERVER, BRIDGED_TRIGGER
from ipttrace.system import nft_expressions as nft
from ipttrace.system import nft_filtering
from ipttrace.system.early_rules import DUE, MATCHING, counted_again
from ipttrace.system.flow_rules import Rule
from ipttrace.system.flow_selectors import ETHERTYPES, errors_about_answers, selectors_of

TYPE_CHECKING = False  # typing's own costs 5 ms to import
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipttrace.packet import Flow
    from ipttrace.request import PacketFilter, TraceRequest
    from ipttrace.system.bridges import Bridges

_ACCEPT = nft.accept()


class BridgedFlowRules:
    """The rules of a request for a flow."""

    def __init__(self, request: TraceRequest, flow: Flow, bridges: Bridges) -> None:
        self.limits: dict[str, int] = {}
        self.remembers = self.traces_tracked = self.knows_fragments = False
        self._contain = request.contain
        self._silent = bridges.silent(flow.family)
        self._calling = bridges.calling_ports(flow.family)
        self._selectors = selectors_of(request, flow)
        self._about_answers = errors_about_answers(request, flow)
        self._early_devices = request.early_devices

    def triggers(self) -> list[Rule]:
        """Return the rules that set the trace bit, and those that count."""
        trace = nft.trace() + nft.accept()
        rules = [(BRIDGED_TRIGGER, chosen + trace) for chosen, _ in self._selectors]
        if not self._silent:
            return rules
        return [
            *rules,
            *_leave_to_ip(BRIDGED_OBSERVER, self._calling),
            *counted_again(BRIDGED_OBSERVER, self._early_devices, self._selectors),
            *(
                (BRIDGED_OBSERVER, chosen + nft.count(counter) + nft.accept())
                for chosen, counter in self._selectors
            ),
        ]

    def containment(self) -> list[Rule]:
        """Return the rules that keep frames from leaving."""
        if not (self._contain and self._silent):
            return []
        chosen = [*(each for each, _ in self._selectors), *self._about_answers]
        end = nft.count("contained") + nft.drop()
        return [
            *_leave_to_ip(BRIDGED_CONTAINMENT, self._calling),
            *((BRIDGED_CONTAINMENT, each + end) for each in chosen),
        ]


class BridgedFilterRules:
    """The rules of a request for a filter: only for frames that meet no chain of IP.

    Others are traced by the rules there, within one limit.
    """

    def __init__(
        self, request: TraceRequest, packet_filter: PacketFilter, bridges: Bridges
    ) -> None:
        self.limits = {} if request.limit is None else {MATCHING: request.limit}
        self.remembers = self.traces_tracked = self.knows_fragments = False
        self._bridges = bridges
        self._replies = request.replies
        self._filter = packet_filter

    def triggers(self) -> list[Rule]:
        """Return the rules that set the trace bit."""
        limited = nft_filtering.limited(MATCHING) if self.limits else b""
        both_ways = self._filter.both_ways if self._replies else ()
        matches = nft_filtering.matches(both_ways or self._filter.program)
        trace = nft.count(DUE) + limited + nft.trace()
        rules: list[Rule] = []
        for family, ethertype in ETHERTYPES.items():
            if self._bridges.silent(family):
                is_family = nft.meta_is(nft.NFT_META_PROTOCOL, ethertype)
                calling = self._bridges.calling_ports(family)
                rules += _leave_to_ip(BRIDGED_OBSERVER, calling, is_family)
                taken = is_family + matches + trace + nft.count("probe") + nft.accept()
                rules.append((BRIDGED_OBSERVER, taken))
                errors = nft_filtering.errors_about(self._filter, family) if self._replies else b""
                if errors:
                    refused = is_family + errors + trace + nft.count("reply")
                    rules.append((BRIDGED_OBSERVER, refused))
        return rules

    def containment(self) -> list[Rule]:
        """Return nothing: live traffic is never kept from leaving."""
        return []


def _leave_to_ip(chain: str, ports: Sequence[str], condition: bytes = b"") -> list[Rule]:
    """Return the rules that let frames pass which go by certain ports.

    `meta obrname` would do with a bridge's name, but needs a module of its own (nft_meta_bridge).
    """
    return [
        (chain, condition + nft.meta_is(nft.NFT_META_OIFNAME, nft.interface_name(port)) + _ACCEPT)
        for port in ports
    ]
