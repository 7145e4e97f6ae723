"""Which rules the packets of probes matched, over several readings of rules that may change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ipttrace.checks import Coverage
from ipttrace.event import TraceKind
from ipttrace.lab.building import RunningLab, TopologyBuilder
from ipttrace.lab.lab_probe import Change
from ipttrace.lab.topology import Topology
from ipttrace.netfilter import ChainRef
from ipttrace.path import ChainHop
from ipttrace.render.words import rule_words
from ipttrace.result import TraceResult
from ipttrace.ruleset import OWN_TABLE, Rule, Ruleset

RuleKey = tuple[ChainRef, str, int]
"""A rule whatever its number: its chain, its text, and which one of equal text it is there."""

ReadRules = Callable[[str | None], Ruleset]
"""Reads the rules of a namespace by its real name; None is the one that the tool runs in."""


class RulesMet:
    """Collects over all runs of one target on one backend."""

    def __init__(self) -> None:
        self._known: dict[str | None, dict[RuleKey, Rule]] = {}
        self._now: dict[str | None, Mapping[tuple[ChainRef, int], RuleKey]] = {}
        self._met: set[tuple[str | None, RuleKey]] = set()

    def read(self, netns: str | None, ruleset: Ruleset) -> None:
        """Note the rules as they are from now on; a rule that goes stays noted."""
        now: dict[tuple[ChainRef, int], RuleKey] = {}
        known = self._known.setdefault(netns, {})
        for key, rule in _keyed(ruleset):
            known[key] = rule
            now[rule.chain, rule.number or 0] = key
        self._now[netns] = now

    def saw(self, result: TraceResult) -> None:
        """Note what the packets of a run matched; answers and others count as well."""
        for path in result.paths:
            for hop in path.chain_hops:
                if hop.event is TraceKind.RULE:
                    self._note(path.netns, hop)

    def _note(self, netns: str | None, hop: ChainHop) -> None:
        key = self._now.get(netns, {}).get((hop.chain, hop.number or 0))
        if key is not None:
            self._met.add((netns, key))

    def coverage(self, target: str, backend: str) -> list[Coverage]:
        """Return for each namespace with rules how many there are, and which were not met."""
        found = []
        for netns, known in self._known.items():
            unmet = [rule for key, rule in known.items() if (netns, key) not in self._met]
            if known:
                in_order = tuple(_by_table(known.values(), unmet))
                found.append(Coverage(target, backend, netns, len(known), in_order))
        return found


def _by_table(known: Iterable[Rule], rules: Iterable[Rule]) -> list[Rule]:
    """Return the rules by table and chain, as these come in `known`, and by number."""
    chains: dict[ChainRef, int] = {}
    tables: dict[tuple[str, str, str], int] = {}
    for rule in known:
        chains.setdefault(rule.chain, len(chains))
        tables.setdefault(_table(rule.chain), len(tables))
    return sorted(
        rules,
        key=lambda rule: (tables[_table(rule.chain)], chains[rule.chain], rule.number or 0),
    )


def _table(chain: ChainRef) -> tuple[str, str, str]:
    return (chain.backend, chain.table_family, chain.table)


def _keyed(ruleset: Ruleset) -> Iterator[tuple[RuleKey, Rule]]:
    """Yield the user's rules, each with its key."""
    for ref, chain in ruleset.chains.items():
        if ref.table.startswith(OWN_TABLE):
            continue
        seen: Counter[str] = Counter()
        for rule in chain.user_rules:
            text = rule_words(rule.text, ref.chain)
            seen[text] += 1
            yield (ref, text, seen[text]), rule


class CoveredLab:
    """A running lab whose rules are read when it is up, and after each change."""

    def __init__(self, lab: RunningLab, read: ReadRules, met: RulesMet) -> None:
        self._lab = lab
        self._read = read
        self._met = met
        for name in lab.namespaces:
            self._note(name)

    def _note(self, name: str) -> None:
        self._met.read(name, self._read(self._lab.namespaces[name]))

    @property
    def namespaces(self) -> Mapping[str, str]:
        """The real name of each namespace of the lab, by its name in the lab."""
        return self._lab.namespaces

    def change(self, change: Change, *path: str | int) -> None:
        """Make something different in one namespace, and read its rules anew."""
        self._lab.change(change, *path)
        self._note(change.namespace)

    def refused(self, namespace: str, words: Sequence[str]) -> str | None:
        """Run a program's command in a namespace; return its complaint, None if it is accepted."""
        return self._lab.refused(namespace, words)

    def keep(self) -> None:
        """Let the lab stay up when this process ends."""
        self._lab.keep()

    def down(self) -> Sequence[str]:
        """Take everything back; return warnings."""
        return self._lab.down()


class CoveredBuilder:
    """Builds labs whose rules are noted."""

    def __init__(self, builder: TopologyBuilder, read: ReadRules, met: RulesMet) -> None:
        self._builder = builder
        self._read = read
        self._met = met

    def up(self, topology: Topology, backend: str) -> CoveredLab:
        """Build it; if its rules cannot be read, it comes down again."""
        lab = self._builder.up(topology, backend)
        try:
            return CoveredLab(lab, self._read, self._met)
        except BaseException:
            lab.down()
            raise
