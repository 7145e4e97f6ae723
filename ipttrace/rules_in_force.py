"""The rules that trace reports are looked up in, while somebody may change them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from ipttrace.ends import Ends
from ipttrace.netfilter import Backend, ChainRef, TableFamily, Verdict
from ipttrace.report import Locator
from ipttrace.ruleset import OWN_TABLE, Chain, Ruleset
from ipttrace.targets import copies

Table = tuple[Backend, TableFamily, str]


class RulesInForce:
    """The newest rules, and for a while those before: reports wait in the queue."""

    def __init__(self, ruleset: Ruleset, created: frozenset[ChainRef]) -> None:
        """`created` are the base chains that exist only because of us."""
        self.created = created
        self._changing: frozenset[Table] = frozenset()
        self._take(ruleset, None)

    def _take(self, ruleset: Ruleset, earlier: Ruleset | None) -> None:
        self.newest = ruleset
        self.locator = Locator(ruleset, self.created, earlier=earlier)
        self.ends = Ends(ruleset)
        self.copying = any(copies(rule.target, rule.text) for rule in ruleset.rules())
        """Whether some rule makes a copy of a packet while it is in its chain."""

    def change(self, ruleset: Ruleset, *, changed: bool) -> None:
        """Take new rules; they differ from those before in rules of the user's if `changed`."""
        earlier = self.newest
        self._take(ruleset, earlier)
        self._changing = changed_tables(earlier, ruleset) if changed else frozenset()

    @property
    def changing(self) -> bool:
        """Whether reports may be about rules before a change that the user made."""
        return bool(self._changing)

    def may_be_of_either(self, chain: ChainRef) -> bool:
        """Tell whether a report of this chain may be: each table that a packet meets reports."""
        return (chain.backend, chain.table_family, chain.table) in self._changing

    def settle(self) -> None:
        """Forget the rules before."""
        self.locator = Locator(self.newest, self.created)
        self._changing = frozenset()


def changed_tables(one: Ruleset, other: Ruleset) -> frozenset[Table]:
    """Return the tables whose rules are not the same in both, ours and counters aside."""
    before, after = _told(one), _told(other)
    names = before.keys() | after.keys()
    return frozenset(name for name in names if before.get(name) != after.get(name))


def _told(ruleset: Ruleset) -> Mapping[Table, list[object]]:
    """Return what makes the chains of each table that can do anything."""
    told: defaultdict[Table, list[object]] = defaultdict(list)
    for ref, chain in sorted(ruleset.chains.items(), key=lambda pair: str(pair[0])):
        if not ref.table.startswith(OWN_TABLE) and not _is_silent(chain):
            rules = tuple((rule.text, rule.elements) for rule in chain.user_rules)
            what = (ref, chain.hook, chain.priority, chain.policy, chain.devices, rules)
            told[ref.backend, ref.table_family, ref.table].append(what)
    return told


def _is_silent(chain: Chain) -> bool:
    """Tell whether a base chain lets everything pass: another session may have made it."""
    return not chain.user_rules and chain.policy is not Verdict.DROP
