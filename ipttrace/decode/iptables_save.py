r"""The output of `iptables-save -c` and `ip6tables-save -c`, of both backends.

A chain is declared as `:NAME POLICY [packets:bytes]`, a rule is `[packets:bytes] -A NAME ...`.
Words with anything but letters, digits, `-` and `_` are in double quotes, where `\` makes the next
character plain and a line break is one (xtables_save_string in libxtables/xtables.c).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ipttrace.netfilter import (
    TABLE_HOOKS,
    Backend,
    ChainRef,
    Hook,
    TableFamily,
    Verdict,
    builtin_priority,
)
from ipttrace.ruleset import TAG, Chain, Counter, Rule, Ruleset

VALUE_OPTIONS = frozenset(
    {
        "-i",
        "-o",
        "--bytecode",
        "--comment",
        "--genre",
        "--hashlimit-name",
        "--helper",
        "--hex-string",
        "--label",
        "--match-set",
        "--name",
        "--object-pinned",
        "--path",
        "--physdev-in",
        "--physdev-out",
        "--rateest",
        "--rateest1",
        "--rateest2",
        "--string",
        "--u32",
    }
)
"""Options whose value is the user's own word, so that it could look like `-j`."""

TARGET_OPTIONS = ("-j", "-g")

_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|[^ ]+', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_COUNTED = re.compile(r"\[([0-9]{1,20}):([0-9]{1,20})\]\Z")

ZERO = Counter(0, 0)


@dataclass(slots=True)
class _OpenChain:
    """A chain whose rules are still being read."""

    ref: ChainRef
    policy: Verdict | None
    counter: Counter | None
    rules: list[Rule] = field(default_factory=list)
    own: int = 0

    def close(self) -> Chain:
        hook = _builtin_hook(self.ref) if self.policy else None
        priority = builtin_priority(self.ref.table, hook) if hook else None
        return Chain(self.ref, tuple(self.rules), hook, priority, self.policy, self.counter)


def decode_iptables_save(text: str, backend: Backend, family: TableFamily) -> Ruleset:
    """Return the tables in `text`; lines that are neither table, chain nor rule are passed over."""
    chains: dict[ChainRef, Chain] = {}
    table: str | None = None
    open_chains: dict[str, _OpenChain] = {}
    for line in _lines(text):
        first = line[:1]
        if first in ("[", "-") and table is not None:
            _add_rule(line, open_chains)
        elif first == ":" and table is not None:
            _declare(line, ChainRef(backend, family, table, ""), open_chains)
        elif first == "*" or line == "COMMIT":
            chains.update((chain.ref, chain.close()) for chain in open_chains.values())
            table, open_chains = (line[1:] if first == "*" else None), {}
    chains.update((chain.ref, chain.close()) for chain in open_chains.values())
    return Ruleset(chains)


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of `text`; a line break inside quotes ends none."""
    parts: list[str] = []
    quotes = 0
    for line in text.split("\n"):
        if not parts and ('"' not in line or line[0] not in "[-"):
            yield line
            continue
        parts.append(line)
        quotes += _ESCAPED.sub("", line).count('"')
        if quotes % 2 == 0:
            yield "\n".join(parts)
            parts, quotes = [], 0
    if parts:
        yield "\n".join(parts)


def split_words(text: str) -> list[str]:
    """Return the words of a rule as iptables-save wrote them, without quotes and escapes."""
    return [_plain(word) for word in _WORD.findall(text)]


def _plain(word: str) -> str:
    return _ESCAPED.sub(r"\1", word[1:-1]) if word[0] == '"' and word[-1] == '"' else word


def _builtin_hook(ref: ChainRef) -> Hook | None:
    return next((hook for hook in TABLE_HOOKS.get(ref.table, ()) if hook == ref.chain), None)


def _declare(line: str, table: ChainRef, chains: dict[str, _OpenChain]) -> None:
    name, _, rest = line[1:].rpartition(" ")
    counter = _counter(rest)
    if counter is None:
        name, rest = line[1:], ""
    name, _, policy = name.rpartition(" ")
    if not name:
        return
    ref = ChainRef(table.backend, table.table_family, table.table, name)
    if policy == "-":
        chains[name] = _OpenChain(ref, None, None)
    elif policy in (Verdict.ACCEPT, Verdict.DROP):
        chains[name] = _OpenChain(ref, Verdict(policy), counter)


def _counter(text: str) -> Counter | None:
    if text == "[0:0]":
        return ZERO
    match = _COUNTED.match(text)
    return Counter(int(match[1]), int(match[2])) if match else None


def _add_rule(line: str, chains: dict[str, _OpenChain]) -> None:
    counter = None
    if line[0] == "[":
        counted, _, line = line.partition(" ")
        counter = _counter(counted)
    chain = _chain_of(line, chains)
    if chain is None:
        return
    criteria = line[3 + len(chain.ref.chain) :]
    own = TAG in criteria and _is_own(criteria)
    target, goto = _target(criteria)
    chain.own += own
    position = len(chain.rules) + 1
    number = None if own else position - chain.own
    chain.rules.append(Rule(chain.ref, position, number, line, target, goto, counter))


def _chain_of(line: str, chains: dict[str, _OpenChain]) -> _OpenChain | None:
    """Return the chain of `-A CHAIN ...`: old tools let names have spaces, so the longest wins."""
    if line[:3] != "-A ":
        return None
    names = [name for name in _prefixes(line[3:]) if name in chains]
    return chains[names[-1]] if names else None


def _prefixes(text: str) -> Iterator[str]:
    at = text.find(" ")
    while at >= 0:
        yield text[:at]
        # No rule's criteria begin with a word that is not an option.
        at = -1 if text[at + 1 : at + 2] in ("-", "!") else text.find(" ", at + 1)
    yield text


def _target(criteria: str) -> tuple[str | None, bool]:
    """Return the word after the rule's own -j or -g, and whether it was -g."""
    if '"' not in criteria and " -g " not in criteria and criteria.count(" -j ") == 1:
        before, _, after = criteria.partition(" -j ")
        if before[before.rfind(" ") + 1 :] not in VALUE_OPTIONS:
            return after.partition(" ")[0], False
    words = iter(_WORD.findall(criteria))
    for word in words:
        if word in VALUE_OPTIONS:
            next(words, None)
        elif word in TARGET_OPTIONS:
            return next(words, None), word == "-g"
    return None, False


def _is_own(criteria: str) -> bool:
    words = iter(split_words(criteria))
    for word in words:
        if word == "--comment":
            return next(words, "").startswith(TAG)
        if word in VALUE_OPTIONS:
            next(words, None)
        elif word in TARGET_OPTIONS:
            return False
    return False
