"""A packet's death in a chain: the hop that ended it, and the rules that led there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ipttrace.criteria import criteria
from ipttrace.diagnose.case import Case
from ipttrace.diagnose.walk import callers, name
from ipttrace.event import TraceKind
from ipttrace.mapped import ANY
from ipttrace.netfilter import Verdict
from ipttrace.nft_criteria import without_counters
from ipttrace.path import ChainHop, PacketPath

VMAP = re.compile(r"(?P<keys>.+?) vmap (?P<map>@\S+|\{.*?\})")
NATIVE_CRITERIA = re.compile(r'((?:"[^"]*"|[^"])*?)\s*\b(?:drop|reject|jump|goto)\b')


@dataclass(frozen=True, slots=True)
class Death:
    """The fatal hop, and the jumps that led to its chain, outermost first."""

    case: Case
    hop: ChainHop
    jumps: tuple[ChainHop, ...]

    @property
    def path(self) -> PacketPath:
        """The way of the packet that died."""
        return self.case.path

    def deciding(self) -> Iterator[ChainHop]:
        """Yield the rule whose criteria decided: an unconditional rule's lie in its callers."""
        yield self.hop
        if self.hop.event is not TraceKind.RULE or is_unconditional(self.hop):
            yield from reversed(self.jumps)

    def sender(self) -> ChainHop | None:
        """Return the rule by whose criteria the packet came to one that has none of its own."""
        if not is_unconditional(self.hop):
            return None
        return next((jump for jump in reversed(self.jumps) if what_it_wants(jump)), None)


def death_at(case: Case, hop: ChainHop) -> Death:
    """Return the death of a packet at its last hop."""
    return Death(case, hop, callers(case.path.chain_hops)[-1])


def is_known(hop: ChainHop) -> bool:
    """Return whether the rule of a hop was found; not if the rules changed since they were read."""
    return hop.event is not TraceKind.RULE or hop.rule is not None


def is_unconditional(hop: ChainHop) -> bool:
    """Return whether a rule asks for nothing: it takes every packet that comes to it."""
    return hop.rule is not None and not what_it_wants(hop)


def what_it_wants(hop: ChainHop) -> str:
    """Return a rule's criteria, without the names of modules and comments.

    Empty if it has none, or if its text is not known.
    """
    text = hop.rule or ""
    try:
        wanted = criteria(text)
    except ValueError:
        return _native_wants(hop, without_counters(text))
    return " ".join(str(each) for each in wanted if each.option not in ("-m", "--comment"))


def _native_wants(hop: ChainHop, text: str) -> str:
    """Return a native rule's criteria: of a verdict map, the element that the packet met."""
    if found := VMAP.match(text):
        return _element_words(hop, found)
    found = NATIVE_CRITERIA.match(text)
    return found[1] if found else text


def _element_words(hop: ChainHop, rule: re.Match[str]) -> str:
    if hop.element is None:
        return rule[0]
    named = rule["map"] if rule["map"].startswith("@") else None
    if hop.element.key == ANY:
        return f"{rule['keys']} without an element in {named or 'the map'}"
    return f"{rule['keys']} {hop.element.key}" + (f", an element of {named}" if named else "")


def place(hop: ChainHop) -> str:
    """Return where a packet was stopped, in words."""
    word = "rejected" if hop.verdict is Verdict.REJECT else "dropped"
    return f"{word} at {name(hop)}"
