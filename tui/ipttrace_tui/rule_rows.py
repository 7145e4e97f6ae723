"""The rules of a namespace as the lines of a tree, with counters, rates and what a packet met."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ipttrace.decode.text import clean_text
from ipttrace.diagnose.remedy import is_native, program
from ipttrace.netfilter import FATAL_VERDICTS, ChainRef, Hook, RuleRef, TableFamily
from ipttrace.path import ChainHop, PacketPath
from ipttrace.render.rules_table import user_chains
from ipttrace.render.words import rule_words, table_name
from ipttrace.ruleset import Chain, Counter, Rule, Ruleset, counter_changes


class Level(StrEnum):
    """How deep a line stands in the tree."""

    BACKEND = "backend"
    TABLE = "table"
    CHAIN = "chain"
    RULE = "rule"


Key = tuple[str, ...]
"""Program, table, chain, rule: a line's place in the tree."""


@dataclass(frozen=True, slots=True)
class Met:
    """That the selected packet met a rule or a chain's policy."""

    hop: int
    """Index into the path's hops: the last one there."""
    fatal: bool

    @property
    def words(self) -> str:
        """The mark, with a word."""
        return f"✗ hop {self.hop + 1}" if self.fatal else f"◆ hop {self.hop + 1}"


@dataclass(frozen=True, slots=True)
class RuleRow:
    """One line of the tree."""

    level: Level
    key: Key
    text: str
    number: str = ""
    counter: Counter | None = None
    rate: float | None = None
    """Packets a second since the reading before; None where nothing is counted."""
    met: Met | None = None
    full: str = ""
    """All that is to be said of it, for the line below the tree."""


@dataclass(frozen=True, slots=True)
class Readings:
    """The rules as they were read last, and how fast they count."""

    ruleset: Ruleset = field(default_factory=Ruleset)
    time: float = 0.0
    rates: Mapping[RuleRef, float] = field(default_factory=dict)

    def then(self, ruleset: Ruleset, time: float) -> Readings:
        """Return the readings after another one; `time` is monotonic, in seconds."""
        seconds = time - self.time
        if not self.ruleset.chains or seconds <= 0:
            return Readings(ruleset, time)
        rises = counter_changes(self.ruleset, ruleset)
        rates = {ref: rise.packets / seconds for ref, rise in rises.items()}
        return Readings(ruleset, time, rates)


def met_by(path: PacketPath | None) -> dict[RuleRef, Met]:
    """Return what a packet met: rules by their full name, policies with number None."""
    met: dict[RuleRef, Met] = {}
    for index, hop in enumerate(path.hops if path else ()):
        if isinstance(hop, ChainHop):
            met[_name(hop.ref)] = Met(index, hop.verdict in FATAL_VERDICTS)
    return met


def _name(ref: RuleRef) -> RuleRef:
    """A handle tells a rule only where it has no number."""
    return RuleRef(ref.chain, ref.number, ref.handle if ref.number is None else None)


def key_of(hop: ChainHop, ruleset: Ruleset) -> Key | None:
    """Return the line at which a hop's rule stands, or its chain; None if there is no chain."""
    chain = ruleset.chains.get(hop.chain)
    if chain is None:
        return None
    wanted = _name(hop.ref)
    for rule in chain.user_rules:
        if wanted in (_name(rule.ref), RuleRef(rule.chain, None, rule.handle)):
            return _rule_key(chain, rule)
    return _chain_key(chain)


def rows(readings: Readings, path: PacketPath | None, folded: frozenset[Key]) -> list[RuleRow]:
    """Return the lines of the tree; what is below a `folded` key is left out."""
    met = met_by(path)
    shown: list[RuleRow] = []
    said: set[Key] = set()
    for chain in _in_order(user_chains(readings.ruleset)):
        key = _chain_key(chain)
        for level, part in ((Level.BACKEND, key[:1]), (Level.TABLE, key[:2])):
            if part not in said and not _is_below(part, folded):
                said.add(part)
                shown.append(_group(level, part, chain))
        if _is_below(key, folded):
            continue
        shown.append(_chain_row(chain, readings, met))
        if key not in folded:
            shown += _rule_rows(chain, readings, met)
    return shown


def _in_order(chains: list[Chain]) -> list[Chain]:
    """Return chains as a packet meets them, those of one table together, user chains last.

    A table stands where a packet first meets it; those that only IPv6 meets come last.
    """
    met_at: dict[Key, tuple[int, int]] = {}
    for chain in chains:
        table = _chain_key(chain)[:2]
        met_at[table] = min(met_at.get(table, NEVER_MET), _met_at(chain))

    def order(chain: Chain) -> tuple[str, bool, tuple[int, int], str, int, str, tuple[int, int]]:
        ref, table = chain.ref, _chain_key(chain)[:2]
        place = TABLES.index(ref.table) if ref.table in TABLES else len(TABLES)
        of_ipv6 = ref.table_family is TableFamily.IP6
        first = (_backend(ref), of_ipv6, met_at[table], table[1].split(" ")[0])
        return (*first, place, ref.table, _met_at(chain))

    return sorted(chains, key=order)


HOOKS = tuple(Hook)
NEVER_MET = (len(HOOKS), 0)


def _met_at(chain: Chain) -> tuple[int, int]:
    """Return the place of a chain's hook on a packet's way, and its priority there."""
    if chain.hook is None:
        return NEVER_MET
    return HOOKS.index(chain.hook), chain.priority or 0


def _is_below(key: Key, folded: frozenset[Key]) -> bool:
    return any(key[:length] in folded for length in range(1, len(key)))


def _program(chain: Chain) -> str:
    text = chain.rules[0].text if chain.rules else None
    return program(chain.ref, is_native(chain.ref, text))


def _chain_key(chain: Chain) -> Key:
    table = f"{chain.ref.table_family} {chain.ref.table}"
    return (_backend(chain.ref), table, chain.ref.chain)


def _backend(ref: ChainRef) -> str:
    return str(ref.backend)


def _rule_key(chain: Chain, rule: Rule) -> Key:
    return (*_chain_key(chain), str(rule.number))


TABLES = ("raw", "mangle", "nat", "filter", "security")
"""In the order in which a packet meets them at a hook."""

BACKENDS = {"legacy": "legacy: ip_tables", "nft": "nft: nf_tables"}


def _group(level: Level, key: Key, chain: Chain) -> RuleRow:
    if level is Level.BACKEND:
        return RuleRow(level, key, BACKENDS.get(key[0], key[0]))
    text = clean_text(key[1])
    return RuleRow(level, key, text, full=f"table {text}, of {_program(chain)}")


def _chain_row(chain: Chain, readings: Readings, met: Mapping[RuleRef, Met]) -> RuleRow:
    policy = RuleRef(chain.ref, None)
    words = [clean_text(chain.ref.chain)]
    if chain.policy is not None:
        words.append(f"policy {chain.policy}")
    elif chain.hook is None:
        words.append("user chain")
    about = list(words)
    if chain.hook is not None:
        of = f" of {clean_text(', '.join(chain.devices))}" if chain.devices else ""
        about.append(f"hook {chain.hook}{of}, priority {chain.priority}")
        if chain.ref.chain != chain.hook:
            words.insert(1, f"{chain.hook}{of} {chain.priority:+}")
    if not chain.user_rules:
        words.append("no rules")
    return RuleRow(
        Level.CHAIN,
        _chain_key(chain),
        "  ".join(words),
        counter=chain.counter,
        rate=readings.rates.get(policy),
        met=met.get(policy),
        full=f"{_program(chain)}  {table_name(chain.ref)}/{', '.join(about)}",
    )


def _rule_rows(chain: Chain, readings: Readings, met: Mapping[RuleRef, Met]) -> Iterator[RuleRow]:
    for rule in chain.user_rules:
        text = rule_words(rule.text, chain.ref.chain)
        handle = f"  handle {rule.handle}" if rule.handle is not None else ""
        name = f"{table_name(chain.ref)}/{clean_text(chain.ref.chain)} {rule.number}"
        by_handle = met.get(RuleRef(chain.ref, None, rule.handle)) if rule.handle else None
        yield RuleRow(
            Level.RULE,
            _rule_key(chain, rule),
            text,
            f"{rule.number}",
            rule.counter,
            readings.rates.get(rule.ref),
            met.get(_name(rule.ref)) or by_handle,
            f"{_program(chain)}  {name}{handle}  {text}",
        )


def matching(shown: list[RuleRow], text: str) -> list[int]:
    """Return the lines that hold `text`, capitals or not."""
    wanted = text.casefold()
    return [i for i, row in enumerate(shown) if wanted and wanted in _searched(row).casefold()]


def _searched(row: RuleRow) -> str:
    return " ".join((row.text, *row.key[1:]))


def count_text(number: int) -> str:
    """Return a count in at most 7 columns: `999,999`, then `1.23M`, `4.5G`."""
    if number < 1_000_000:
        return f"{number:,}"
    value = float(number)
    for unit in "MGTPE":
        value /= 1000 if unit != "M" else 1_000_000
        if value < 999.5:
            break
    return f"{value:.3g}{unit}"


def rate_text(rate: float | None) -> str:
    """Return `12/s`; a dot where nothing came, nothing where nothing is counted."""
    if rate is None:
        return ""
    if rate == 0:
        return "·"
    return f"{rate:.1f}/s" if rate < 9.95 else f"{count_text(round(rate))}/s"
