"""A file of iptables-save as lines that can be loaded one by one, each with its number.

What `iptables-restore` would stop at is kept and named, so that the rest can be loaded: a lost
COMMIT, CRLF, a file that is cut off, lines that are nothing at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from ipttrace.lab.missing import Missing
from ipttrace.netfilter import TABLE_HOOKS, Backend, TableFamily

LONGEST_LINE = 10_000
"""Bytes: iptables-restore reads into a buffer of 10240 (iptables/xshared.h), and takes what is
longer for two lines."""

COUNTED = re.compile(r"\[\d+:\d+\] ?")
DECLARED = re.compile(r":(\S+)\s+(\S+)(?:\s+(\[\d+:\d+\]))?\s*\Z")
COMMANDS = {
    "-A": "-A",
    "--append": "-A",
    "-I": "-I",
    "--insert": "-I",
    "-N": "-N",
    "--new-chain": "-N",
    "-P": "-P",
    "--policy": "-P",
}
IDLE = frozenset({"-F", "--flush", "-X", "--delete-chain", "-Z", "--zero"})
"""They do nothing to tables that are empty."""
OTHER_FAMILY = re.compile(r"(?:-p|--protocol) (?:ipv6-icmp|icmpv6|icmp6)|--reject-with icmp6-")
ADDRESS_6 = re.compile(
    r"(?:-s|-d|--to-source|--to-destination) (?:! )?\[?[0-9a-fA-F]{0,4}:[0-9a-fA-F:]"
)

MODPROBE_SHORT = re.compile(r"-[0-9A-Za-z]?M|-[46hnvVx]+M")

Kind = Literal["chain", "rule"]


@dataclass(frozen=True, slots=True)
class Line:
    """A chain that is declared, or a rule."""

    number: int
    """In its file, from 1."""
    kind: Kind
    text: str
    """As the file has it, without its end."""
    chain: str
    body: str
    """Of a chain its policy, `-` if it is the user's; of a rule what follows its chain."""
    counter: str = ""
    """`[packets:bytes]`, or nothing."""

    @property
    def written(self) -> str:
        """The line as iptables-restore takes it."""
        if self.kind == "chain":
            return f":{self.chain} {self.body} {self.counter or '[0:0]'}"
        counter = f"{self.counter} " if self.counter else ""
        return f"{counter}-A {self.chain} {self.body}".rstrip()


@dataclass(frozen=True, slots=True)
class SaveTable:
    """One table of a file."""

    name: str
    number: int
    """The line that begins it."""
    chains: tuple[Line, ...]
    rules: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class SaveFile:
    """A file of iptables-save, or what a snapshot holds of one."""

    source: str
    """What its lines are called by."""
    family: TableFamily
    tables: tuple[SaveTable, ...]
    missing: tuple[Missing, ...] = ()
    notes: tuple[str, ...] = ()
    backend: Backend | None = None
    """Where the file says that it comes from."""

    @property
    def rules(self) -> Iterator[tuple[str, Line]]:
        """Yield every rule with its table."""
        for table in self.tables:
            for rule in table.rules:
                yield table.name, rule


@dataclass(slots=True)
class _Open:
    """A table that is still being read."""

    name: str
    number: int
    chains: dict[str, Line] = field(default_factory=dict)
    rules: list[Line] = field(default_factory=list)

    def close(self) -> SaveTable:
        return SaveTable(self.name, self.number, tuple(self.chains.values()), tuple(self.rules))


@dataclass(slots=True)
class _Reader:
    source: str
    tables: list[SaveTable] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    open: _Open | None = None
    backend: Backend | None = None

    def refuse(self, number: int, text: str, reason: str) -> None:
        self.missing.append(Missing(text, reason, self.source, number))

    def close(self, *, committed: bool) -> None:
        if self.open is None:
            return
        if not committed:
            self.notes.append(
                f"{self.source} line {self.open.number}: table {self.open.name} has no COMMIT: "
                "loaded all the same"
            )
        self._drop_earlier(self.open)
        self.tables.append(self.open.close())
        self.open = None

    def _drop_earlier(self, again: _Open) -> None:
        """Take the last of two tables of a name, as iptables-restore does: each clears first."""
        for table in [each for each in self.tables if each.name == again.name]:
            self.tables.remove(table)
            self.notes.append(
                f"{self.source} line {table.number}: table {table.name} comes again on line "
                f"{again.number}, which replaces it"
            )


def parse_save_file(text: str, source: str, family: TableFamily | None = None) -> SaveFile:
    """Return what can be loaded of `text`, and what cannot; `family` None is guessed."""
    reader = _Reader(source)
    lines = text.removeprefix("\ufeff").split("\n")
    if any(line.endswith("\r") for line in lines):
        reader.notes.append(f"{source}: its lines end in CRLF: read all the same")
    for number, line in enumerate(lines, 1):
        _read_line(reader, number, line.rstrip("\r"))
    reader.close(committed=False)
    return SaveFile(
        source,
        family or family_of_text(text),
        tuple(reader.tables),
        tuple(reader.missing),
        tuple(reader.notes),
        reader.backend,
    )


def family_of_text(text: str) -> TableFamily:
    """Return whether rules are of IPv4 or IPv6, as their header or their words say."""
    if "ip6tables" in text[:200]:
        return TableFamily.IP6
    rules = "\n".join(line for line in text.split("\n") if "-A " in line or "-I " in line)
    if OTHER_FAMILY.search(rules) or ADDRESS_6.search(rules):
        return TableFamily.IP6
    return TableFamily.IP


def looks_like_save_file(text: str) -> bool:
    """Return whether `text` has a table, or lists rules as `iptables -S` does."""
    lines = [line.strip() for line in text.removeprefix("\ufeff").split("\n")]
    if any(re.match(r"\*[a-z]+\Z", line) for line in lines):
        return True
    return any(re.match(r"-P (INPUT|FORWARD|OUTPUT) (ACCEPT|DROP)\Z", line) for line in lines)


def _read_line(reader: _Reader, number: int, line: str) -> None:
    stripped = line.strip()
    if not stripped or stripped.startswith("#"):
        _note_header(reader, stripped)
    elif problem := _unreadable(line):
        reader.refuse(number, line, problem)
    elif stripped.startswith("*"):
        reader.close(committed=False)
        reader.open = _Open(stripped[1:].strip(), number)
    elif stripped == "COMMIT":
        if reader.open is None:
            reader.refuse(number, line, "COMMIT without a table before it")
        reader.close(committed=True)
    elif stripped.startswith(":"):
        _declare(reader, number, stripped)
    else:
        _command(reader, number, stripped)


def _unreadable(line: str) -> str | None:
    if "\0" in line:
        return "it holds a NUL byte"
    if len(line.encode(errors="surrogateescape")) > LONGEST_LINE:
        return f"it is longer than the {LONGEST_LINE:,} bytes that iptables-restore reads"
    return None


def _note_header(reader: _Reader, comment: str) -> None:
    """`# Generated by iptables-save v1.8.9 (nf_tables) on ...`; `(legacy)` is left out by some."""
    if not comment.startswith("# Generated by ip"):
        return
    if "nf_tables" in comment or "-nft-" in comment or "xtables-save" in comment:
        reader.backend = Backend.NFT
    else:
        reader.backend = Backend.LEGACY


def _declare(reader: _Reader, number: int, line: str) -> None:
    match = DECLARED.match(line)
    if match is None:
        reader.refuse(number, line, "it declares no chain as `:NAME POLICY [packets:bytes]` does")
        return
    table = _table(reader, number)
    name, policy, counter = match[1], match[2], match[3] or ""
    table.chains[name] = Line(number, "chain", line, name, policy, counter)


def _command(reader: _Reader, number: int, line: str) -> None:
    counted = COUNTED.match(line)
    counter = counted[0].strip() if counted else ""
    words = (line[counted.end() :] if counted else line).split(None, 2)
    command = COMMANDS.get(words[0])
    if words[0] in IDLE:
        reader.notes.append(f"{reader.source} line {number}: {line}: there is nothing to clear")
    elif command is None or len(words) < 2:
        reader.refuse(number, line, "it is no line of iptables-save")
    elif reader.open is None and _outside(reader, number, line, command):
        return
    else:
        _take(reader, Line(number, "rule", line, words[1], "".join(words[2:]), counter), command)


def _outside(reader: _Reader, number: int, line: str, command: str) -> bool:
    """Refuse a rule between two tables; the first one begins the list of `iptables -S`."""
    if command in ("-P", "-N") and not reader.tables:
        return False
    reader.refuse(number, line, "it stands in no table")
    return True


def _take(reader: _Reader, line: Line, command: str) -> None:
    table = _table(reader, line.number)
    if command == "-P":
        table.chains[line.chain] = Line(line.number, "chain", line.text, line.chain, line.body)
    elif command == "-N":
        table.chains[line.chain] = Line(line.number, "chain", line.text, line.chain, "-")
    elif line.chain not in table.chains and not _built_in(table.name, line.chain):
        reason = f"chain {line.chain} is not declared in table {table.name}"
        reader.refuse(line.number, line.text, reason)
    elif command == "-A":
        table.rules.append(line)
    else:
        _insert(table, line)


def _insert(table: _Open, line: Line) -> None:
    """Put a rule of `-I CHAIN [NUMBER]` where iptables would."""
    head, _, rest = line.body.partition(" ")
    place, body = (int(head), rest) if head.isdecimal() else (1, line.body)
    inserted = Line(line.number, "rule", line.text, line.chain, body, line.counter)
    same = [at for at, rule in enumerate(table.rules) if rule.chain == line.chain]
    at = same[place - 1] if 1 <= place <= len(same) else len(table.rules)
    table.rules.insert(at, inserted)


def _table(reader: _Reader, number: int) -> _Open:
    if reader.open is None:
        reader.open = _Open("filter", number)
        reader.notes.append(
            f"{reader.source} line {number}: no table is named: taken as the filter table"
        )
    return reader.open


def _built_in(table: str, chain: str) -> bool:
    return any(hook.value == chain for hook in TABLE_HOOKS.get(table, ()))


def names_program(word: str) -> bool:
    """Return whether a word is iptables' --modprobe (-M): its value is a program to run."""
    name = word.partition("=")[0]
    long = name.startswith("--mo") and "--modprobe".startswith(name)
    return long or MODPROBE_SHORT.match(word) is not None
