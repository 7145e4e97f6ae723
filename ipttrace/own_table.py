"""The chains of our own nft table: what each is for, where it hangs, what its reports mean."""

from __future__ import annotations

from dataclasses import dataclass

from ipttrace.netfilter import Hook

BEFORE_RAW = -301
AFTER_CONNTRACK = -199
FIRST = -2147483647
BEFORE_CONFIRM = 2147483646
"""Conntrack confirms at INT_MAX (NF_IP_PRI_CONNTRACK_CONFIRM, uapi/linux/netfilter_ipv4.h)."""


@dataclass(frozen=True, slots=True)
class OwnChain:
    """Where one of our base chains hangs."""

    hook: Hook
    priority: int


CONTAINMENT = "observe-postrouting"
TRIGGERS = ("trigger-prerouting", "trigger-output")
"""Set the trace bit by the headers."""
REPLIES = ("reply-prerouting", "reply-output")
"""Set the trace bit by the conntrack entry."""

OWN_CHAINS = {
    "observe-input": OwnChain(Hook.INPUT, BEFORE_CONFIRM),
    "observe-forward": OwnChain(Hook.FORWARD, FIRST),
    CONTAINMENT: OwnChain(Hook.POSTROUTING, BEFORE_CONFIRM),
    "trigger-prerouting": OwnChain(Hook.PREROUTING, BEFORE_RAW),
    "trigger-output": OwnChain(Hook.OUTPUT, BEFORE_RAW),
    "reply-prerouting": OwnChain(Hook.PREROUTING, AFTER_CONNTRACK),
    "reply-output": OwnChain(Hook.OUTPUT, AFTER_CONNTRACK),
}
"""By name.  The observers tell that a packet came through to the end of INPUT or POSTROUTING, or
was routed to FORWARD; where the namespace has no chains of its own, nothing else tells."""

OBSERVERS = frozenset(name for name in OWN_CHAINS if name.startswith("observe-"))
