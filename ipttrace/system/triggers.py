"""Raw triggers: TRACE rules of ours in the raw table of one backend, and how they go again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ipttrace.errors import IptTraceError, NotSupportedError
from ipttrace.netfilter import Backend, ChainRef
from ipttrace.system import legacy_rules, nft_rules, presence
from ipttrace.system.trace_rule import TraceRule

Notify = Callable[[str], None]

GONE = (
    "our TRACE rule in raw/{chain} ({backend}) was gone at the end: "
    "somebody reloaded the rules meanwhile"
)
NO_TIME = "a forgotten TRACE rule of ours would go on matching ({backend}): no `time` match here"
NO_U32 = "echoes of other clients are traced, too ({backend}): no `u32` match here"


@dataclass(frozen=True, slots=True)
class Removed:
    """What was found when a trigger was taken back."""

    hits: int
    warnings: tuple[str, ...] = ()


class RawTrigger(Protocol):
    """One backend's trigger."""

    @property
    def backend(self) -> Backend:
        """Whose raw table it stands in."""
        ...

    def set(self) -> frozenset[ChainRef]:
        """Insert the rule; return the base chains that exist only because of it."""
        ...

    def weaker(self) -> Iterator[tuple[RawTrigger, str]]:
        """Yield what can be had without some match module, and what is lost by it."""
        ...

    def stands(self) -> bool:
        """Tell whether all rules are there, with none of somebody else's before them."""
        ...

    def remove(self) -> Removed:
        """Delete the rule and what was made for it."""
        ...


class LegacyTrigger:
    """Rules in the raw table of ip_tables or ip6_tables."""

    backend = Backend.LEGACY

    def __init__(self, rules: Sequence[TraceRule], notify: Notify) -> None:
        self._rules = tuple(rules)
        self._notify = notify
        self._standing = False

    def set(self) -> frozenset[ChainRef]:
        """Insert the rules; the raw table stays, but its chains are empty without us."""
        family = self._rules[0].family
        existed = legacy_rules.TABLE in legacy_rules.tables(family)
        try:
            legacy_rules.preload()
        except (ImportError, OSError, AttributeError) as error:
            raise NotSupportedError(
                f"cannot load python-iptables: {error}",
                "Install libip4tc2, libip6tc2, libxtables12.",
            ) from error
        self._standing = True
        try:
            legacy_rules.insert(self._rules, self._notify)
        except IptTraceError:
            self._standing = False  # the table is replaced as a whole, or not at all
            raise
        return frozenset() if existed else legacy_rules.base_chains(family)

    def weaker(self) -> Iterator[tuple[RawTrigger, str]]:
        """Yield the same with fewer criteria."""
        for rules, lost in _weaker(self._rules):
            yield LegacyTrigger(rules, self._notify), lost.format(backend=self.backend)

    def stands(self) -> bool:
        """Tell whether all rules are there, with none of somebody else's before them."""
        rule = self._rules[0]
        return legacy_rules.heads(rule.family, rule.tag, self._notify) == len(self._rules)

    def remove(self) -> Removed:
        """Delete the rules, by their tag."""
        if not self._standing:
            return Removed(0)
        rule = self._rules[0]
        hits = legacy_rules.remove(rule.family, rule.tag, self._notify)
        return Removed(sum(hits), _missing(self._rules, hits, self.backend))


class NftTrigger:
    """Rules in the raw table of nf_tables."""

    backend = Backend.NFT

    def __init__(self, rules: Sequence[TraceRule]) -> None:
        self._rules = tuple(rules)

    def set(self) -> frozenset[ChainRef]:
        """Insert the rules, or none; make the chain for each where there is none."""
        with presence.only_one():
            try:
                return frozenset(ref for rule in self._rules for ref in self._insert(rule))
            except IptTraceError:
                self._delete()
                raise

    def _insert(self, rule: TraceRule) -> Iterator[ChainRef]:
        """Insert one rule; yield its chain if that exists only because of it."""
        nft_rules.make_chain(rule.family, rule.hook)
        nft_rules.insert(rule)
        if nft_rules.is_made_by_us(rule.family, rule.hook):
            family = rule.family.table_family
            yield ChainRef(self.backend, family, nft_rules.TABLE, rule.hook)

    def weaker(self) -> Iterator[tuple[RawTrigger, str]]:
        """Yield the same with fewer criteria."""
        for rules, lost in _weaker(self._rules):
            yield NftTrigger(rules), lost.format(backend=self.backend)

    def stands(self) -> bool:
        """Tell whether all rules are there, with none of somebody else's before them."""
        rule = self._rules[0]
        return nft_rules.heads(rule.family, rule.tag) == len(self._rules)

    def remove(self) -> Removed:
        """Delete the rules by their tag, then our chains and table if nobody else uses them."""
        with presence.only_one():
            hits = self._delete()
        return Removed(sum(hits), _missing(self._rules, hits, self.backend))

    def _delete(self) -> list[int]:
        rule = self._rules[0]
        return nft_rules.remove(rule.family, rule.tag)


def _weaker(rules: Sequence[TraceRule]) -> Iterator[tuple[list[TraceRule], str]]:
    """Yield the rules without the matches that a kernel may lack, one alone before both."""
    without_id = [replace(rule, echo_id=None) for rule in rules]
    if without_id != list(rules):
        yield without_id, NO_U32
    yield [replace(rule, stop=None) for rule in rules], NO_TIME
    if without_id != list(rules):
        yield [replace(rule, stop=None) for rule in without_id], f"{NO_U32}; {NO_TIME}"


def _missing(rules: Sequence[TraceRule], hits: list[int], backend: Backend) -> tuple[str, ...]:
    if len(hits) >= len(rules):
        return ()
    hooks = "+".join(dict.fromkeys(rule.hook for rule in rules))
    return (GONE.format(chain=hooks, backend=backend),)
