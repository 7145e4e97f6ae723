"""Finding the lines of a save file that iptables-restore refuses, so that the rest is loaded.

How it works.  A table is tried as a whole, which is all that a sound file needs.  If it is refused:

- A line that cannot be read is named by its number (`Error occurred at line: N`), the first one
  only.  It is taken out, and the trial goes on behind it, so each line is read about once.  What no
  rule can have (a match without its library, a set that is not there) takes out all rules with it.
- nf_tables names every rule that it refuses.  ip_tables only says that the COMMIT failed: then one
  rule of each form is tried, a form being the options without their values, and the forms that are
  refused are looked at closer.  If that does not help, halves of the table are tried.

A rule that was taken out leaves a gap: a rule that matches nothing, so that the numbers of the
others stay what they are on the real host.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ipttrace.decode.iptables_save import split_words
from ipttrace.lab.complaints import Complaint, Key, read_complaint
from ipttrace.lab.old_syntax import translate
from ipttrace.lab.rule_forms import OUTGOING, form_of, gap_for, keys_of, reason_of
from ipttrace.lab.rules import check_restore_text
from ipttrace.lab.save_file import Line, SaveTable, names_program

ALIKE = 100
"""Refused lines of one form, after which the others of that form are not tried."""
AT_ONCE = 1000
"""Rules that are read in one run, once a line was refused: each run ends at the first one."""
IN_A_ROW = 3
"""The same where a trial costs a run of its own."""
ROUNDS = 100


Attempt = Callable[[str, bool], str | None]
"""Gives a text to iptables-restore, with `--test` if True; returns its stderr if it refused."""


@dataclass
class _Rule:
    """A rule in today's words."""

    line: Line
    written: str

    @cached_property
    def words(self) -> list[str]:
        """Its words, without quotes."""
        return split_words(self.written)

    @cached_property
    def keys(self) -> frozenset[Key]:
        """The matches, targets and sets that it names."""
        return keys_of(self.words)

    @cached_property
    def form(self) -> str:
        """Its options without their values."""
        return form_of(self.words)


class TableTrial:
    """One table, and what of it was refused so far."""

    def __init__(
        self, source: str, table: SaveTable, attempt: Attempt, out_of_time: Callable[[], bool]
    ) -> None:
        self.source = source
        self.table = table
        self.refused: dict[int, tuple[Line, str]] = {}
        """By line."""
        self.notes: list[str] = []
        self._attempt = attempt
        self._out_of_time = out_of_time
        self.rules = [self._rule(line) for line in table.rules]
        self._alike: Counter[str] = Counter()

    def _rule(self, line: Line) -> _Rule:
        body = translate(line.body)
        if body is not None:
            self.notes.append(
                f"{self.source} line {line.number}: old syntax, taken as: -A {line.chain} {body}"
            )
        today = body if body is not None else line.body
        counter = f"{line.counter} " if line.counter else ""
        rule = _Rule(line, f"{counter}-A {line.chain} {today}".rstrip())
        if "M" in today or "--mo" in today:
            self._refuse_programs(rule)
        return rule

    def _refuse_programs(self, rule: _Rule) -> None:
        """Refuse what would make iptables run a program, or what a lab would take for that."""
        if any(map(names_program, rule.words)):
            self.refuse(rule.line, "it names a program that iptables would run")
        try:
            check_restore_text(rule.written)
        except ValueError as error:
            self.refuse(rule.line, str(error))

    # -- what is kept

    def refuse(self, line: Line, reason: str) -> None:
        """Take a line out; the first reason stays."""
        self.refused.setdefault(line.number, (line, reason))

    @property
    def chains(self) -> list[Line]:
        """The chains that are declared, without those that were refused."""
        return [line for line in self.table.chains if line.number not in self.refused]

    def kept(self, rules: Iterable[_Rule] | None = None) -> list[_Rule]:
        """Return those of the rules, by default of all, that were not refused."""
        return [
            rule
            for rule in (self.rules if rules is None else rules)
            if rule.line.number not in self.refused
        ]

    def text(self, rules: Sequence[_Rule]) -> tuple[str, list[Line]]:
        """Return the text with these rules, and the line of the file for each of its lines."""
        chains = self.chains
        lines = [f"*{self.table.name}", *(line.written for line in chains)]
        lines += [rule.written for rule in rules]
        return "\n".join([*lines, "COMMIT", ""]), [*chains, *(rule.line for rule in rules)]

    def final(self) -> str:
        """Return the text to load: rules that were refused leave a gap."""
        text = self._with_gaps(comments=True)
        test = False
        if self.refused and self._attempt(text, test) is not None:
            return self._with_gaps(comments=False)  # a kernel without that match
        return text

    def _with_gaps(self, *, comments: bool) -> str:
        lines = [f"*{self.table.name}", *(line.written for line in self.chains)]
        dead = {line.chain for line, _ in self.refused.values() if line.kind == "chain"}
        for rule in self.rules:
            if rule.line.chain in dead:
                continue
            refusal = self.refused.get(rule.line.number)
            said = refusal[1] if refusal and comments else ""
            lines.append(gap_for(rule.line, said) if refusal else rule.written)
        return "\n".join([*lines, "COMMIT", ""])

    # -- trials

    def load(self) -> None:
        """Find what is refused."""
        for _ in range(ROUNDS):
            complaint, lines = self._try(self.kept())
            if complaint is None:
                return
            progress = self._note(complaint, lines)
            if complaint.reading:
                self._read_all()
            elif progress:
                self._try_alike(complaint, lines)
            if not progress:
                break
        self._find_by_forms()

    def _try(
        self, rules: Sequence[_Rule], *, test: bool = False
    ) -> tuple[Complaint | None, list[Line]]:
        text, lines = self.text(rules)
        errors = self._attempt(text, test)
        return (None if errors is None else read_complaint(errors)), lines

    def _note(self, complaint: Complaint, lines: Sequence[Line]) -> bool:
        """Take out what a complaint names; return whether it names anything."""
        before = len(self.refused)
        if 1 in complaint.lines:
            self._refuse_table(complaint.lines[1])
        for number, reason in complaint.lines.items():
            if 2 <= number <= len(lines) + 1:
                self._refuse_line(lines[number - 2], reason)
        for key, reason in complaint.keys.items():
            for rule in self.kept():
                if key in rule.keys:
                    self.refuse(rule.line, reason)
        return len(self.refused) > before

    def _refuse_line(self, line: Line, reason: str) -> None:
        self.refuse(line, reason)
        if line.kind == "chain":
            for rule in self.kept():
                if rule.line.chain == line.chain:
                    self.refuse(rule.line, f"its chain was refused: {reason}")

    def _refuse_table(self, reason: str) -> None:
        begin = Line(self.table.number, "chain", f"*{self.table.name}", "", "")
        self.refuse(begin, reason)
        for line in (*self.table.chains, *self.table.rules):
            self.refuse(line, f"its table was refused: {reason}")

    def _read_all(self) -> None:
        """Let every line be read, without a commit, some at a time."""
        rest = self.kept()
        while rest and not self._out_of_time():
            some, rest = rest[:AT_ONCE], rest[AT_ONCE:]
            chains = len(self.chains)
            complaint, lines = self._try(some, test=True)
            if complaint is None or not self._note(complaint, lines):
                continue
            at = max(complaint.lines, default=0) - 2 - chains
            if 0 <= at < len(some):
                self._stop_trying(some[at].form, complaint)
                some = some[at + 1 :]
            rest = self.kept([*some, *rest])

    def _try_alike(self, complaint: Complaint | None, lines: Sequence[Line]) -> None:
        """Try by themselves the rules of those forms of which nf_tables refused some."""
        forms = {rule.line.number: rule.form for rule in self.rules}
        bad = {
            forms[lines[at - 2].number]
            for at in (complaint.lines if complaint else ())
            if 2 <= at <= len(lines) + 1 and lines[at - 2].number in forms
        }
        while alike := [rule for rule in self.kept() if rule.form in bad]:
            complaint, lines = self._try(alike)
            if complaint is None or not self._note(complaint, lines) or self._out_of_time():
                return
            for at in complaint.lines:
                if 2 <= at <= len(lines) + 1 and lines[at - 2].number in forms:
                    self._stop_trying(forms[lines[at - 2].number], complaint)

    def _stop_trying(self, form: str, complaint: Complaint) -> None:
        self._alike[form] += 1
        if self._alike[form] == ALIKE:
            for rule in self.kept():
                if rule.form == form:
                    self.refuse(
                        rule.line, f"not tried: {ALIKE} of its form were: {reason_of(complaint)}"
                    )

    # -- ip_tables does not say which

    def _find_by_forms(self) -> None:
        complaint, _ = self._try([])
        if complaint is not None:
            self._refuse_table(complaint.text or "the kernel refuses it")
            return
        groups: dict[str, list[_Rule]] = {}
        for rule in self.kept():
            groups.setdefault(f"{rule.line.chain in OUTGOING} {rule.form}", []).append(rule)
        self._add([group[0] for group in groups.values()], [])
        for group in groups.values():
            if group[0].line.number in self.refused:
                self._try_one_by_one(group[1:], group[0])
        if self._try(self.kept())[0] is not None:
            self._add(self.kept(), [])

    def _try_one_by_one(self, rules: Sequence[_Rule], first: _Rule) -> None:
        in_a_row = 1
        for rule in rules:
            if in_a_row >= IN_A_ROW:
                reason = f"not tried: line {first.line.number}, which is of its form, was refused"
                self.refuse(rule.line, reason)
            elif (complaint := self._try([rule])[0]) is not None:
                self.refuse(rule.line, reason_of(complaint))
                in_a_row += 1
            else:
                in_a_row = 0

    def _add(self, chunk: Sequence[_Rule], good: list[_Rule]) -> None:
        """Add to `good` what of `chunk` is taken together with it; refuse the rest."""
        if not chunk:
            return
        if self._out_of_time():
            for rule in chunk:
                self.refuse(rule.line, "not tried: it took too long to find what is refused")
            return
        complaint, _ = self._try([*good, *chunk])
        if complaint is None:
            good += chunk
        elif len(chunk) == 1:
            self.refuse(chunk[0].line, reason_of(complaint))
        else:
            middle = len(chunk) // 2
            self._add(chunk[:middle], good)
            self._add(chunk[middle:], good)
