"""Two packets side by side: their headers, their hops, and where their ways part."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher

from ipttrace.event import TraceKind
from ipttrace.netfilter import Verdict
from ipttrace.path import ChainHop, Hop, PacketPath
from ipttrace_tui.explanation import why
from ipttrace_tui.header_fields import fields_at
from ipttrace_tui.view_model import HopRow, hop_rows


@dataclass(frozen=True, slots=True)
class Pair:
    """What stands on one line: a hop of each, or of one alone."""

    left: HopRow | None
    right: HopRow | None
    same: bool
    """Both met the same there, and it did the same to them."""
    left_hop: int | None = None
    right_hop: int | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """A header field in which the packets differ as they were first seen."""

    name: str
    left: str
    right: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two paths, line by line."""

    left: PacketPath
    right: PacketPath
    pairs: tuple[Pair, ...]
    parting: int | None
    """The first line on which they are not the same, and that matters; None if there is none."""
    differences: tuple[Difference, ...]

    @property
    def verdict(self) -> str:
        """Where the ways part, in a sentence."""
        if self.parting is None:
            if not self.pairs:
                return "neither packet has a hop"
            if not all(pair.same for pair in self.pairs):
                return "their ways are the same, but for policies that let one of them pass"
            return "their ways are the same, hop by hop"
        pair = self.pairs[self.parting]
        if pair.left is None or pair.right is None:
            one, row = ("B", pair.right) if pair.left is None else ("A", pair.left)
            return f"their ways part: only {one} {_did(row)} in {_place(row)}"
        if _place(pair.left) == _place(pair.right):
            place = _place(pair.left)
            return f"their ways part in {place}: A {_did(pair.left)}, B {_did(pair.right)}"
        left, right = (f"{_did(row)} in {_place(row)}" for row in (pair.left, pair.right))
        return f"their ways part: A {left}, B {right}"


def compare(left: PacketPath, right: PacketPath) -> Comparison:
    """Return both ways, hop beside hop where they met the same."""
    pairs = tuple(_pairs(left, right))
    differing = (n for n, pair in enumerate(pairs) if not pair.same)
    parting = next((n for n in differing if not _is_footprint(pairs[n], left, right)), None)
    return Comparison(left, right, pairs, parting, _differences(left, right))


def _is_footprint(pair: Pair, left: PacketPath, right: PacketPath) -> bool:
    """Tell whether only one met a policy ACCEPT, at a hook that both have passed.

    Such a table came, without a rule that matched, between the two: often by our own first probe.
    """
    if pair.left_hop is not None and pair.right_hop is None:
        hop, other = left.hops[pair.left_hop], right
    elif pair.right_hop is not None and pair.left_hop is None:
        hop, other = right.hops[pair.right_hop], left
    else:
        return False
    if not isinstance(hop, ChainHop) or hop.event is not TraceKind.POLICY:
        return False
    passed = any(each.hook is hop.hook for each in other.chain_hops)
    return hop.verdict is Verdict.ACCEPT and passed


def _pairs(left: PacketPath, right: PacketPath) -> list[Pair]:
    rows = hop_rows(left), hop_rows(right)
    keys = [[_key(hop) for hop in path.hops] for path in (left, right)]
    places = [[_table(hop) for hop in path.hops] for path in (left, right)]
    found: list[Pair] = []
    steps: list[tuple[int | None, int | None]]
    matcher = SequenceMatcher(None, keys[0], keys[1], autojunk=False)
    for tag, a, a_end, b, b_end in matcher.get_opcodes():
        if tag == "equal":
            steps = [(a + n, b + n) for n in range(a_end - a)]
        else:
            steps = _beside(places[0][a:a_end], places[1][b:b_end], a, b)
        for one, other in steps:
            left_row = rows[0][one] if one is not None else None
            right_row = rows[1][other] if other is not None else None
            same = tag == "equal" and _effect(left_row) == _effect(right_row)
            found.append(Pair(left_row, right_row, same, one, other))
    return found


def _beside(
    left: list[str], right: list[str], a: int, b: int
) -> list[tuple[int | None, int | None]]:
    """Return the hops of two different stretches, those of one table and hook side by side."""
    steps: list[tuple[int | None, int | None]] = []
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag == "equal":
            steps += [(a + i + n, b + j + n) for n in range(i_end - i)]
        else:
            steps += [(a + n, None) for n in range(i, i_end)]
            steps += [(None, b + n) for n in range(j, j_end)]
    return steps


def _key(hop: Hop) -> str:
    """Return what a hop is: the same rule or the same chain's end are one."""
    if isinstance(hop, ChainHop):
        return f"{hop.chain.backend} {hop.chain} {hop.hook} {hop.event} {hop.number} {hop.handle}"
    return type(hop).__name__


def _table(hop: Hop) -> str:
    if isinstance(hop, ChainHop):
        return f"{hop.chain.backend} {hop.chain.table_family} {hop.chain.table} {hop.hook}"
    return type(hop).__name__


def _effect(row: HopRow | None) -> tuple[str, ...]:
    """Return what may not differ; addresses that both had rewritten in their own way may."""
    if row is None:
        return ()
    fields = tuple(change.split(" ")[0] for change in row.changes.split(", "))
    text = row.text if row.table in ("route", "socket", "kernel", "tcp") else ""
    return (row.verdict, text, *fields)


def _differences(left: PacketPath, right: PacketPath) -> tuple[Difference, ...]:
    first, second = ({f.name: f.value for f in fields_at(path, None)} for path in (left, right))
    first["in"], second["in"] = left.in_interface or "here", right.in_interface or "here"
    names = [*first, *(name for name in second if name not in first)]
    return tuple(
        Difference(name, first.get(name, "none"), second.get(name, "none"))
        for name in names
        if name != "id" and first.get(name) != second.get(name)
    )


def _place(row: HopRow | None) -> str:
    if row is None:
        return ""
    return " ".join(word for word in (row.table, row.chain) if word)


def _did(row: HopRow | None) -> str:
    if row is None:
        return "meets nothing"
    effect = " ".join(word for word in (row.verdict, row.changes) if word)
    if row.place in ("policy", "end"):
        what = "the policy" if row.place == "policy" else "the end of the chain"
        return f"meets {what} ({effect})"
    return f"meets rule {row.place} ({effect})" if row.place else f"is {row.text or row.changes}"


def in_full(row: HopRow | None) -> str:
    """Return a hop in one line."""
    if row is None:
        return "meets nothing here"
    words = (row.table, row.chain, row.place, row.text, row.verdict, row.changes)
    return "  ".join(word for word in words if word)


def end_of(path: PacketPath) -> str:
    """Return what became of a packet, in a sentence."""
    return why(path)[0].text
