"""The rules that trace reports are looked up in, while somebody may change them."""

from __future__ import annotations

from ipttrace.ends import Ends
from ipttrace.netfilter import ChainRef
from ipttrace.report import Locator
from ipttrace.ruleset import Ruleset
from ipttrace.targets import copies


class RulesInForce:
    """The newest rules, and for a while those before: reports wait in the queue."""

    def __init__(self, ruleset: Ruleset, created: frozenset[ChainRef]) -> None:
        """`created` are the base chains that exist only because of us."""
        self.created = created
        self.changing = False
        """Whether a report may be about rules before a change that the user made."""
        self._take(ruleset, None)

    def _take(self, ruleset: Ruleset, earlier: Ruleset | None) -> None:
        self.newest = ruleset
        self.locator = Locator(ruleset, self.created, earlier=earlier)
        self.ends = Ends(ruleset)
        self.copying = any(copies(rule.target, rule.text) for rule in ruleset.rules())
        """Whether some rule makes a copy of a packet while it is in its chain."""

    def change(self, ruleset: Ruleset, *, changed: bool) -> None:
        """Take new rules; they differ from those before in rules of the user's if `changed`."""
        self._take(ruleset, self.newest)
        self.changing = changed

    def settle(self) -> None:
        """Forget the rules before."""
        self.locator = Locator(self.newest, self.created)
        self.changing = False
