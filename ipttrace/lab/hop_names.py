"""How a lab file names a chain, a rule or a policy: `[BACKEND] [FAMILY] TABLE/CHAIN [NUMBER]`."""

from __future__ import annotations

from dataclasses import dataclass

from ipttrace.event import TraceKind
from ipttrace.netfilter import Backend, ChainRef, RuleRef, TableFamily
from ipttrace.path import ChainHop


@dataclass(frozen=True, slots=True)
class HopName:
    """What is met: a chain, one of its rules, or its policy."""

    table: str
    chain: str
    number: int | None = None
    policy: bool = False
    backend: Backend | None = None
    """None: in either."""
    family: TableFamily | None = None
    """None: of any."""

    @classmethod
    def parse(cls, text: str) -> HopName:
        """Read `filter/INPUT`, `filter/INPUT 1`, `nft inet my/input policy`; raises ValueError."""
        words = text.split()
        backend = Backend(words.pop(0)) if words and words[0] in list(Backend) else None
        family = TableFamily(words.pop(0)) if words and words[0] in list(TableFamily) else None
        table, slash, chain = (words[0] if words else "").partition("/")
        if not (table and slash and chain) or len(words) > 2:
            raise ValueError(
                f"{text!r} names no chain or rule, like filter/INPUT or filter/INPUT 1"
            )
        number = words[1] if len(words) == 2 else None
        if number in (None, "policy"):
            return cls(table, chain, None, number is not None, backend, family)
        if not (number.isascii() and number.isdecimal() and int(number) > 0):
            raise ValueError(f"{text!r}: {number!r} is neither the number of a rule nor policy")
        return cls(table, chain, int(number), backend=backend, family=family)

    @property
    def whole_chain(self) -> bool:
        """Whether it names a chain, not a rule or a policy."""
        return self.number is None and not self.policy

    def same_chain(self, other: HopName) -> bool:
        """Tell whether both are of one chain, and one of them is the chain itself."""
        return (self.table, self.chain) == (other.table, other.chain) and (
            self.whole_chain or other.whole_chain
        )

    def in_chain(self, hop: ChainHop) -> bool:
        """Tell whether a hop is of the chain."""
        return self._is(hop.chain)

    def matches(self, hop: ChainHop) -> bool:
        """Tell whether a hop is what is named: any hop of a chain, or the rule, or the policy."""
        if not self._is(hop.chain):
            return False
        if self.policy:
            return hop.event is TraceKind.POLICY
        return self.number is None or self.number == hop.number

    def matches_ref(self, ref: RuleRef) -> bool:
        """Tell whether a rule of a diagnosis is what is named; one without number is a policy."""
        return self._is(ref.chain) and self.number == ref.number

    def _is(self, chain: ChainRef) -> bool:
        return (
            (self.table, self.chain) == (chain.table, chain.chain)
            and self.backend in (None, chain.backend)
            and self.family in (None, chain.table_family)
        )
