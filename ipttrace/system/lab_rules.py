"""Loads the rules of a lab: each field in one go, and on a refusal finds the rule that is to blame.

A table's lines are one transaction of iptables-restore.  Where the kernel refuses it at COMMIT,
nobody says which line it was: halves of it are tried until one line is left.  The message is the
one that iptables itself gives for that line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ipttrace.decode.text import clean_text
from ipttrace.errors import KernelError, UsageError
from ipttrace.lab.parts import FieldPath, words_of
from ipttrace.lab.reading import read_bytes
from ipttrace.lab.rules import RuleSource, check_nft_text, check_restore_text
from ipttrace.lab.source import Source
from ipttrace.system import commands
from ipttrace.system.restore_lines import DEFAULT_TABLE, in_one_text, section_around

LOCK_WAIT = "20"
"""Seconds to wait for /run/xtables.lock, which is one for all namespaces."""
LOAD_TIMEOUT = 60.0
"""Seconds; 50,000 rules take some."""
SHOWN = 200
"""Characters of a rule that an error shows."""

ERROR_LINE = re.compile(r"\bline:? (\d+)")
NFT_PLACE = re.compile(r"/dev/stdin:(\d+):[\d-]+: Error: ")
NOISE = re.compile(
    r"(; )?(Error occurred at line: \d+|Try `[^`']*' or '[^']*' for more information\.)"
)

Place = Callable[[int | None], str]
"""Where in the lab a row of a text is, as words in brackets; counted from 1."""


@dataclass(frozen=True, slots=True)
class RuleLoader:
    """Loads rules in the calling thread's namespace."""

    namespace: str
    """As the lab calls it."""
    base: FieldPath
    """The namespace, or the change, in the lab file."""
    source: Source

    def load(self, sources: Iterable[RuleSource], *, flush: bool = False) -> None:
        """Load fields in their order; raises KernelError with the line of the lab file.

        With `flush` a text for iptables-restore replaces the tables that it names.
        """
        for each in sources:
            if each.file is not None:
                self._load_file(each, flush=flush)
            elif each.program == "nft":
                self._nft(str(each.rules), self._rows_of(each.path))
            elif isinstance(each.rules, str):
                self._restore(each, each.rules, self._rows_of(each.path), flush=flush)
            else:
                self._list(each, each.rules or ())

    def _load_file(self, source: RuleSource, *, flush: bool) -> None:
        file = str(self.source.folder / str(source.file))
        what = f"rules file {source.file!r}{self._brackets((*self.base, *source.path))}"
        content = read_bytes(file, what=what)
        text = content.decode(errors="surrogateescape").replace("\r\n", "\n")

        def place(row: int | None) -> str:
            return f" ({clean_text(file)}{f' line {row}' if row else ''})"

        try:
            check = check_nft_text if source.program == "nft" else check_restore_text
            check(text)
        except ValueError as error:
            raise UsageError(f"cannot use {clean_text(file)}: {error}") from error
        if source.program == "nft":
            self._nft(text, place)
        else:
            self._restore(source, text, place, flush=flush)

    def _nft(self, text: str, place: Place) -> None:
        finished = commands.start(["nft", "-f", "-"], what="cannot load nftables", stdin=text)
        done = finished.finish(LOAD_TIMEOUT)
        if done.code != 0:
            found = NFT_PLACE.match(done.complaint)
            where = place(int(found[1]) if found else None)
            # What follows is the line itself, a row of ^, and further errors.
            complaint = done.complaint[found.end() :].split("; ")[0] if found else done.complaint
            raise KernelError(
                f"cannot load the nftables rules of {self.namespace}{where}: {complaint}"
            )

    def _list(self, source: RuleSource, lines: Sequence[str]) -> None:
        words = [words_of(line) for line in lines]
        whole = in_one_text(words)
        if whole is None:
            for number, each in enumerate(words):
                self._alone(source, each, self._brackets((*self.base, *source.path, number)))
            return

        def place(row: int | None) -> str:
            number = None if row is None else whole.items.get(row)
            inner = () if number is None else (number,)
            return self._brackets((*self.base, *source.path, *inner))

        self._restore(source, whole.text, place, flush=False)

    def _restore(self, source: RuleSource, text: str, place: Place, *, flush: bool) -> None:
        text = text.replace("\r\n", "\n")
        if not text.strip():
            return
        complaint = self._complaint(source, text, flush=flush)
        if complaint is None:
            return
        row = self._guilty_row(source, text, complaint)
        what = f"cannot load the {source.program} rules of {self.namespace}"
        section = section_around(text, row) if row else None
        rule = section.rule_in(row) if section and row else None
        if section and rule:
            table = () if section.table == DEFAULT_TABLE else ("-t", section.table)
            self._alone(source, (*table, *rule), place(row))
        raise KernelError(f"{what}{place(row)}: {tidy(complaint)}")

    def _complaint(self, source: RuleSource, text: str, *, flush: bool) -> str | None:
        """Try a text; return the message if it is refused."""
        program = f"{source.program}-{source.backend}-restore"
        keep = [] if flush else ["--noflush"]
        running = commands.start(
            [program, "-w", LOCK_WAIT, *keep],
            what=f"cannot load the {source.program} rules of {self.namespace}",
            stdin=text,
        )
        done = running.finish(LOAD_TIMEOUT)
        return None if done.code == 0 else done.complaint or f"exit {done.code}"

    def _guilty_row(self, source: RuleSource, text: str, complaint: str) -> int | None:
        """Return the line that the program names; at a COMMIT, the line before it that is wrong."""
        found = ERROR_LINE.search(complaint)
        if found is None:
            return None
        row = int(found[1])
        section = section_around(text, row)
        if section is None or section.commit != row:
            return row
        rows = section.rows
        while len(rows) > 1:
            half = rows[: len(rows) // 2]
            refused = self._complaint(source, section.text(half), flush=False) is not None
            rows = half if refused else rows[len(half) :]
        return rows[0] if rows else row

    def _alone(self, source: RuleSource, words: Sequence[str], where: str) -> None:
        """Run iptables itself; raises KernelError if it refuses the rule."""
        rule = clean_text(" ".join(words))
        done = commands.start(
            [f"{source.program}-{source.backend}", "-w", LOCK_WAIT, *words],
            what=f"cannot run {source.program} {rule!r} in {self.namespace}",
        ).finish(LOAD_TIMEOUT)
        if done.code != 0:
            shown = rule if len(rule) <= SHOWN else f"{rule[:SHOWN]}..."
            raise KernelError(
                f"cannot run {source.program} {shown!r} in {self.namespace}{where}: "
                f"{tidy(done.complaint) or f'exit {done.code}'}"
            )

    def _rows_of(self, field: FieldPath) -> Place:
        return lambda row: self._brackets((*self.base, *field), row)

    def _brackets(self, path: FieldPath, row: int | None = None) -> str:
        place = clean_text(self.source.place(path, row))
        return f" ({place})" if place else ""


def tidy(complaint: str) -> str:
    """Return a complaint of iptables without the words that help nobody here."""
    text = NOISE.sub("", complaint).replace(":; ", ": ").strip("; ")
    return re.sub(r"\s+", " ", text)
