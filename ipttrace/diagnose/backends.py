"""One backend let the packet pass, or would have, and the other one ended it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from ipttrace.diagnose.case import Case
from ipttrace.diagnose.catalogue import Cause
from ipttrace.diagnose.unmatched import facts_at
from ipttrace.diagnose.walk import callers, name
from ipttrace.event import TraceKind
from ipttrace.matching import PacketFacts, judge_any
from ipttrace.netfilter import Backend, ChainRef, RuleRef, TableFamily, Verdict
from ipttrace.path import ChainHop, Diagnosis, Evidence, Strength
from ipttrace.ruleset import Chain, Rule, Ruleset

FILTERING = "filter"
"""The table whose ACCEPT means that a packet may pass; in iptables' other tables it means less."""

WORDS = {Backend.LEGACY: "iptables-legacy", Backend.NFT: "nftables"}
LOCATIONS = {Backend.LEGACY: "nf_hook_slow", Backend.NFT: "nft_do_chain"}
"""Where each backend's drop is freed in kernels that tell them apart (from 6.5 or so on)."""

NATIVE_CALL = re.compile(r"\b(?:jump|goto) (\S+)")
DEEPEST = 8
"""Jumps that are followed."""

ENDING = frozenset({"DROP", "REJECT", "NFQUEUE", "QUEUE", "TPROXY", "SYNPROXY"})
CONTINUING = frozenset(
    {"LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "AUDIT", "TRACE", "ACCOUNT", "SET", "CLASSIFY"}
    | {"SECMARK", "CONNSECMARK", "DSCP", "TOS", "TTL", "HL", "TCPMSS", "CT", "RATEEST", "LED"}
)


def other_backend(case: Case, hop: ChainHop, plain: Diagnosis) -> Diagnosis | None:
    """Return the cause where the other backend accepts what this one ended."""
    if hop.chain.table_family not in (TableFamily.IP, TableFamily.IP6, TableFamily.INET):
        return None  # legacy has no chains there
    other = Backend.NFT if hop.chain.backend is Backend.LEGACY else Backend.LEGACY
    accepting = _accepted(case, hop, other) or _would_accept(case, hop, other)
    if accepting is None:
        return None
    ref, said = accepting
    verb = "rejected" if hop.verdict is Verdict.REJECT else "dropped"
    mine, theirs = WORDS[hop.chain.backend], WORDS[other]
    summary = f"{verb} at {name(hop)} by {mine}, though {ref} of {theirs} {said.text}"
    both = Evidence(
        f"{ref} of {theirs} {said.text}; every chain of both backends must let a packet pass",
        Strength.INFERRED,
    )
    evidence = (*plain.evidence, both, *_located(case, hop))
    return replace(
        plain,
        cause=Cause.OTHER_BACKEND_DROP,
        summary=summary,
        rules=tuple(dict.fromkeys((*plain.rules, ref))),
        evidence=evidence,
    )


def _located(case: Case, hop: ChainHop) -> Iterator[Evidence]:
    drop = case.drop
    if drop is not None and drop.location == LOCATIONS[hop.chain.backend]:
        text = f"{drop.location} is where a drop of {WORDS[hop.chain.backend]} is freed"
        yield Evidence(text, drop.basis)


def _accepted(case: Case, hop: ChainHop, other: Backend) -> tuple[RuleRef, Evidence] | None:
    """Return the rule of the other backend that accepted the packet at the same hook."""
    hops = case.path.chain_hops
    for each, calls in zip(hops, callers(hops), strict=True):
        ruled = each.event is TraceKind.RULE and each.verdict is Verdict.ACCEPT
        base = calls[0] if calls else each
        same = (each.chain.backend, each.hook) == (other, hop.hook)
        if ruled and same and _filters(base.chain, each):
            return each.ref, Evidence("accepted it", Strength.REPORTED)
    return None


def _filters(chain: ChainRef, hop: ChainHop) -> bool:
    iptables = chain.table_family in (TableFamily.IP, TableFamily.IP6)
    text = hop.rule or ""
    if iptables and text.startswith("-A "):
        return chain.table == FILTERING and hop.target == "ACCEPT"
    return bool(text) and text.split(" #")[0].rstrip().endswith("accept")


def _would_accept(case: Case, hop: ChainHop, other: Backend) -> tuple[RuleRef, Evidence] | None:
    """Return the rule of the other backend that would accept the packet, were it asked.

    Only where no rule before it is in doubt.
    """
    asked = {each.chain for each in case.path.chain_hops if each.hook is hop.hook}
    facts = facts_at(case.path, hop, case.scene)
    families = (case.path.packet.family.table_family, TableFamily.INET)
    for ref, chain in case.ruleset.chains.items():
        concerned = ref.backend is other and chain.hook is hop.hook and ref not in asked
        if not concerned or ref.table_family not in families or _is_other_table(chain):
            continue
        with suppress(_NotSurelyError):
            rule = _first_accepting(case.ruleset, chain, facts, DEEPEST)
            if rule is not None:
                return rule.ref, Evidence("would have accepted it", Strength.INFERRED)
    return None


def _is_other_table(chain: Chain) -> bool:
    texts = [rule.text for rule in chain.user_rules]
    written = any(text.startswith("-A ") for text in texts)
    return written and chain.ref.table != FILTERING


class _NotSurelyError(Exception):
    """It is not known that the chain accepts the packet, or known that it does not."""


def _first_accepting(ruleset: Ruleset, chain: Chain, facts: PacketFacts, depth: int) -> Rule | None:
    """Return the rule of a chain that accepts the packet; None if it comes out of the chain."""
    for rule in chain.user_rules:
        target = (rule.target or "").upper()
        matches = None if not target else judge_any(rule.text, facts).matches
        if matches is False or not target or target in CONTINUING:
            continue
        if matches is None or target in ENDING:
            raise _NotSurelyError
        if target == "ACCEPT":
            return rule
        if target == "RETURN":
            return None
        called = ruleset.chains.get(replace(rule.chain, chain=_called(rule)))
        if called is None or depth == 0:
            raise _NotSurelyError
        found = _first_accepting(ruleset, called, facts, depth - 1)
        if found is not None or rule.goto:
            return found
    return None


def _called(rule: Rule) -> str:
    native = NATIVE_CALL.search(rule.text) if not rule.text.startswith("-A ") else None
    return native[1] if native else rule.target or ""
