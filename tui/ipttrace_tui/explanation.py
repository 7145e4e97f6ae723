"""Why a packet fared as it did, and what one hop did to it, in sentences."""

from __future__ import annotations

from dataclasses import dataclass

from ipttrace.decode.text import clean_text
from ipttrace.diagnose.remedy import parted
from ipttrace.event import TraceKind
from ipttrace.netfilter import FATAL_VERDICTS, Backend, RuleRef
from ipttrace.path import ChainHop, Outcome, PacketPath
from ipttrace_tui.view_model import OUTCOMES, Tone, hop_rows


@dataclass(frozen=True, slots=True)
class Sentence:
    """One paragraph of the explanation."""

    text: str
    tone: Tone = Tone.PLAIN
    label: str = ""
    command: str = ""
    """What could be run; it belongs to the text and is kept whole where there is room."""


def hop_sentences(path: PacketPath, index: int | None) -> tuple[Sentence, ...]:
    """Return what one hop did: its place, its rule in full, and its verdict with its basis."""
    if index is None or not 0 <= index < len(path.hops):
        return ()
    hop = path.hops[index]
    row = hop_rows(path)[index]
    if not isinstance(hop, ChainHop):
        return (Sentence(f"{row.table} {row.chain}".strip(), Tone.STRONG), Sentence(row.text))
    place = " ".join(word for word in (row.table, row.chain, row.place) if word)
    backend = "nf_tables" if hop.chain.backend is Backend.NFT else "iptables-legacy"
    basis = f"{row.verdict}, {hop.basis.value}; {backend}"
    rule = [Sentence(row.text)] if hop.rule or hop.replaced else []
    return (Sentence(place, Tone.STRONG), *rule, Sentence(basis, Tone.MUTED))


def why(path: PacketPath) -> tuple[Sentence, ...]:
    """Return the fate and its reasons, the most telling first."""
    glyph, tone = OUTCOMES[path.outcome]
    diagnosis = path.diagnosis
    if diagnosis is None:
        return (Sentence(f"{glyph} {_fate(path)}", tone), *_doubts(path))
    return (
        Sentence(f"{glyph} {clean_text(diagnosis.summary)}", tone),
        *(
            Sentence(f"{clean_text(each.text)} ({each.strength.value})", label="evidence")
            for each in diagnosis.evidence
        ),
        *(
            Sentence(
                f"{_rule_name(each.rule)} wants {clean_text(each.criterion)},"
                f" the packet has {clean_text(each.actual)}",
                label="not matched",
            )
            for each in diagnosis.unmatched
        ),
        *map(_remedy, diagnosis.remedy),
        *_doubts(path),
    )


def _remedy(text: str) -> Sentence:
    words, command = parted(clean_text(text))
    return Sentence(f"{words}:" if command else words, label="remedy", command=command)


def _rule_name(rule: RuleRef) -> str:
    return clean_text(str(rule))


def _fate(path: PacketPath) -> str:
    hops = path.chain_hops
    last = hops[-1] if hops else None
    if last is not None and last.verdict in FATAL_VERDICTS:
        kind = f" by its {last.event.value}" if last.event is not TraceKind.RULE else ""
        return f"{path.outcome.value} at {_rule_name(last.ref)}{kind}"
    out = f" by {clean_text(path.out_interface)}" if path.out_interface else ""
    match path.outcome:
        case Outcome.FORWARDED | Outcome.SENT:
            return f"{path.outcome.value}{out}; no rule stood in the way"
        case Outcome.DELIVERED:
            return f"{path.fate}; no rule stood in the way"
        case Outcome.LOST:
            return f"lost after {_rule_name(last.ref)}: no proof of why" if last else "no hop seen"
        case Outcome.INCOMPLETE:
            return "incomplete: events of this packet are missing"
    return path.outcome.value


def _doubts(path: PacketPath) -> tuple[Sentence, ...]:
    text = "another packet looked the same; hops may be swapped between them"
    ambiguous = (Sentence(text, Tone.WARN, "ambiguous"),) if path.ambiguous else ()
    if not path.rules_changed:
        return ambiguous
    text = "rules were changed while it was on its way: its hops may be of those before or after"
    return (*ambiguous, Sentence(text, Tone.WARN, "rules changed"))
