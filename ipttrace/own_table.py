"""The chains of our own nft tables: what each is for, where it hangs, what its reports mean."""

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

IP_CHAINS = {
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

BRIDGED_TRIGGER = "bridged-prerouting"
BRIDGED_OBSERVER = "bridged-forward"
BRIDGED_CONTAINMENT = "bridged-postrouting"
BRIDGED_CHAINS = {
    BRIDGED_TRIGGER: OwnChain(Hook.PREROUTING, FIRST),
    BRIDGED_OBSERVER: OwnChain(Hook.FORWARD, FIRST),
    BRIDGED_CONTAINMENT: OwnChain(Hook.POSTROUTING, BEFORE_CONFIRM),
}
"""Of the second table, of family bridge.  br_netfilter, at INT_MAX (NF_BR_PRI_LAST), calls IP's
POSTROUTING after the last of them."""

EARLY_INGRESS = "early-ingress"
EARLY_PREROUTING = "early-prerouting"
EARLY_OUTPUT = "early-output"
EARLY_CHAINS = {
    EARLY_INGRESS: OwnChain(Hook.INGRESS, FIRST),
    EARLY_PREROUTING: OwnChain(Hook.PREROUTING, FIRST),
    EARLY_OUTPUT: OwnChain(Hook.OUTPUT, FIRST),
}
"""Of the table of family inet, which is there where chains come before the triggers."""

OWN_CHAINS = IP_CHAINS | BRIDGED_CHAINS | EARLY_CHAINS
TRACERS = frozenset({*TRIGGERS, *REPLIES, BRIDGED_TRIGGER, BRIDGED_OBSERVER, *EARLY_CHAINS})
"""Their rules set the trace bit, or count where it is set; no rule in them does anything else."""

OBSERVERS = frozenset(
    {*(name for name in IP_CHAINS if name.startswith("observe-")), *BRIDGED_CHAINS}
)
