"""A namespace's rules as a table for people, with numbers, counters and handles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from ipttrace.decode.text import clean_text
from ipttrace.diagnose.remedy import is_native, program
from ipttrace.netfilter import RuleRef
from ipttrace.render.style import Style, paint
from ipttrace.render.table import GAP, Row, table_lines
from ipttrace.render.words import rule_words, table_name
from ipttrace.ruleset import OWN_TABLE, Chain, Counter, Rule, Ruleset

NAMED_COUNTER = re.compile(r'\bcounter name "')
"""An object that several rules may count in."""


def user_chains(ruleset: Ruleset, table: str | None = None) -> list[Chain]:
    """Return the chains that are not ours, of one table or of all."""
    return [
        chain
        for ref, chain in ruleset.chains.items()
        if table in (None, ref.table) and not ref.table.startswith(OWN_TABLE)
    ]


def rules_lines(chains: Iterable[Chain], *, width: int | None, color: bool) -> list[str]:
    """Return a heading and the rules of every chain, in lines of at most `width` columns."""
    chains = list(chains)
    rules = [rule for chain in chains for rule in chain.user_rules]
    rows = iter(table_lines(_rows(rules), width=width, color=color))
    lines: list[str] = []
    for chain in chains:
        lines.append(_heading(chain, color))
        lines += [next(rows) for _ in chain.user_rules]
    return lines


def _heading(chain: Chain, color: bool) -> str:
    ref = chain.ref
    text = chain.rules[0].text if chain.rules else None
    name = f"{table_name(ref)}/{clean_text(ref.chain)}"
    parts = [paint(f"{program(ref, is_native(ref, text))}  {name}", Style.HEAD, color)]
    if is_native(ref, text) and chain.hook is not None:
        devices = f" of {clean_text(', '.join(chain.devices))}" if chain.devices else ""
        parts.append(f"hook {chain.hook}{devices} priority {chain.priority}")
    if chain.policy is not None:
        parts.append(f"policy {chain.policy}")
    if chain.hook is None:
        parts.append("user chain")
    if chain.counter is not None:
        parts.append(counter_words(chain.counter))
    if not chain.user_rules:
        parts.append("no rules")
    return GAP.join(parts)


def counter_words(counter: Counter, sign: str = "") -> str:
    """Return `3 packets, 180 bytes`, each number after `sign`."""
    packets = count_words(counter.packets, "packet", sign)
    return f"{packets}, {count_words(counter.bytes, 'byte', sign)}"


def count_words(number: int, noun: str, sign: str = "") -> str:
    """Return `1 packet` or `1,234 packets`."""
    return f"{sign}{number:,} {noun}{'' if number == 1 else 's'}"


def _rows(rules: Iterable[Rule]) -> list[Row]:
    cells = [_cells(rule) for rule in rules]
    widths = [max(map(len, column)) for column in zip(*(lead for lead, _, _ in cells), strict=True)]
    return [
        Row(
            tuple(cell.rjust(width) for cell, width in zip(lead, widths, strict=True)),
            text,
            (handle,) if handle else (),
            effect_style=Style.FAINT,
        )
        for lead, text, handle in cells
    ]


def _cells(rule: Rule) -> tuple[tuple[str, ...], str, str]:
    counter = rule.counter
    packets = count_words(counter.packets, "packet") if counter else _uncounted(rule)
    size = count_words(counter.bytes, "byte") if counter else ""
    handle = f"handle {rule.handle}" if rule.handle is not None else ""
    return (f"{rule.number}", packets, size), rule_words(rule.text, rule.chain.chain), handle


def _uncounted(rule: Rule) -> str:
    return "named counter" if NAMED_COUNTER.search(rule.text) else "no counter"


def rise_lines(chains: Iterable[Chain], rises: Mapping[RuleRef, Counter]) -> Iterator[str]:
    """Yield one line for each rule and policy whose counter rose."""
    for chain in chains:
        for rule in chain.user_rules:
            rise = rises.get(rule.ref)
            if rise is not None and rise.packets:
                text = rule_words(rule.text, chain.ref.chain)
                yield _risen(chain, f" {rule.number}", rule.text, rise, text)
        rise = rises.get(RuleRef(chain.ref, None))
        if rise is not None and rise.packets:
            yield _risen(chain, "", None, rise, f"policy {chain.policy}")


def _risen(chain: Chain, number: str, rule: str | None, rise: Counter, text: str) -> str:
    ref = chain.ref
    name = f"{table_name(ref)}/{clean_text(ref.chain)}{number}"
    tool = program(ref, is_native(ref, rule))
    return GAP.join((tool, name, counter_words(rise, "+"), text))
