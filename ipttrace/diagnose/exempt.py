"""What a user may do about a rule or a policy that stopped a packet."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

from ipttrace.diagnose.answers import look_words, stranger
from ipttrace.diagnose.case import Case
from ipttrace.diagnose.death import VMAP, Death, is_known, is_unconditional
from ipttrace.diagnose.remedy import (
    Limits,
    asks_for_source,
    can_know_answers,
    delete_element,
    delete_rule,
    is_native,
    let_answers_pass,
    let_pass,
    show_chain,
)
from ipttrace.diagnose.unmatched import local_addresses
from ipttrace.diagnose.walk import made_here, packet_before
from ipttrace.event import TraceKind
from ipttrace.netfilter import Hook, Verdict
from ipttrace.path import ChainHop, PacketPath, Role

ENDING = frozenset({Verdict.RETURN, Verdict.GOTO})
"""What ends the walk of a base chain without a verdict."""


def remedies(death: Death) -> tuple[str, ...]:
    """Return the commands that would let the packet pass; none names a rule that is not known."""
    if not is_known(death.hop):
        return (f"to see the rules of the chain now: {show_chain(death.hop.chain)}",)
    found = [_exception(death)]
    if death.hop.event is TraceKind.RULE:
        found += deletion(death)
    return tuple(found)


def spared(case: Case, setter: ChainHop, what: str = "the mark") -> tuple[str, ...]:
    """Return what keeps packets like this one from a rule that gave it `what`."""
    if not is_known(setter):
        return ()
    local = made_here(case.path) and setter.hook is Hook.PREROUTING
    limits = Limits(source=not local, loopback=local, here=is_for_this_host(case, setter) is True)
    who = "packets of this host" if local else "this client"
    exempt = let_pass(setter, packet_before(case.path, setter), limits)
    return (f"to spare {who} {what}: {exempt}",)


def removal(hop: ChainHop) -> tuple[str, ...]:
    """Return the command that deletes the rule of a hop, if it is known."""
    return (f"or delete that rule: {_delete(hop)}",) if is_known(hop) else ()


def answer_remedy(case: Case, answer: PacketPath, hop: ChainHop) -> str:
    """Return what would let an answer pass that died at `hop`; `case` is the request's."""
    if not is_known(hop):
        return f"to see the rules of the chain now: {show_chain(hop.chain)}"
    found = stranger(case, answer)
    if found is not None:
        return look_words(found, answer)
    return f"to let answers pass: {_let_answers_pass(answer, hop)}"


def _exception(death: Death) -> str:
    """Return what accepts packets like this one: an answer's port is another one each time."""
    hop, path = death.hop, death.path
    if path.role is Role.REPLY:
        found = stranger(death.case, path)
        if found is not None:
            return look_words(found, path)
        return f"{_purpose(death)}: {_let_answers_pass(path, hop)}"
    source = any(map(asks_for_source, death.jumps))
    limits = Limits(source=source, here=is_for_this_host(death.case, hop) is True)
    before = _where_it_was_over(path, hop)
    return f"{_purpose(death)}: {let_pass(before, packet_before(path, before), limits)}"


def _where_it_was_over(path: PacketPath, hop: ChainHop) -> ChainHop:
    """Return the rule that led to a policy before the chain's end, if one did; else the hop.

    RETURN in a base chain does, and a GOTO from there: no rule behind it is asked.
    """
    earlier = takewhile(lambda each: each is not hop, path.chain_hops)
    over = [each for each in earlier if each.chain == hop.chain and each.hook == hop.hook]
    if hop.event is not TraceKind.POLICY or not over or over[-1].event is not TraceKind.RULE:
        return hop
    return over[-1] if over[-1].verdict in ENDING and is_known(over[-1]) else hop


def _let_answers_pass(answer: PacketPath, hop: ChainHop) -> str:
    hop = _where_it_was_over(answer, hop)
    if can_know_answers(hop):
        return let_answers_pass(hop)
    return let_pass(hop, packet_before(answer, hop), Limits(answers=True))


def _purpose(death: Death) -> str:
    hop = death.hop
    if hop.hook is Hook.INPUT:
        return "to let it in"
    if hop.hook in (Hook.OUTPUT, Hook.POSTROUTING):
        return "to let it out"
    if hop.hook is Hook.EGRESS and made_here(death.path):
        return "to let it out"
    if hop.hook in (Hook.FORWARD, Hook.EGRESS):
        return "to let it through"
    here = is_for_this_host(death.case, hop)
    return "to let it pass" if here is None else f"to let it {'in' if here else 'through'}"


def is_for_this_host(case: Case, hop: ChainHop) -> bool | None:
    """Return whether the packet, as it met `hop`, goes to an address of this host, if known."""
    if hop.hook is Hook.INPUT:
        return True
    if hop.hook not in (Hook.PREROUTING, Hook.INGRESS):
        return None
    if hop.hook is Hook.PREROUTING and made_here(case.path):
        return True
    path, dst = case.path, packet_before(case.path, hop).dst
    if any(each.hook is Hook.INPUT for each in path.chain_hops):
        return dst == packet_before(path, None).dst or None
    return local_addresses(path, case.scene).get(dst)


def deletion(death: Death, words: str = "the rule") -> Iterator[str]:
    """Yield what takes the rule away that decided.

    Of a list whose addresses are sent to one rule, that is the rule that sends them there.  A rule
    with a verdict map is a whole dispatch: only the element of a named map is taken out of it.
    """
    hop = death.hop
    if is_unconditional(hop) and any(map(asks_for_source, death.jumps)):
        hop = next(jump for jump in reversed(death.jumps) if asks_for_source(jump))
        words = "the rule that sends it there"
    mapped = VMAP.search(hop.rule or "") if is_native(hop.chain, hop.rule) else None
    if mapped is None:
        yield f"or delete {words}: {_delete(hop)}"
    elif hop.element is not None and mapped["map"].startswith("@"):
        command = delete_element(hop.chain, mapped["map"][1:], hop.element.key)
        yield f"or delete the element{_then(death.case, hop)}: {command}"


def _then(case: Case, hop: ChainHop) -> str:
    """Return what decides where a verdict map has no element for the packet."""
    chain = case.ruleset.chains.get(hop.chain)
    if chain is None or hop.number is None:
        return ""
    if chain.user_rules[hop.number :]:
        return " (the rules behind it then decide)"
    return f" (the policy {chain.policy} then decides)" if chain.policy else ""


def _delete(hop: ChainHop) -> str:
    return delete_rule(hop.ref, is_native(hop.chain, hop.rule))
