"""Raw triggers: a TRACE rule of ours in the raw table of one backend, and how it goes again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    def without_limit(self) -> RawTrigger:
        """Return the same without the date at which it stops matching."""
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

    def without_limit(self) -> LegacyTrigger:
        """Return the same without the date at which it stops matching."""
        return LegacyTrigger([replace(rule, stop=None) for rule in self._rules], self._notify)

    def remove(self) -> Removed:
        """Delete the rules, by their tag."""
        if not self._standing:
            return Removed(0)
        rule = self._rules[0]
        hits = legacy_rules.remove(rule.family, rule.tag, self._notify)
        return Removed(sum(hits), _missing(self._rules, hits, self.backend))


class NftTrigger:
    """A rule in the raw table of nf_tables."""

    backend = Backend.NFT

    def __init__(self, rule: TraceRule) -> None:
        self._rule = rule

    def set(self) -> frozenset[ChainRef]:
        """Insert the rule; make the chain for it where there is none."""
        rule = self._rule
        with presence.only_one():
            nft_rules.make_chain(rule.family, rule.hook)
            nft_rules.insert(rule)
            if not nft_rules.is_made_by_us(rule.family, rule.hook):
                return frozenset()
        family = rule.family.table_family
        return frozenset({ChainRef(self.backend, family, nft_rules.TABLE, rule.hook)})

    def without_limit(self) -> NftTrigger:
        """Return the same without the date at which it stops matching."""
        return NftTrigger(replace(self._rule, stop=None))

    def remove(self) -> Removed:
        """Delete the rule by its tag, then our chain and table if nobody else uses them."""
        with presence.only_one():
            hits = nft_rules.remove(self._rule.family, self._rule.tag)
        return Removed(sum(hits), _missing([self._rule], hits, self.backend))


def _missing(rules: Sequence[TraceRule], hits: list[int], backend: Backend) -> tuple[str, ...]:
    if len(hits) >= len(rules):
        return ()
    return (GONE.format(chain=rules[0].hook, backend=backend),)
