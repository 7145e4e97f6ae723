"""The tables in `nft list ruleset`, one by one, and what of them `nft -f` refuses.

nft writes a table as `table FAMILY NAME {` at the beginning of a line, up to the next line that is
`}` alone; all inside is indented.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from ipttrace.lab.missing import Missing
from ipttrace.ruleset import OWN_TABLE

BEGIN = re.compile(r"table (?P<family>\w+) (?P<name>\S+) \{")
CHAIN = re.compile(r"\tchain (\S+) \{")
RULE = re.compile(r"\t\t(?!\s|type \w+ hook |comment \")")
"""A long set of a rule goes on in lines that are indented deeper."""
PLACE = re.compile(r"/dev/stdin:(\d+):[\d-]+: Error: (.*)")
INCLUDE = re.compile(r"(^|[;{])\s*include\b")
OWNER = re.compile(r"\s*flags .*\bowner\b")
LEFT_OUT = (
    (INCLUDE, "it reads another file"),
    (OWNER, "its owner is not here: the table would be gone at once"),
)
DEVICES = re.compile(r"\bdevices? (?:= )?(\{[^}]*\}|\S+)")
QUOTED = re.compile(r'"([^"]+)"|([\w.-]+)')
ROUNDS = 50

Attempt = Callable[[str], str | None]
"""Gives a text to `nft -f -`; returns its stderr if it refused."""


@dataclass(frozen=True, slots=True)
class NftTable:
    """One table as nft writes it."""

    family: str
    name: str
    number: int
    """The line that begins it, from 1."""
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NftLoadable:
    """What nft takes of a ruleset."""

    text: str
    missing: tuple[Missing, ...]


def split_tables(text: str) -> Iterator[NftTable]:
    """Yield the tables; one that is cut off has no last line `}`."""
    begin: re.Match[str] | None = None
    start, lines = 0, list[str]()
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if begin is None:
            begin = BEGIN.match(line)
            start, lines = number, [line]
        else:
            lines.append(line)
        if begin and line == "}":
            yield NftTable(begin["family"], begin["name"], start, tuple(lines))
            begin = None
    if begin:
        yield NftTable(begin["family"], begin["name"], start, tuple(lines))


def native_tables(text: str, others: Collection[tuple[str, str]]) -> list[NftTable]:
    """Return the tables that are neither iptables-nft's (`others`: family, name) nor ours."""
    return [
        table
        for table in split_tables(text)
        if (table.family, table.name) not in others and not table.name.startswith(OWN_TABLE)
    ]


def count_rules(table: NftTable) -> int:
    """Return how many rules a table has: the lines of its chains that say nothing of the chain."""
    count, inside = 0, False
    for line in table.lines:
        inside = CHAIN.match(line) is not None or (inside and line != "\t}")
        count += inside and RULE.match(line) is not None
    return count


def devices(table: NftTable) -> set[str]:
    """Return the interfaces that must be there when a table is loaded."""
    found = (match[1] for line in table.lines for match in DEVICES.finditer(line))
    names = (match[1] or match[2] for text in found for match in QUOTED.finditer(text))
    return {name for name in names if name != "devices"}


def loadable_nft(tables: list[NftTable], attempt: Attempt, source: str = "nft") -> NftLoadable:
    """Return the text of what nft takes of the tables, and the lines that it refuses."""
    texts: list[str] = []
    missing: list[Missing] = []
    for table in tables:
        text, lacking = _loadable_table(table, attempt, source)
        missing += lacking
        texts += [text] if text else []
    return NftLoadable("".join(texts), tuple(missing))


def _loadable_table(table: NftTable, attempt: Attempt, source: str) -> tuple[str, list[Missing]]:
    lines = list(table.lines)
    missing: list[Missing] = []
    for at, line in enumerate(table.lines):
        for form, reason in LEFT_OUT:
            if form.search(line):
                missing.append(Missing(line.strip(), reason, source, table.number + at))
                lines[at] = ""
    if lines[-1] != "}":
        missing.append(Missing(table.lines[0], "the table is cut off", source, table.number))
        lines = _closed(lines)
    for _ in range(ROUNDS):
        text = "\n".join([*lines, ""])
        errors = attempt(text)
        if errors is None:
            return text, missing
        refused = _refused(errors, lines)
        if not refused:
            reason = " ".join(errors.split())
            return "", [Missing(table.lines[0], reason, source, table.number)]
        for at, reason in refused.items():
            missing.append(Missing(lines[at].strip(), reason, source, table.number + at))
            lines[at] = ""
    return "", [Missing(table.lines[0], "too much of it is refused", source, table.number)]


def _closed(lines: list[str]) -> list[str]:
    """Return a table that was cut off, without its last line, with its braces closed."""
    whole = lines[:-1] if len(lines) > 1 else lines
    depth = sum(line.rstrip().endswith("{") for line in whole)
    depth -= sum(line.strip() == "}" for line in whole)
    return [*whole, *("\t" * level + "}" for level in reversed(range(max(depth, 0))))]


def _refused(errors: str, lines: list[str]) -> dict[int, str]:
    """Return the rules that nft names, by their place; only lines that are whole by themselves."""
    found: dict[int, str] = {}
    for line in errors.splitlines():
        match = PLACE.match(line)
        at = int(match[1]) - 1 if match else -1
        if match and 0 <= at < len(lines) and _stands_alone(lines[at]):
            found[at] = match[2]
    return found


def _stands_alone(line: str) -> bool:
    """Tell whether a line can be left out: a rule, not the beginning or the end of something."""
    text = line.strip()
    braces = text.count("{") == text.count("}")
    return bool(text) and braces and not text.startswith(("type ", "}", "elements", "flags "))
