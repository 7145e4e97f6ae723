"""The rules of one namespace at one moment, and how a trace report is found in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ipttrace.event import TraceEvent, TraceKind
from ipttrace.netfilter import Backend, ChainRef, Hook, RuleRef, Verdict

TAG = "ipttrace:"
"""Every rule of ours carries a comment that starts so, followed by the session's name."""

OWN_TABLE = "ipttrace-"
"""The nft tables of ours start so, followed by the session's name."""


TRACKING_TARGETS = frozenset(
    {
        "CONNMARK",
        "CONNSECMARK",
        "CT",
        "DNAT",
        "MASQUERADE",
        "NETMAP",
        "NOTRACK",
        "REDIRECT",
        "SAME",
        "SNAT",
        "SYNPROXY",
    }
)
"""Targets whose checkentry calls nf_ct_netns_get(), or that act on conntrack entries."""

TRACKING_MATCHES = frozenset(
    {
        "cluster",
        "connbytes",
        "connlabel",
        "connlimit",
        "connmark",
        "conntrack",
        "helper",
        "state",
    }
)

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_XT_WORDS = re.compile(r"(?:^| )-([jm]) (\S+)")
_NFT_WORDS = re.compile(
    r"(?:^|[ {(])(?:ct|masquerade|dnat|snat|redirect|notrack|synproxy)(?=[ ;]|$)"
)


@dataclass(frozen=True, slots=True)
class Counter:
    """Packets and bytes that a rule or policy has met."""

    packets: int
    bytes: int

    def __sub__(self, other: Counter) -> Counter:
        return Counter(self.packets - other.packets, self.bytes - other.bytes)


@dataclass(frozen=True, slots=True)
class MapElement:
    """One line of a verdict map of native nft, as nft writes it."""

    key: str
    verdict: str
    """`drop`, `jump CHAIN`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, as its own tool writes it."""

    chain: ChainRef
    position: int
    """From 1, as the kernel counts: rules of ours included."""
    number: int | None
    """From 1, as the user counts: None in a rule of ours."""
    text: str
    """`-A CHAIN ...` as iptables-save writes it; as `nft -s list` does for native tables."""
    target: str | None = None
    """The word after -j or -g; in native nft the verdict statement's first word; None if none."""
    goto: bool = False
    counter: Counter | None = None
    handle: int | None = None
    """nft only."""
    elements: tuple[MapElement, ...] = ()
    """Of its verdict map."""

    @property
    def own(self) -> bool:
        """Whether ipttrace put it there."""
        return self.number is None

    @property
    def ref(self) -> RuleRef:
        """The rule's full name."""
        return RuleRef(self.chain, self.number, self.handle)


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain with its rules in order."""

    ref: ChainRef
    rules: tuple[Rule, ...] = ()
    hook: Hook | None = None
    """None in user chains."""
    priority: int | None = None
    policy: Verdict | None = None
    """ACCEPT or DROP; None in user chains."""
    counter: Counter | None = None
    """The policy's; legacy and iptables-nft only."""
    devices: tuple[str, ...] = ()
    """The interfaces of a chain at INGRESS or EGRESS."""

    @property
    def user_rules(self) -> tuple[Rule, ...]:
        """The rules that are not ours."""
        return tuple(rule for rule in self.rules if not rule.own)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the rules a report belongs: a rule, or (rule None) the end of the chain."""

    chain: Chain
    kind: TraceKind
    rule: Rule | None = None


@dataclass(frozen=True)
class Ruleset:
    """All chains of both backends in one namespace."""

    chains: Mapping[ChainRef, Chain] = field(default_factory=dict)

    def __or__(self, other: Ruleset) -> Ruleset:
        return Ruleset({**self.chains, **other.chains})

    def backends(self) -> frozenset[Backend]:
        """Return the backends that have any chain but ours."""
        return frozenset(ref.backend for ref in self.chains if not ref.table.startswith(OWN_TABLE))

    def rules(self) -> Iterator[Rule]:
        """Yield every rule, ours too."""
        for chain in self.chains.values():
            yield from chain.rules

    def locate(self, event: TraceEvent) -> Place | None:
        """Return where `event` belongs, or None if these rules cannot have said it.

        A legacy `policy:N` or `return:N` with N within the chain is the unconditional rule N
        (get_chainname_rulenum in net/ipv4/netfilter/ip_tables.c); one past the last rule it is
        the chain's end.
        """
        chain = self.chains.get(event.chain_ref)
        if chain is None:
            return None
        if event.backend is Backend.NFT:
            return self._locate_by_handle(chain, event)
        number = event.number or 0
        if 1 <= number <= len(chain.rules):
            return Place(chain, TraceKind.RULE, chain.rules[number - 1])
        if number == len(chain.rules) + 1 and event.kind is not TraceKind.RULE:
            return Place(chain, event.kind)
        return None

    def _locate_by_handle(self, chain: Chain, event: TraceEvent) -> Place | None:
        if event.handle is None:
            return Place(chain, event.kind)
        rule = self._by_handle.get((chain.ref, event.handle))
        return Place(chain, TraceKind.RULE, rule) if rule else None

    @cached_property
    def _by_handle(self) -> Mapping[tuple[ChainRef, int], Rule]:
        handled = (rule for rule in self.rules() if rule.handle is not None)
        return {(rule.chain, rule.handle or 0): rule for rule in handled}


def counter_changes(before: Ruleset, after: Ruleset) -> dict[RuleRef, Counter]:
    """Return by how much each rule's and policy's counter rose (policies: number None).

    A rule is the same if its chain, number and text are; a rule that only one side has, or whose
    counter fell (somebody zeroed it), is left out, and so are nft's policies: they count nothing.
    """
    changes: dict[RuleRef, Counter] = {}
    for ref, chain in after.chains.items():
        earlier = before.chains.get(ref)
        if earlier is None:
            continue
        if ref.backend is Backend.LEGACY:
            _note(changes, RuleRef(ref, None), earlier.counter, chain.counter)
        for old, new in zip(earlier.user_rules, chain.user_rules, strict=False):
            if old.text == new.text and old.handle == new.handle:
                _note(changes, new.ref, old.counter, new.counter)
    return changes


def _note(
    changes: dict[RuleRef, Counter], ref: RuleRef, old: Counter | None, new: Counter | None
) -> None:
    if old is None or new is None or new.packets < old.packets or new.bytes < old.bytes:
        return
    changes[ref] = new - old


def conntrack_active(ruleset: Ruleset, entry_count: int) -> bool:
    """Return whether connections are tracked: there are entries, or a rule needs them.

    A `ct` expression of ours in a namespace without would switch tracking and defragmentation on,
    and with it the nat tables: a nat chain alone, empty or full of other rules, tracks nothing and
    is not asked (net/netfilter/nft_chain_nat.c, ip_tables' nat likewise; measured on 6.18).
    """
    if entry_count > 0:
        return True
    rules = (rule for rule in ruleset.rules() if not rule.chain.table.startswith(OWN_TABLE))
    return any(map(_tracks, rules))


def _tracks(rule: Rule) -> bool:
    text = _QUOTED.sub('""', rule.text)
    if not text.startswith("-A "):
        return _NFT_WORDS.search(text) is not None
    words = _XT_WORDS.findall(text)
    return any(
        word in (TRACKING_TARGETS if option == "j" else TRACKING_MATCHES) for option, word in words
    )
