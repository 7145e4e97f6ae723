"""What iptables-restore says of a text that it refuses, as values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

PROGRAM = re.compile(r"\S+-restore v\S+ \((?:legacy|nf_tables)\): ?")
AT_LINE = re.compile(r"Error occurred at line: (\d+)")
LINE_FAILED = re.compile(r"\S+-restore: line (\d+) failed(?:: (.*?)\.?)?\Z")
POLICY_LINE = re.compile(r"(.*) line (\d+): (.*)\Z")
IN_BATCH = re.compile(r"line (\d+): (\w+) failed \((.*?)\)")
IN_BATCH_REASON = re.compile(r"line \d+: \w+ failed \((.*?)\): .*")
EXTENSION = re.compile(
    r"Warning: Extension (\S+) revision \d+ not supported, missing kernel module\?"
)
LOOP = "Too many links"
"""Said of any rule of a table whose chains jump in a circle."""
SAID_IN_ANY_CASE = ("Try `", "Error occurred at line", "Warning: Extension")

NAMED = (
    ("match", re.compile(r"Couldn't load match `(.+?)'")),
    ("target", re.compile(r"Couldn't load target `(.+?)'")),
    ("target", re.compile(r"Chain '(.+?)' does not exist")),
    ("set", re.compile(r"Set (\S+) doesn't exist")),
)
"""Complaints that hold for every rule that names the same thing."""

Key = tuple[str, str]
"""`match`, `target` or `set`, and its name."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """Why a text was refused."""

    lines: Mapping[int, str] = field(default_factory=dict)
    """Of the text that was given, from 1, with the reason.  ip_tables names the COMMIT alone."""
    keys: Mapping[Key, str] = field(default_factory=dict)
    """What no rule can have here."""
    text: str = ""
    """All of it in one line."""
    reading: bool = False
    """The text was not read to its end: what follows may hold more."""


def read_complaint(errors: str) -> Complaint:
    """Return what the stderr of iptables-restore says."""
    said = [PROGRAM.sub("", line.strip()).strip() for line in errors.splitlines()]
    said = [line for line in said if line]
    reason = "; ".join(
        IN_BATCH_REASON.sub(r"the kernel refuses it: \1", line)
        for line in said
        if not line.startswith(SAID_IN_ANY_CASE)
    )
    lines: dict[int, str] = {}
    keys: dict[Key, str] = {}
    for line in said:
        if match := AT_LINE.match(line):
            lines[int(match[1])] = reason or line
        elif match := IN_BATCH.match(line):
            if match[3] != LOOP:
                lines[int(match[1])] = f"the kernel refuses it: {match[3]}"
        elif match := LINE_FAILED.match(line):
            lines[int(match[1])] = match[2] or "the kernel refuses it"
        elif match := EXTENSION.match(line):
            keys |= _extension(match[1])
        elif match := POLICY_LINE.match(line):
            lines[int(match[2])] = f"{match[1]}: {match[3]}"
    keys |= _named(reason)
    return Complaint(lines, keys, reason, any(AT_LINE.match(line) for line in said))


def _extension(name: str) -> dict[Key, str]:
    reason = f"the kernel has no extension {name}"
    return {("match", name): reason, ("target", name): reason}


def _named(reason: str) -> dict[Key, str]:
    return {(kind, match[1]): reason for kind, form in NAMED if (match := form.search(reason))}
