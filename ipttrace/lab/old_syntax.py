"""Words that iptables took before 1.4.3 or so, in today's form."""

from __future__ import annotations

import re

WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\S+')
RENAMED_MATCHES = {"mport": "multiport", "icmpv6": "icmp6"}
"""`mport` took what multiport takes since 1.2.9."""
NO_OPTION_FOLLOWS = frozenset({"--comment", "--log-prefix", "--nflog-prefix", "--string"})
"""Their values are free text: a `!` there is no negation."""


def translate(body: str) -> str | None:
    """Return the rule in today's syntax, or None if it is that already.

    `-d ! x` is `! -d x` since 1.4.3, and a set is named by --match-set since 1.4.4.
    """
    if " ! " not in body and "--set " not in body and not _names_renamed(body):
        return None
    words = WORD.findall(body)
    changed = _renamed(_negated(words))
    return None if changed == words else " ".join(changed)


def _names_renamed(body: str) -> bool:
    return any(f"-m {name} " in body for name in RENAMED_MATCHES)


def _negated(words: list[str]) -> list[str]:
    """Move a `!` that stands between an option and its value to the front of the option."""
    moved = list(words)
    for at in range(len(moved) - 2):
        option, negation, value = moved[at : at + 3]
        if negation == "!" and _is_option(option) and not _is_option(value):
            moved[at : at + 2] = [negation, option]
    return moved


def _is_option(word: str) -> bool:
    return word.startswith("-") and word not in NO_OPTION_FOLLOWS and len(word) > 1


def _renamed(words: list[str]) -> list[str]:
    """Give matches and options their names of today."""
    changed = list(words)
    match = ""
    for at, word in enumerate(changed[:-1]):
        if word in ("-m", "--match"):
            match = RENAMED_MATCHES.get(changed[at + 1], changed[at + 1])
            changed[at + 1] = match
        elif word == "--set" and match == "set":
            changed[at] = "--match-set"
    return changed
