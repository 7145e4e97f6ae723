"""The output of `nft -a -y list ruleset`, and how it completes what iptables-nft-save says.

nft indents by structure (src/rule.c): a table at the margin, its chains, sets and maps by one tab,
their content by two; a rule ends with ` # handle N`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ipttrace.decode import nft_maps
from ipttrace.netfilter import Backend, ChainRef, Hook, TableFamily, Verdict
from ipttrace.ruleset import TAG, Chain, Counter, MapElement, Rule, Ruleset

VERDICT_WORDS = frozenset(
    {
        "accept",
        "continue",
        "dnat",
        "drop",
        "goto",
        "jump",
        "masquerade",
        "queue",
        "redirect",
        "reject",
        "return",
        "snat",
        "synproxy",
        "tproxy",
        "vmap",
    }
)
"""First words of statements that decide where a packet goes (nft(8), VERDICT, NAT STATEMENTS)."""

_TABLE = re.compile(r"table (\w+) (.+) \{(?: #.*)?\Z")
_CHAIN = re.compile(r"\tchain (.+) \{(?: #.*)?\Z")
_BASE = re.compile(r"type \w+ hook (\w+) (.*?)priority (-?[0-9]{1,10});(?: policy (\w+);)?")
_HANDLE = re.compile(r" # handle ([0-9]{1,20})\Z")
_QUOTED = re.compile(r'"[^"]*"')
_COUNTER = re.compile(r'"[^"]*"|(?<=\bcounter) packets ([0-9]{1,20}) bytes ([0-9]{1,20})')
_OWN = re.compile(rf'\bcomment "{TAG}[^"]*"\Z')


@dataclass(slots=True)
class _OpenChain:
    """A chain whose rules are still being read."""

    ref: ChainRef
    hook: Hook | None = None
    priority: int | None = None
    policy: Verdict | None = None
    devices: tuple[str, ...] = ()
    rules: list[Rule] = field(default_factory=list)
    own: int = 0

    def set_base(self, hook: str, devices: str, priority: str, policy: str | None) -> None:
        """Note what makes it a base chain; a hook's name and a policy are in lower case."""
        self.hook = Hook[hook.upper()] if hook.upper() in Hook.__members__ else None
        self.devices = _devices(devices)
        self.priority = int(priority)
        self.policy = Verdict.DROP if policy == "drop" else Verdict.ACCEPT

    def add(self, text: str, handle: int) -> None:
        """Append a rule."""
        text, counter = _without_counts(text)
        own = _OWN.search(text) is not None
        self.own += own
        position = len(self.rules) + 1
        number = None if own else position - self.own
        target = _target(text)
        goes = target == "goto"
        self.rules.append(Rule(self.ref, position, number, text, target, goes, counter, handle))

    def close(self) -> Chain:
        rules, place = tuple(self.rules), (self.hook, self.priority, self.policy)
        return Chain(self.ref, rules, *place, devices=self.devices)


def decode_nft_list(text: str) -> Ruleset:
    """Return the chains of every table in `text`; nft lists a table's maps before its chains."""
    chains: dict[ChainRef, Chain] = {}
    table: tuple[TableFamily, str] | None = None
    maps: dict[str, tuple[MapElement, ...]] = {}
    lines = iter(text.split("\n"))
    for line in lines:
        if line.startswith(("table ", "}")):
            table = _table(line)
            maps = {}
        elif table is not None and (match := nft_maps.MAP.match(line)):
            maps[match[1]] = nft_maps.named_elements(_body(lines))
        elif table is not None and (match := _CHAIN.match(line)):
            ref = ChainRef(Backend.NFT, *table, match[1])
            chains[ref] = _mapped(_read_chain(ref, _body(lines)), maps)
    return Ruleset(chains)


def _mapped(chain: Chain, maps: nft_maps.Maps) -> Chain:
    """Return a chain whose rules know the elements of their verdict maps."""
    if not any(rule.target == "vmap" for rule in chain.rules):
        return chain
    elements = (nft_maps.rule_elements(rule.text, maps) for rule in chain.rules)
    rules = (
        replace(rule, elements=found) for rule, found in zip(chain.rules, elements, strict=True)
    )
    return replace(chain, rules=tuple(rules))


def merge_nft(saved: Ruleset, listed: Ruleset) -> Ruleset:
    """Return the chains of `listed`, with the texts and counters that iptables-nft-save gave.

    The list is the truth about what exists: iptables-nft-save also prints built-in chains that the
    kernel does not have.  Rules are paired by their order; a chain that has another number of
    rules in the two (somebody changed it in between) stays as nft lists it.
    """
    merged = dict(listed.chains)
    for ref, chain in saved.chains.items():
        native = merged.get(ref)
        if native is not None and len(native.rules) == len(chain.rules):
            merged[ref] = _merge_chain(chain, native)
    return Ruleset(merged)


def _merge_chain(saved: Chain, native: Chain) -> Chain:
    rules = tuple(
        replace(rule, handle=listed.handle)
        for rule, listed in zip(saved.rules, native.rules, strict=True)
    )
    return replace(native, rules=rules, policy=saved.policy or native.policy, counter=saved.counter)


def _table(line: str) -> tuple[TableFamily, str] | None:
    match = _TABLE.match(line)
    return (TableFamily(match[1]), match[2]) if match and match[1] in set(TableFamily) else None


def _body(lines: Iterator[str]) -> Iterator[str]:
    """Yield the lines up to the one that closes the chain."""
    for line in lines:
        if line == "\t}":
            return
        yield line


def _read_chain(ref: ChainRef, body: Iterator[str]) -> Chain:
    chain = _OpenChain(ref)
    parts: list[str] = []
    for line in body:
        content = line.strip()
        base = _BASE.match(content)
        handle = _HANDLE.search(content)
        if base is not None:
            chain.set_base(base[1], base[2], base[3], base[4])
        elif handle is not None:
            parts.append(content[: handle.start()].rstrip())
            chain.add(" ".join(parts), int(handle[1]))
            parts = []
        elif parts or not _is_chain_property(content):
            parts.append(content)
    return chain.close()


def _devices(text: str) -> tuple[str, ...]:
    """Return the names in `device "eth0"` or `devices = { eth0, eth1 }`."""
    if text.startswith("devices"):
        return tuple(text.partition("{")[2].rpartition("}")[0].strip().split(", "))
    return tuple(name[1:-1] for name in _QUOTED.findall(text))


def _is_chain_property(content: str) -> bool:
    return not content or content.startswith(("comment ", "flags ", "devices "))


def _without_counts(text: str) -> tuple[str, Counter | None]:
    """Return a rule's text as `nft -s` has it, and its counter: of several the last."""
    counts: list[Counter] = []

    def leave(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        counts.append(Counter(int(match[1]), int(match[2])))
        return ""

    if " packets " not in text:
        return text, None
    return _COUNTER.sub(leave, text), counts[-1] if counts else None


def _target(text: str) -> str | None:
    if '"' in text:
        text = _QUOTED.sub('""', text)
    words = text.split(" ")
    return next((word for word in words if word in VERDICT_WORDS), None)
