"""The selected hop's rule among its neighbours: the chain as it was when the packet met it."""

from __future__ import annotations

from dataclasses import dataclass

from ipttrace.event import TraceKind
from ipttrace.netfilter import FATAL_VERDICTS
from ipttrace.path import ChainHop, PacketPath
from ipttrace.render.words import rule_words, table_name, unknown_rule
from ipttrace.ruleset import Chain, Rule, Ruleset
from ipttrace_tui.view_model import Tone, hop_rows, verdict_words


@dataclass(frozen=True, slots=True)
class ChainLine:
    """One rule, or the end of the chain."""

    number: str
    text: str
    here: bool
    """The hop that is looked at met it."""
    met: bool
    """Some hop of the packet met it."""
    verdict: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class ChainView:
    """A chain with the hops of one packet in it; its lines are made one by one."""

    title: str
    note: str
    rules: tuple[Rule, ...]
    end: str
    """What is at the end of the chain, empty if nothing is known of it."""
    here: ChainHop | None
    hops: tuple[ChainHop, ...]
    """All hops of the packet in this chain."""
    words: tuple[str, ...] = ()
    """Of a hop that is none of a chain: a line each."""

    def __len__(self) -> int:
        return len(self.rules) + bool(self.end) + len(self.words)

    @property
    def cursor(self) -> int | None:
        """The line of the hop that is looked at."""
        if self.here is None:
            return 0 if self.words else None
        if self.here.event is not TraceKind.RULE:
            return len(self.rules) if self.end else None
        places = (n for n, rule in enumerate(self.rules) if _is(self.here, rule))
        return next(places, None)

    def line(self, index: int) -> ChainLine:
        """Return one line."""
        if self.words:
            here = index == 0
            return ChainLine("", self.words[index], here, met=here, verdict="", tone=Tone.PLAIN)
        if index >= len(self.rules):
            met = [hop for hop in self.hops if hop.event is not TraceKind.RULE]
            return self._line("", self.end, met, index)
        rule = self.rules[index]
        text = rule_words(rule.text, rule.chain.chain)
        return self._line(str(rule.number), text, [h for h in self.hops if _is(h, rule)], index)

    def _line(self, number: str, text: str, met: list[ChainHop], index: int) -> ChainLine:
        here = index == self.cursor
        hop = self.here if here and self.here is not None else (met[0] if met else None)
        if hop is None:
            return ChainLine(number, text, here, met=False, verdict="", tone=Tone.MUTED)
        fatal = hop.verdict in FATAL_VERDICTS
        words = f"{verdict_words(hop)} ✗" if fatal else verdict_words(hop)
        tone = Tone.BAD if fatal else Tone.CHANGED if hop.changes else Tone.GOOD
        return ChainLine(number, text, here, met=True, verdict=words, tone=tone)


NOTHING = ChainView("rule", "", (), "", None, ())


def chain_view(path: PacketPath | None, index: int | None, rules: Ruleset | None) -> ChainView:
    """Return the chain of a hop; where the rules were not read, the hop's own rule alone."""
    if path is None or index is None or not 0 <= index < len(path.hops):
        return NOTHING
    hop = path.hops[index]
    if not isinstance(hop, ChainHop):
        row = hop_rows(path)[index]
        words = tuple(word for word in (row.text, *row.changes.split(", ")) if word)
        return ChainView(f"{row.table} {row.chain}".strip(), "", (), "", None, (), words)
    title = f"chain {table_name(hop.chain)} {rule_words(hop.chain.chain, '')}"
    hops = tuple(each for each in path.chain_hops if each.chain == hop.chain)
    chain = rules.chains.get(hop.chain) if rules is not None else None
    if chain is None:
        return ChainView(title, "its other rules are not known", _own(hops), _end(hop), hop, hops)
    if any(_is_gone(each, chain) for each in hops):
        return ChainView(title, "its rules are others now", _own(hops), _end(hop), hop, hops)
    return ChainView(title, _note(hop, chain), chain.user_rules, _policy(chain), hop, hops)


def _is(hop: ChainHop, rule: Rule) -> bool:
    if hop.event is not TraceKind.RULE:
        return False
    if hop.handle is not None and rule.handle is not None:
        return hop.handle == rule.handle
    return hop.number == rule.number


def _own(hops: tuple[ChainHop, ...]) -> tuple[Rule, ...]:
    met = {hop.number: hop for hop in hops if hop.event is TraceKind.RULE}
    return tuple(
        Rule(hop.chain, number or 0, number, hop.rule or unknown_rule(hop), handle=hop.handle)
        for number, hop in sorted(met.items(), key=lambda pair: pair[0] or 0)
    )


def _note(hop: ChainHop, chain: Chain) -> str:
    count = len(chain.user_rules)
    if hop.event is not TraceKind.RULE:
        return f"no rule of {count} decided" if count else "holds no rule"
    return f"rule {hop.number} of {count}" if hop.number is not None else ""


def _policy(chain: Chain) -> str:
    return f"policy {chain.policy}" if chain.policy else "end of chain"


def _end(hop: ChainHop) -> str:
    if hop.event is TraceKind.POLICY:
        return f"policy {hop.verdict}" if hop.verdict else "policy"
    return "end of chain" if hop.event is TraceKind.RETURN else ""


def changed_since(path: PacketPath, now: Ruleset) -> bool:
    """Tell whether a rule that the packet met is no longer what stands in its place."""
    return any(_is_stale(hop, now) for hop in path.chain_hops)


def _is_stale(hop: ChainHop, now: Ruleset) -> bool:
    return _is_gone(hop, now.chains.get(hop.chain))


def _is_gone(hop: ChainHop, chain: Chain | None) -> bool:
    """Tell whether the rule that a hop met is not in its place in the chain."""
    if hop.event is not TraceKind.RULE or hop.rule is None:
        return False
    rules = chain.user_rules if chain is not None else ()
    return not any(_is(hop, rule) and _same(hop.rule, rule.text) for rule in rules)


def _same(met: str, now: str) -> bool:
    """Counters in the text of native rules move."""
    return rule_words(met, "") == rule_words(now, "")
