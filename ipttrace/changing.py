"""The rules of a namespace while somebody changes them: which held when reports were made.

Reports are read in batches, and after each the rules are asked whether they are still those of the
batch before (`RuleState`, which costs little).  If so all reports of the batch are about
them.  If not they are read anew, and the batch is held back until that is done: its reports are of
the old rules or of the new, and `Locator` believes only what is true of both.
"""

from __future__ import annotations

from dataclasses import dataclass

from ipttrace.errors import KernelError
from ipttrace.netfilter import PacketFamily
from ipttrace.ports import Clock, RulesetReader
from ipttrace.rules_in_force import changed_tables
from ipttrace.ruleset import Ruleset

PAUSE, LONGEST_PAUSE = 20, 0.2
"""How many times what a look cost must pass before the next, and the most, in seconds."""

REFRESH = 1.0
"""Seconds between two readings of the rules, at least; more where reading takes long."""

PATIENCE = 3.0
"""Seconds after which rules are taken as read though they go on changing."""

READINGS = 5
"""How often rules are read at arming, until they stay as they are meanwhile."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The rules of all reports up to now."""

    ruleset: Ruleset
    read_anew: bool = False
    changed: bool = False
    """Whether a rule of the user's is another than before."""


class ChangingRules:
    """The rules of one namespace, watched for changes."""

    def __init__(self, reader: RulesetReader, family: PacketFamily | None, clock: Clock) -> None:
        """Read them, as they are while the triggers are armed."""
        self._reader = reader
        self._family = family
        self._clock = clock
        self._watch = reader.watch()
        for _ in range(READINGS):
            self._state = self._watch.now()
            self._ruleset = reader.read(family)
            if self._watch.now() == self._state:
                break
        self._settled_at = clock.monotonic()
        self._next_look = self._next_reading = 0.0
        self.changes = 0
        """How often rules of the user's were found to be others."""
        self.first_change: float | None = None

    @property
    def ruleset(self) -> Ruleset:
        """The rules as they were last read."""
        return self._ruleset

    def close(self) -> None:
        """Watch no more."""
        self._watch.close()

    def hurry(self) -> None:
        """Look and read at once: we have changed rules ourselves."""
        self._next_look = self._next_reading = 0.0

    def settle(self, *, at_once: bool = False) -> Settled | None:
        """Return the rules of all that was reported up to now; None if that is not known yet.

        With `at_once` there is no next time.
        """
        began = self._clock.monotonic()
        if began < self._next_look and not at_once:
            return None
        state = self._watch.now()
        cost = self._clock.monotonic() - began
        self._next_look = began + min(cost * PAUSE, LONGEST_PAUSE)
        if state == self._state:
            self._settled_at = began
            return Settled(self._ruleset)
        if began < self._next_reading and not at_once:
            return None
        late = at_once or began > self._settled_at + PATIENCE
        ruleset = self._read(may_fail=not late)
        if ruleset is None or (self._watch.now() != state and not late):
            return None
        self._state, self._settled_at = state, self._clock.monotonic()
        if at_once and same_rules(self._ruleset, ruleset):
            return Settled(self._ruleset)  # that we take ours back moves no rule before that
        return self._replaced_by(ruleset)

    def _read(self, *, may_fail: bool) -> Ruleset | None:
        """Return the rules; None if they cannot be read just now."""
        began = self._clock.monotonic()
        try:
            return self._reader.read(self._family)
        except KernelError:
            if not may_fail:
                raise
            return None
        finally:
            now = self._clock.monotonic()
            self._next_reading = now + min(max(REFRESH, (now - began) * PAUSE), PATIENCE)

    def _replaced_by(self, ruleset: Ruleset) -> Settled:
        changed = not same_rules(self._ruleset, ruleset)
        if changed:
            self.changes += 1
            self.first_change = self.first_change or self._clock.now()
        self._ruleset = ruleset
        return Settled(ruleset, read_anew=True, changed=changed)


def same_rules(one: Ruleset, other: Ruleset) -> bool:
    """Tell whether two rulesets have the same rules, ours and counters aside."""
    return not changed_tables(one, other)
