"""What must be armed in a namespace for its rules, and whether what was armed still does it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from ipttrace.netfilter import Backend, ChainRef, Hook, PacketFamily, TableFamily, Verdict
from ipttrace.own_table import BEFORE_RAW
from ipttrace.request import TraceRequest
from ipttrace.ruleset import OWN_TABLE, TAG, Chain, Ruleset, conntrack_active

EARLY_HOOKS = (Hook.PREROUTING, Hook.OUTPUT)
"""Hooks at which our usual triggers stand."""

GONE = "our TRACE rules were gone, or others stood before them"
ENGINE_CAME = "rules of {engine} came into use"
EARLY_CAME = "chains came that packets meet before raw"
TRACKED_NOW = "connections are tracked now"
BRIDGE_CAME = "a bridge came"
ENGINES = {Backend.LEGACY: "iptables-legacy", Backend.NFT: "nf_tables"}


@dataclass(frozen=True, slots=True)
class Standing:
    """What was armed, or would have to be, and what stands of it."""

    request: TraceRequest
    """Completed by what the namespace has."""
    heads: int
    """How many of our TRACE rules stand before all others."""
    bridges: frozenset[int]
    """The bridges that have ports."""


def standing(request: TraceRequest, ruleset: Ruleset, bridges: Collection[int]) -> Standing:
    """Return what `request`, completed, finds in these rules."""
    return Standing(request, _heads(ruleset, TAG + request.session), frozenset(bridges))


def disturbance(armed: Standing, now: Standing) -> str | None:
    """Return why all must be armed anew; None while what was armed does all that is needed.

    What is no longer needed may stay.
    """
    if now.heads < armed.heads:
        return GONE
    for engine in sorted(now.request.backends - armed.request.backends):
        return ENGINE_CAME.format(engine=ENGINES[engine])
    if set(now.request.early_hooks) - set(armed.request.early_hooks):
        return EARLY_CAME
    if armed.request.untracked - now.request.untracked:
        return TRACKED_NOW
    return BRIDGE_CAME if now.bridges - armed.bridges else None


def engines(ruleset: Ruleset, created: Collection[ChainRef]) -> frozenset[Backend]:
    """Return the backends with chains that are not there because of us (`created`)."""
    others = (ref for ref in ruleset.chains if not ref.table.startswith(OWN_TABLE))
    return frozenset(ref.backend for ref in others if ref not in created)


def _heads(ruleset: Ruleset, tag: str) -> int:
    """Return how many rules with this tag stand before all rules that are not ours."""
    found = 0
    for chain in ruleset.chains.values():
        for rule in chain.rules:
            if not rule.own:
                break
            found += tag in rule.text
    return found


def with_early(request: TraceRequest, ruleset: Ruleset) -> TraceRequest:
    """Return the request with the places where chains come before the usual triggers."""
    early = [chain for chain in ruleset.chains.values() if _is_early(chain)]
    # A filter's match cannot be had at ingress: see system.early_rules.
    devices = dict.fromkeys(name for chain in early for name in chain.devices if request.flow)
    hooks = {chain.hook for chain in early}
    return replace(
        request,
        early_devices=tuple(devices),
        early_hooks=tuple(hook for hook in EARLY_HOOKS if hook in hooks),
    )


def rules_met_untraced(ruleset: Ruleset, armed: TraceRequest | None) -> tuple[str, ...]:
    """Return a warning if packets meet rules before any trigger.

    `armed` is what early triggers were asked for, None if there are none.
    """
    early = [chain for chain in ruleset.chains.values() if _is_early(chain)]
    if armed is not None:
        early = [c for c in early if c.hook is Hook.INGRESS and not armed.early_devices]
    if not early:
        return ()
    names = ", ".join(f"{chain.ref.table_family} {chain.ref}" for chain in early)
    return (f"not traced, because packets meet them first: the rules of {names}",)


def _is_early(chain: Chain) -> bool:
    """Tell whether a chain has rules that packets meet before the usual triggers."""
    silent = not chain.user_rules and chain.policy is not Verdict.DROP
    if silent or chain.ref.table_family is TableFamily.BRIDGE:
        return False
    if chain.hook in EARLY_HOOKS:
        return (chain.priority or 0) < BEFORE_RAW
    return chain.hook is Hook.INGRESS


def tracked(ruleset: Ruleset, entries: int) -> frozenset[PacketFamily]:
    """Return the families whose connections are tracked: where a rule needs it.

    Entries that no rule explains may be of either family.
    """
    by_rules = frozenset(
        family for family in PacketFamily if conntrack_active(_seeing(ruleset, family), 0)
    )
    return by_rules or frozenset(PacketFamily if entries else ())


def _seeing(ruleset: Ruleset, family: PacketFamily) -> Ruleset:
    """Return the chains that packets of `family` can meet."""
    other = {each.table_family for each in PacketFamily} - {family.table_family}
    return Ruleset(
        {ref: chain for ref, chain in ruleset.chains.items() if ref.table_family not in other}
    )
