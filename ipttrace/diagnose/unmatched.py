"""Rules that a user would expect to match, and the one criterion that did not.

The kernel reports the rules that matched, so those before them in a chain are known not to have.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from ipttrace.diagnose.tracked import connmark_at, ct_state
from ipttrace.diagnose.walk import made_here, mark_before, name, packet_before, stayed_here
from ipttrace.event import TraceKind
from ipttrace.evidence import NOTHING, Scene
from ipttrace.matching import Judgement, PacketFacts, judge_any
from ipttrace.netfilter import ChainRef, Hook
from ipttrace.path import ChainHop, PacketPath, Unmatched
from ipttrace.ruleset import Rule, Ruleset

SEARCHED, MOST = 200, 10
"""A long chain has thousands that did not match; the first few tell."""

PORTS = frozenset({"--dport", "--dports"})
PLACES = frozenset({"-s", "-d", "-i", "-o", "--src-range", "--dst-range", "--dst-type"})
QUALITIES = frozenset({"--mark", "--ctstate", "--state", "--tcp-flags", "--syn"})
STATES = frozenset({"--ctstate", "--state"})
REMARKING = frozenset({"TOS", "DSCP"})
"""Targets that, as a new mark or destination, have a packet in OUTPUT routed again."""
REWRITING = frozenset({"DNAT", "REDIRECT"})


def unmatched(path: PacketPath, ruleset: Ruleset, scene: Scene = NOTHING) -> tuple[Unmatched, ...]:
    """Return the rules that failed by one criterion only, in the order in which they were asked.

    Where there are many, those of the deciding chain and of nat are kept.
    """
    found = list(islice(_near_misses(path, ruleset, scene), SEARCHED))
    deciding = path.chain_hops[-1].chain if path.chain_hops else None
    first = [each for each in found if each.rule.chain == deciding or _is_nat(each)]
    kept = [*first, *(each for each in found if each not in first)][:MOST]
    return tuple(each for each in found if each in kept)


def _is_nat(near: Unmatched) -> bool:
    return near.rule.chain.table == "nat"


def since(path: PacketPath, failed: Unmatched) -> str | None:
    """Return the hop since which the packet has what a rule did not want; None if from its start.

    A chain may be met twice: it is the last hop before the rule's chain was left for good.
    """
    met = [n for n, hop in enumerate(path.chain_hops) if hop.chain == failed.rule.chain]
    for hop in reversed(path.chain_hops[: met[-1] if met else 0]):
        for change in hop.changes:
            number = f"{change.new:#x}" if change.field == "mark" else str(change.new)
            if number == failed.actual:
                return name(hop)
    return None


def _near_misses(path: PacketPath, ruleset: Ruleset, scene: Scene) -> Iterator[Unmatched]:
    ports = _ports(path)
    for rule, hop in passed_over(path, ruleset):
        judgement = judge_any(rule.text, facts_at(path, hop, scene))
        if len(judgement.failures) == 1 and _expected(rule, judgement, ports):
            failure = judgement.failures[0]
            yield Unmatched(rule.ref, str(failure.criterion), failure.actual)


def passed_over(path: PacketPath, ruleset: Ruleset) -> Iterator[tuple[Rule, ChainHop]]:
    """Yield each rule that was asked in vain, with the next hop of its chain.

    A walk goes on behind the last hop of its chain, also after a call of another chain.
    """
    asked: dict[tuple[ChainRef, Hook | None], int] = {}
    for hop in path.chain_hops:
        chain = ruleset.chains.get(hop.chain)
        rules = chain.user_rules if chain else ()
        first = asked.get((hop.chain, hop.hook), 0)
        last = len(rules) if hop.event is not TraceKind.RULE else (hop.number or 1) - 1
        yield from ((rule, hop) for rule in rules[first:last])
        asked[hop.chain, hop.hook] = last + 1


def facts_at(path: PacketPath, hop: ChainHop, scene: Scene = NOTHING) -> PacketFacts:
    """Return the packet as it was when it met `hop`, and what is known of it there."""
    if hop.hook in (Hook.PREROUTING, Hook.INPUT):
        way_in, way_out = "lo" if made_here(path) else path.in_interface, None
        unknown = frozenset[str]()
    else:
        forwarded = hop.hook is Hook.FORWARD
        way_in, way_out = path.in_interface if forwarded else None, _way_out(path)
        unknown = frozenset[str]() if forwarded else frozenset({"-i"})
        unknown |= {"-o"} if way_out is None else set[str]()
    return PacketFacts(
        packet_before(path, hop),
        way_in,
        way_out,
        unknown,
        mark=mark_before(path, hop),
        connmark=connmark_at(path, hop, scene),
        ct_state=ct_state(path, scene),
        local=local_addresses(path, scene),
    )


def _way_out(path: PacketPath) -> str | None:
    """Return the interface that the packet left by; what was routed once only for here is on lo."""
    made = [hop for hop in path.chain_hops if hop.hook is Hook.OUTPUT]
    rerouted = any(
        hop.target in REMARKING or any(each.field in ("dst", "mark") for each in hop.changes)
        for hop in made
    )
    return "lo" if stayed_here(path) and not rerouted else path.out_interface


def accepting_behind(
    path: PacketPath, hop: ChainHop, ruleset: Ruleset, scene: Scene = NOTHING
) -> Rule | None:
    """Return the first rule behind `hop` in its chain that would surely accept the packet."""
    chain = ruleset.chains.get(hop.chain)
    if chain is None or hop.number is None:
        return None
    facts = facts_at(path, hop, scene)
    behind = chain.user_rules[hop.number : hop.number + SEARCHED]
    accepting = (rule for rule in behind if (rule.target or "").upper() == "ACCEPT")
    return next((rule for rule in accepting if judge_any(rule.text, facts).matches), None)


def local_addresses(path: PacketPath, scene: Scene) -> dict[str, bool]:
    """Return whether the packet's addresses are ours, as its way or the tables tell."""
    known: dict[str, bool] = {}
    if made_here(path):
        known[path.packet.src] = True
    hooks = [hop.hook for hop in path.chain_hops]
    if Hook.FORWARD in hooks:
        known[packet_before(path, None).dst] = False
    elif scene.local is not None and scene.last is not None:
        known[scene.last.dst] = scene.local
    return known


def _ports(path: PacketPath) -> frozenset[str]:
    """Return every destination port that the packet had on its way."""
    changed = {c.new for hop in path.chain_hops for c in hop.changes if c.field == "dport"}
    return frozenset(str(port) for port in {path.packet.dport, *changed} if port is not None)


def _expected(rule: Rule, judgement: Judgement, ports: frozenset[str]) -> bool:
    """Say whether a user would expect the rule to match, but for the one criterion.

    It asks for a port that the packet had at another hop, or it rewrites another port of this
    address; or its port holds, and the address or interface does not.  Whoever asks for a state
    expects every packet to have one.
    """
    wanted = judgement.failures[0].criterion
    if wanted.option in STATES and judgement.failures[0].actual == "UNTRACKED":
        return True
    if wanted.negated:
        return False
    if wanted.option in PORTS:
        return wanted.value in ports or rule.target in REWRITING
    held = any(each.option in PORTS for each in judgement.held)
    if wanted.option in ("--icmp-type", "--icmpv6-type"):
        return True
    return wanted.option in PLACES | QUALITIES and held
