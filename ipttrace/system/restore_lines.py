"""The text that iptables-restore reads: made from calls of iptables, and taken apart again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SHORT = ("-A", "-C", "-D", "-E", "-F", "-I", "-N", "-P", "-R", "-X", "-Z")
LONG = ("append", "check", "delete", "rename-chain", "flush", "insert", "new-chain", "policy")
COMMANDS = frozenset(
    (*SHORT, *(f"--{word}" for word in (*LONG, "replace", "delete-chain", "zero")))
)
"""With these a line of iptables-restore does what iptables does."""
PLAIN = re.compile(r"[A-Za-z0-9_./:,=@%+^!\[\]-]+\Z")
LONGEST_WORD, LONGEST_LINE = 1000, 8000
"""A parameter has 1,024 bytes, a line 10,240 (add_param_to_argv, iptables-restore.c)."""
DEFAULT_TABLE = "filter"
COUNTERS = re.compile(r"\[\d+:\d+\]\s*")


@dataclass(frozen=True, slots=True)
class WholeText:
    """Several calls in one text."""

    text: str
    items: Mapping[int, int]
    """Line, from 1, to the call's place in the list."""


@dataclass(frozen=True, slots=True)
class Section:
    """One table in a text; rows count from 1."""

    table: str
    lines: Sequence[str]
    """Of the whole text."""
    first: int
    """The row of `*table`."""
    commit: int
    """The row of COMMIT."""

    @property
    def rows(self) -> list[int]:
        """The rows that hold rules."""
        inside = range(self.first + 1, self.commit)
        return [row for row in inside if self.lines[row - 1].lstrip().startswith(("-", "["))]

    def text(self, rows: Sequence[int]) -> str:
        """Return a transaction of some rules, with the chains of all."""
        inside = range(self.first + 1, self.commit)
        heads = [self.lines[row - 1] for row in inside if self.lines[row - 1].startswith(":")]
        rules = [self.lines[row - 1] for row in rows]
        return "\n".join([f"*{self.table}", *heads, *rules, "COMMIT", ""])

    def rule_in(self, row: int) -> tuple[str, ...] | None:
        """Return the arguments of the rule in a row; None if it holds none."""
        if row not in self.rows:
            return None
        try:
            return tuple(shlex.split(COUNTERS.sub("", self.lines[row - 1], count=1)))
        except ValueError:
            return None


def section_around(text: str, row: int) -> Section | None:
    """Return the table that a row is in; None if it is in none that is whole."""
    lines = text.splitlines()
    if not 1 <= row <= len(lines):
        return None
    first = next((n for n in range(row, 0, -1) if lines[n - 1].startswith("*")), None)
    commit = next((n for n in range(row, len(lines) + 1) if lines[n - 1].strip() == "COMMIT"), None)
    if first is None or commit is None:
        return None
    return Section(lines[first - 1][1:].strip(), lines, first, commit)


def in_one_text(calls: Sequence[Sequence[str]]) -> WholeText | None:
    """Return what does the same as several calls of iptables; None if no text can.

    Tables do not see each other, so each gets its calls in their order.
    """
    tables: dict[str, list[tuple[int, str]]] = {}
    for number, words in enumerate(calls):
        table, rest = split_table(words)
        line = " ".join(quoted(word) for word in rest)
        fits = all(0 < len(word.encode()) <= LONGEST_WORD for word in rest)
        if not rest or rest[0] not in COMMANDS or not fits or len(line.encode()) > LONGEST_LINE:
            return None
        tables.setdefault(table, []).append((number, line))
    lines: list[str] = []
    items: dict[int, int] = {}
    for table, its_lines in tables.items():
        lines.append(f"*{table}")
        for number, line in its_lines:
            lines.append(line)
            items[len(lines)] = number
        lines.append("COMMIT")
    return WholeText("".join(f"{line}\n" for line in lines), items)


def split_table(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the table that arguments of iptables name, and the other arguments."""
    table, rest = DEFAULT_TABLE, []
    pending = iter(words)
    for word in pending:
        if word in ("-t", "--table"):
            table = next(pending, "")
        elif word.startswith("--table="):
            table = word.removeprefix("--table=")
        else:
            rest.append(word)
    return table, rest


def quoted(word: str) -> str:
    """Return a word as iptables-restore reads it."""
    if PLAIN.match(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
