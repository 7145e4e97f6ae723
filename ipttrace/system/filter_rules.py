"""What our nft table does for a packet filter: trace what matches, and what belongs to it.

Where connections are tracked, a packet that matches makes its connection known for a while, and
the other packets of known connections are traced as well, whatever NAT did to them:

    trigger-*  (before raw)                      matches -> count; owner trigger only: trace
    reply-*    (after conntrack)                 matches -> remember its connection
                                                 else of a known connection -> trace

Over `lo` a packet comes by twice.  In OUTPUT it is judged by the headers that it was made with;
coming in it is judged again only if NAT has rewritten it, and its connection is not known.  The
trace bit stays with it, so it is traced and counted once.

Where they are not, the answers are what matches the other way round, and ICMP errors that quote a
packet which matches (`quoted_filter`); they are traced in the trigger-* chains.

Where packets meet chains before raw, `early_rules` judge them, and the trigger-* chains do not
judge them again.

Limits are token buckets: `matching` is one for all rules that trace what matches, `others` one for
the rest of the connections.  How many connections are learned is limited as well, in each chain,
so that the set stays small on a busy host.
"""

from __future__ import annotations

from ipttrace.netfilter import PacketFamily
from ipttrace.own_table import REPLIES, TRIGGERS
from ipttrace.system import nft_expressions as nft
from ipttrace.system import nft_filtering
from ipttrace.system.early_rules import DUE, MATCHING, judged_in_output
from ipttrace.system.flow_rules import Rule
from ipttrace.system.fragment_rules import rules_with_fragments

TYPE_CHECKING = False  # typing's own costs 5 ms to import
if TYPE_CHECKING:
    from ipttrace.request import PacketFilter, TraceRequest

OTHERS = "others"


class FilterRules:
    """The rules of a request for a filter."""

    def __init__(
        self,
        request: TraceRequest,
        packet_filter: PacketFilter,
        family: PacketFamily,
        *,
        tracked: bool,
    ) -> None:
        self._request = request
        self.traces_tracked = self.remembers = tracked and request.replies
        self.limits = dict.fromkeys((MATCHING, OTHERS), request.limit or 0)
        if request.limit is None:
            self.limits = {}
        self._matches = nft_filtering.matches(packet_filter.program)
        by_headers = request.replies and not tracked
        self.knows_fragments = by_headers and family is PacketFamily.IPV4
        self._errors = nft_filtering.errors_about(packet_filter, family) if by_headers else b""

    def triggers(self) -> list[Rule]:
        """Return the rules that set the trace bit."""
        return self._matching_rules() + (self._connection_rules() if self.remembers else [])

    def containment(self) -> list[Rule]:
        """Return nothing: live traffic is never kept from leaving."""
        return []

    def _matching_rules(self) -> list[Rule]:
        from ipttrace.request import Trigger

        traces = self._request.trigger is Trigger.OWNER
        if not (traces or self._request.counts_due):
            return []
        hooks = [hook for hook in self._request.hooks if hook not in self._request.early_hooks]
        taken = self._traced(MATCHING, "probe") if traces else nft.count(DUE)
        # Chains of nf_tables report while any rule sets the bit (nft_trace_enabled).
        rules: list[Rule] = [] if traces else [(TRIGGERS[1], nft.never() + nft.trace())]
        for chain in (f"trigger-{hook.lower()}" for hook in hooks):
            rules += judged_in_output(chain)
            rules += [(chain, each) for each in self._taking(chain, taken)]
            if self._errors:
                rules.append((chain, self._errors + self._traced(OTHERS, "reply") + nft.accept()))
        return rules

    def _taking(self, chain: str, taken: bytes) -> list[bytes]:
        """Return the rules for what matches; fragments come in, and go out whole."""
        if not self.knows_fragments or chain != TRIGGERS[0]:
            return [self._matches + taken + nft.accept()]
        return rules_with_fragments(self._matches, taken, self._traced(OTHERS, "reply"))

    def _connection_rules(self) -> list[Rule]:
        known = nft_filtering.remembered()
        comes_again = nft.received_on_loopback()
        rewritten = comes_again + nft.ct_translated() + self._matches
        rules = [
            (REPLIES[0], comes_again + known + nft.accept()),
            (REPLIES[0], rewritten + self._traced(MATCHING, "probe")),
        ]
        for chain in REPLIES:
            rules += [
                (chain, self._matches + self._learned() + nft.accept()),
                (chain, self._matches + nft.accept()),
                (chain, known + self._traced(OTHERS, "reply") + nft.accept()),
            ]
        return rules

    def _learned(self) -> bytes:
        limit = self._request.limit
        slowly = b"" if limit is None else nft_filtering.limit(limit)
        return slowly + nft_filtering.remember()

    def _traced(self, limit: str, counter: str) -> bytes:
        allowed = nft_filtering.limited(limit) if limit in self.limits else b""
        return nft.count(DUE) + allowed + nft.trace() + nft.count(counter)
