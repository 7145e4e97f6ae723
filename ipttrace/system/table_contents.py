"""Which rules our tables hold, for each kind of request."""

from __future__ import annotations

from ipttrace.netfilter import TableFamily
from ipttrace.system.bridge_rules import BridgedFilterRules, BridgedFlowRules
from ipttrace.system.early_rules import EarlyFilterRules, EarlyFlowRules
from ipttrace.system.filter_rules import FilterRules
from ipttrace.system.flow_rules import FlowRules

TYPE_CHECKING = False  # typing's own costs 5 ms to import
if TYPE_CHECKING:
    from ipttrace.netfilter import PacketFamily
    from ipttrace.request import TraceRequest
    from ipttrace.system.bridges import Bridges

    Bridged = BridgedFlowRules | BridgedFilterRules
    Early = EarlyFlowRules | EarlyFilterRules
    Contents = FlowRules | FilterRules | Bridged | Early


def contents(
    request: TraceRequest, family: PacketFamily | None, *, tracked: bool
) -> tuple[Contents, TableFamily]:
    """Return the rules for IP's hooks, and the family of their table."""
    if request.flow is not None:
        rules = FlowRules(request, request.flow, tracked=tracked)
        return rules, request.flow.family.table_family
    assert request.filter is not None
    assert family is not None
    rules_of = FilterRules(request, request.filter, family, tracked=tracked)
    return rules_of, family.table_family


def early_contents(request: TraceRequest) -> Early:
    """Return the rules for hooks before the usual triggers."""
    if request.flow is not None:
        return EarlyFlowRules(request, request.flow)
    assert request.filter is not None
    return EarlyFilterRules(request, request.filter)


def bridged_contents(request: TraceRequest, bridges: Bridges) -> Bridged:
    """Return the rules for a bridge's hooks."""
    if request.flow is not None:
        return BridgedFlowRules(request, request.flow, bridges)
    assert request.filter is not None
    return BridgedFilterRules(request, request.filter, bridges)


def is_filter(rules: Contents) -> bool:
    """Tell whether rules are those of a filter, which need modules."""
    return isinstance(rules, FilterRules | BridgedFilterRules | EarlyFilterRules)
