"""The rules of a namespace in a lab file: what is loaded with which program."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from ipttrace.lab.parts import (
    BadFieldError,
    FieldPath,
    LabBackend,
    Part,
    check,
    check_printable,
    words_of,
)
from ipttrace.netfilter import Backend

Rules = str | tuple[str, ...]
"""Text for iptables-restore, or the arguments of one iptables call an item."""
Program = Literal["iptables", "ip6tables"]

INCLUDE = re.compile(r"(^|[;{])\s*include\b", re.MULTILINE)
MODPROBE_SHORT = re.compile(r"-[0-9A-Za-z]?M|-[46hnvVx]+M")


class RulesFile(Part, frozen=True):
    """Save files beside the lab file, or below its folder."""

    iptables: str | None = None
    ip6tables: str | None = None
    nftables: str | None = None

    def __post_init__(self) -> None:
        if not (self.iptables or self.ip6tables or self.nftables):
            raise BadFieldError("it names no file: give `iptables`, `ip6tables` or `nftables`")
        for field in ("iptables", "ip6tables", "nftables"):
            check_file_name(getattr(self, field), field)


@dataclass(frozen=True, slots=True)
class RuleSource:
    """Rules of one field, for one program of one backend."""

    program: Literal["iptables", "ip6tables", "nft"]
    backend: Backend | None
    """None for nft."""
    path: FieldPath
    """The field, from the namespace."""
    rules: Rules | None
    file: str | None = None
    """The name of a file that holds the text, as the lab file gives it."""


class RuleFields(Part, frozen=True, kw_only=True):
    """The fields that hold rules: those of a namespace, and those of a change before a probe."""

    iptables: Rules = ()
    """In the run's backend, or in both."""
    ip6tables: Rules = ()
    iptables_legacy: Rules = ()
    iptables_nft: Rules = ()
    ip6tables_legacy: Rules = ()
    ip6tables_nft: Rules = ()
    nftables: str = ""
    """Native text for `nft -f -`."""
    nftables_first: bool = False
    """It is loaded before the others, not behind them."""

    def check_rules(self) -> None:
        """Refuse what would run a program or read a file that is not ours to read."""
        for name in RULE_FIELDS:
            rules = getattr(self, name)
            field = name.replace("_", "-")
            if isinstance(rules, str):
                check_restore_text(rules, field)
                continue
            for place, line in enumerate(rules):
                check_printable(line, field, place)
                check(line, words_of, field, place)
                check_words(words_of(line), field, place)
        check_nft_text(self.nftables, "nftables")

    def rule_sources(self, backend: LabBackend) -> Iterator[RuleSource]:
        """Yield what is to be loaded in a run on `backend`, in its order.

        Of chains at one hook and priority the kernel asks the one first that was made last.
        """
        native = RuleSource("nft", None, ("nftables",), self.nftables)
        if self.nftables.strip() and self.nftables_first:
            yield native
        for program in PROGRAMS:
            rules = getattr(self, program)
            if rules:
                for each in backend.backends:
                    yield RuleSource(program, each, (program,), rules)
            for each in Backend:
                own = getattr(self, f"{program}_{each}")
                if own:
                    yield RuleSource(program, each, (f"{program}-{each}",), own)
        if self.nftables.strip() and not self.nftables_first:
            yield native


PROGRAMS: tuple[Program, ...] = ("iptables", "ip6tables")
RULE_FIELDS = (
    *PROGRAMS,
    *(f"{program}_{backend}" for program in PROGRAMS for backend in Backend),
)


def file_sources(file: str | RulesFile | None, backend: LabBackend) -> Iterator[RuleSource]:
    """Yield what the save files of a namespace hold; a bare name is one of iptables-save."""
    if file is None:
        return
    named = RulesFile(iptables=file) if isinstance(file, str) else file
    path: FieldPath = ("rules-file",)
    for program in PROGRAMS:
        name = getattr(named, program)
        if name is not None:
            inner = path if isinstance(file, str) else (*path, program)
            for each in backend.backends:
                yield RuleSource(program, each, inner, None, name)
    if named.nftables is not None:
        yield RuleSource("nft", None, (*path, "nftables"), None, named.nftables)


def check_file_name(name: str | None, *path: str | int) -> None:
    """Refuse files that are not in the lab file's folder or below it."""
    parts = PurePosixPath(name or "x").parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in str(name):
        raise BadFieldError(f"{name!r} is no file beside the lab file, or below its folder", *path)


def check_restore_text(text: str, *path: str | int) -> None:
    """Refuse text of iptables-save that names a program to run."""
    for line in text.splitlines():
        if "M" in line or "--mo" in line:
            check_words(tuple(line.replace('"', " ").split()), *path)


def check_nft_text(text: str, *path: str | int) -> None:
    """Refuse nft text that reads further files."""
    if INCLUDE.search(text):
        raise BadFieldError("`include` reads another file: write out what it holds", *path)


def check_words(words: tuple[str, ...], *path: str | int) -> None:
    """Refuse iptables' --modprobe (-M): it names a program that iptables would run."""
    for word in words:
        name = word.partition("=")[0]
        long = name.startswith("--mo") and "--modprobe".startswith(name)
        if long or MODPROBE_SHORT.match(word):
            raise BadFieldError(f"{word!r} would run a program: leave it out", *path)
