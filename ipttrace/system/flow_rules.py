"""What our nft table does for one flow: trace it and its answers, and keep both inside."""

from __future__ import annotations

from ipttrace.netfilter import Hook
from ipttrace.own_table import CONTAINMENT, REPLIES, TRIGGERS
from ipttrace.system import nft_expressions as nft
from ipttrace.system.early_rules import seen_before
from ipttrace.system.flow_selectors import FlowSelectors

TYPE_CHECKING = False  # typing's own costs 5 ms to import
if TYPE_CHECKING:
    from ipttrace.packet import Flow
    from ipttrace.request import TraceRequest

Rule = tuple[str, bytes]
"""The name of its chain, and its expressions."""


class FlowRules:
    """The rules of a request for a flow."""

    def __init__(self, request: TraceRequest, flow: Flow, *, tracked: bool) -> None:
        self.limits: dict[str, int] = {}
        self.remembers = self.knows_fragments = False
        self._request = request
        self._flow = flow
        self._tracked = tracked
        self._select = FlowSelectors(
            flow, any_source=request.any_source, any_destination=request.any_destination
        )

    @property
    def traces_tracked(self) -> bool:
        """Whether some rule asks for connections in order to trace."""
        return self._tracked and self._request.replies

    def triggers(self) -> list[Rule]:
        """Return the rules that set the trace bit."""
        rules = seen_before(self._request, self._flow)
        rules += self._probe_rules() + self._return_rules()
        return rules + self._reply_rules() + self._tracked_reply_rules()

    def containment(self) -> list[Rule]:
        """Return the rules that keep packets from leaving."""
        if not self._request.contain:
            return []
        select = self._select
        selectors = [select.flow(), *self._untranslated()]
        selectors += select.errors_about_answers() + select.redirects()
        if self._tracked:
            selectors += [select.tracked(), *select.untracked_copies()]
        stay = (CONTAINMENT, nft.leaves_over_loopback() + nft.accept())
        end = nft.count("contained") + nft.drop()
        return [stay, *((CONTAINMENT, selector + end) for selector in selectors)]

    def _probe_rules(self) -> list[Rule]:
        from ipttrace.request import Trigger

        if self._request.trigger is not Trigger.OWNER:
            return []
        chain = f"trigger-{self._request.hook.lower()}"
        selector = self._select.flow()
        if self._request.in_interface is not None and chain == TRIGGERS[0]:
            name = nft.interface_name(self._request.in_interface)
            selector = nft.meta_is(nft.NFT_META_IIFNAME, name) + selector
        return [_traced(chain, selector, "probe")]

    def _return_rules(self) -> list[Rule]:
        """Trace the probe where it comes in once more, by another interface than at first.

        It left, and something out there sent it back, perhaps with one of its ends rewritten.
        """
        request, flow = self._request, self._flow
        narrow = request.in_interface is not None or request.hook is Hook.OUTPUT
        if request.contain or not narrow:
            return []
        if flow.sport is None and flow.icmp_id is None:
            return []
        elsewhere = nft.not_received_on_loopback()
        if request.in_interface is not None:
            name = nft.interface_name(request.in_interface)
            elsewhere += nft.meta_is(nft.NFT_META_IIFNAME, name, nft.NFT_CMP_NEQ)
        selectors = [FlowSelectors(flow, any_source=True)]
        if not request.any_source:
            selectors.append(FlowSelectors(flow, any_destination=True))
        end = nft.trace() + nft.count("probe") + nft.accept()
        return [(TRIGGERS[0], elsewhere + each.flow() + end) for each in selectors]

    def _reply_rules(self) -> list[Rule]:
        if not self._request.replies:
            return []
        return [
            _traced(chain, selector, "reply")
            for chain in TRIGGERS
            for selector in self._untranslated()
        ]

    def _tracked_reply_rules(self) -> list[Rule]:
        """Trace what NAT hid from the headers; what the headers showed was counted before."""
        if not self.traces_tracked:
            return []
        rules: list[Rule] = []
        for chain in REPLIES:
            rules += [(chain, known + nft.accept()) for known in self._untranslated()]
            rules.append(_traced(chain, self._select.tracked_answers(), "reply"))
        return rules

    def _untranslated(self) -> list[bytes]:
        select = self._select
        return [select.answers(), *select.answers_from_elsewhere(), *select.errors()]


def _traced(chain: str, selector: bytes, counter: str) -> Rule:
    """Return the rule that traces every packet, and counts it unless OUTPUT had done so."""
    once = nft.not_received_on_loopback() if chain.endswith("-prerouting") else b""
    return chain, selector + nft.trace() + once + nft.count(counter) + nft.accept()
