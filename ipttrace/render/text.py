"""Paths and results as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ipttrace.decode.text import clean_text
from ipttrace.diagnose.catalogue import Cause
from ipttrace.diagnose.client import client_got, client_sees
from ipttrace.diagnose.remedy import parted
from ipttrace.diagnose.sockets import in_short
from ipttrace.diagnose.unmatched import since
from ipttrace.diagnose.walk import depths, name
from ipttrace.netfilter import FATAL_VERDICTS, Backend, Basis
from ipttrace.path import (
    ChainHop,
    Diagnosis,
    DropHop,
    Hop,
    NatHop,
    PacketPath,
    ResetHop,
    Role,
    RouteHop,
    SocketHop,
    Strength,
    WireHop,
)
from ipttrace.render import words
from ipttrace.render.style import Style, paint
from ipttrace.render.table import GAP, Row, columns, table_lines, wrap
from ipttrace.result import TraceResult
from ipttrace.ruleset import Counter

UNMATCHED_SHOWN = 3
EVIDENCE_SHOWN = 2
"""Pieces of evidence that a tired reader gets; the strongest ones."""
FATE_STYLES = {">": Style.GOOD, "x": Style.BAD, "?": Style.OPEN}


def path_lines(
    path: PacketPath,
    *,
    width: int | None,
    color: bool,
    client: str | None = None,
    numbered: bool = False,
    verbose: bool = False,
) -> list[str]:
    """Return one packet's header, hops, fate and why, in lines of at most `width` columns.

    `width` None cuts nothing.  `client` is what the client's call returned.  Only a rule's text is
    ever cut, and commands are never wrapped, so that they can be copied.  `verbose` gives all
    evidence, not only the strongest.
    """
    return [
        *_header(path, width, color, numbered),
        *table_lines(path_rows(path), width=width, color=color),
        *_fate(path, width, color),
        *_details(path, client, width, verbose),
    ]


def result_lines(result: TraceResult, *, width: int | None, color: bool) -> list[str]:
    """Return all that one run found: each packet, its answers after it, then what is to be said."""
    return [
        *answer_lines(result, width=width, color=color),
        *note_lines(result, width=width, color=color),
    ]


def answer_lines(
    result: TraceResult, *, width: int | None, color: bool, verbose: bool = False
) -> list[str]:
    """Return each packet, its answers after it; what is known before all is taken back."""
    shown = [path for path in in_order(result) if path.role is not Role.OBSERVED]
    numbered = len(result.paths) > 1
    words_of = clients(result)
    lines: list[str] = []
    for path in shown:
        begins = path.role is Role.PROBE and path.leg == 1
        word = words_of.get(path.journey) if begins else None
        lines += path_lines(
            path, width=width, color=color, client=word, numbered=numbered, verbose=verbose
        )
        lines.append("")
    lines += _observed(result, width)
    return lines[:-1] if lines and not lines[-1] else lines


def summary_line(path: PacketPath, *, when: str, color: bool, placed: bool) -> str:
    """Return one packet in one line: when, who to whom, where it came in, its fate.

    `when` is the time as it is to be shown; the namespace is named if it is to be `placed`.
    """
    mark = words.MARKS[path.outcome]
    about = [words.origin(path)]
    if placed and path.netns is not None:
        about.append(clean_text(path.netns))
    head = f"{when} #{path.id} {words.packet_words(path.packet)}  {', '.join(about)}  "
    return head + paint(f"{mark} {fate_words(path, short=True)}", FATE_STYLES[mark], color)


def in_order(result: TraceResult) -> Iterator[PacketPath]:
    """Yield every path by journeys, answers' journeys after the one that they answer."""
    journeys: dict[int, list[PacketPath]] = {}
    for path in result.paths:
        journeys.setdefault(path.journey, []).append(path)
    journey_of = {path.id: path.journey for path in result.paths}
    asked = {
        number: journey_of[path.request]
        for number, legs in journeys.items()
        for path in legs
        if path.request in journey_of and journey_of[path.request] != number
    }
    for number, legs in journeys.items():
        if number not in asked:
            yield from legs
            for answer, question in asked.items():
                yield from journeys[answer] if question == number else ()


def clients(result: TraceResult) -> Mapping[int, str]:
    """Return what the client's call returned, by the journey of its packet."""
    journeys = dict.fromkeys(path.journey for path in result.paths if path.role is Role.PROBE)
    return dict(zip(journeys, result.client, strict=False))


def _header(path: PacketPath, width: int | None, color: bool, numbered: bool) -> list[str]:
    number = f"#{path.id} " if numbered else ""
    left = number + words.packet_words(path.packet)
    right = ", ".join(words.about(path))
    if width is None or len(left) + len(right) + 3 <= width:
        return [f"{paint(left, Style.HEAD, color)}   {right}"]
    return [paint(left, Style.HEAD, color), *wrap(right, width, GAP * 2)]


def path_rows(path: PacketPath) -> list[Row]:
    """Return what the hop list says: a row a hop, without those that the header says."""
    return [row for _, row in hop_rows(path.hops)]


def hop_rows(hops: Sequence[Hop]) -> list[tuple[Hop, Row]]:
    """Return the row of each hop that is shown: the head and the fate of a packet say the others.

    With rules of both backends each row begins with its backend.
    """
    both = len({hop.chain.backend for hop in hops if isinstance(hop, ChainHop)}) > 1
    pairs = zip(hops, depths(hops), strict=True)
    return [(hop, _row(hop, depth, both)) for hop, depth in pairs if not _said_elsewhere(hop)]


def why_lines(path: PacketPath, *, width: int | None, color: bool) -> list[str]:
    """Return one packet's fate and why, without its hops and without what the client got."""
    return [*_fate(path, width, color), *_details(path, None, width, verbose=False)]


def head_lines(path: PacketPath, *, width: int | None, color: bool) -> list[str]:
    """Return what one packet was, and where it came in."""
    return _header(path, width, color, numbered=False)


def _said_elsewhere(hop: Hop) -> bool:
    """Tell whether a hop says what the packet's head or its fate says as well."""
    return isinstance(hop, WireHop) and hop.event != "contained"


def _row(hop: Hop, depth: int, both: bool) -> Row:
    match hop:
        case ChainHop():
            return _chain_row(hop, depth, both)
        case NatHop():
            return Row(_lead("nat", "result", "", both), effect=words.nat_effects(hop))
        case WireHop():
            contained = ("CONTAINED",) if hop.event == "contained" else ()
            lead = _lead("wire", "", "", both)
            return Row(lead, words.wire_words(hop), contained, effect_style=Style.OPEN)
        case RouteHop():
            return Row(_lead("route", "", "", both), words.route_words(hop))
        case SocketHop():
            return Row(_lead("socket", "", "", both), words.socket_words(hop))
        case DropHop():
            effect = words.drop_words(hop)
            return Row(_lead("kernel", "drop", "", both), effect, rule_style=Style.BAD)
        case ResetHop():
            return Row(_lead("tcp", "reset", "", both), words.reset_words(hop))


def _lead(table: str, chain: str, backend: str, both: bool) -> tuple[str, ...]:
    return (backend, table, chain) if both else (table, chain)


def _chain_row(hop: ChainHop, depth: int, both: bool) -> Row:
    number = f" {hop.number}" if hop.number is not None else ""
    chain = GAP * depth + clean_text(hop.chain.chain) + number
    fatal = hop.verdict in FATAL_VERDICTS
    return Row(
        _lead(words.table_name(hop.chain), chain, hop.chain.backend, both),
        words.hop_rule(hop),
        words.hop_effects(hop),
        "" if hop.number is None else _rise(hop.counter),
        Style.FAINT if hop.number is None else Style.PLAIN,
        Style.BAD if fatal else Style.CHANGE,
    )


def _rise(counter: Counter | None) -> str:
    return f"+{counter.packets}" if counter is not None else ""


def fate_words(path: PacketPath, *, short: bool = False) -> str:
    """Return a packet's fate in one sentence, with the code of its cause.

    A `short` one leaves out what is so of every packet that a watch shows.
    """
    diagnosis = path.diagnosis
    if diagnosis is None:
        last = path.chain_hops[-1] if path.chain_hops else None
        where = f" at {name(last)}" if last and last.verdict in FATAL_VERDICTS else ""
        return clean_text(f"{path.fate}{where}")
    open_end = diagnosis.cause == Cause.UNKNOWN and words.MARKS[path.outcome] == ">"
    code = "" if open_end or diagnosis.cause == path.outcome else f" [{diagnosis.cause}]"
    if not short:
        return clean_text(f"{diagnosis.summary}{code}")
    told = in_short(diagnosis.summary)
    return clean_text(f"{told}{code if told == diagnosis.summary else ''}")


def _fate(path: PacketPath, width: int | None, color: bool) -> list[str]:
    mark = words.MARKS[path.outcome]
    lines = wrap(f"{mark} {fate_words(path)}", width, "")
    return [paint(line, FATE_STYLES[mark], color) for line in lines]


def _details(
    path: PacketPath, client: str | None, width: int | None, verbose: bool
) -> Iterator[str]:
    for text in _seen_by_client(path, client):
        yield from wrap(text, width)
    diagnosis = path.diagnosis
    if diagnosis is not None:
        for text in _evidence(diagnosis, verbose):
            yield from wrap(f"evidence: {clean_text(text)}", width)
        for each in diagnosis.unmatched[:UNMATCHED_SHOWN]:
            begun = f" since {hop}" if (hop := since(path, each)) else ""
            text = f"{each.rule} wants {each.criterion}, the packet has {each.actual}{begun}"
            yield from wrap(f"not matched: {clean_text(text)}", width)
        for remedy in diagnosis.remedy:
            yield from remedy_lines(clean_text(remedy), width)
    for text in words.cautions(path):
        yield from wrap(text, width)


def remedy_lines(remedy: str, width: int | None) -> list[str]:
    """Return a remedy in lines; a command that does not fit has its own, whole, to be copied."""
    words, command = parted(remedy)
    if not command or width is None or columns(GAP + remedy) <= width:
        return wrap(remedy, width)
    return [*wrap(f"{words}:", width), GAP * 3 + command]


def _evidence(diagnosis: Diagnosis, verbose: bool) -> Iterator[str]:
    """Yield all evidence, a piece a line; or the strongest that the summary does not say."""
    if verbose:
        yield from (f"{each.text} ({each.strength})" for each in diagnosis.evidence)
        return
    said = [each for each in diagnosis.evidence if each.text not in diagnosis.summary]
    if not said:
        return
    strongest = sorted(said, key=lambda each: [*Strength].index(each.strength))[:EVIDENCE_SHOWN]
    proof = "; ".join(f"{each.text} ({each.strength})" for each in strongest)
    more = len(said) - len(strongest)
    yield f"{proof}; {more} more with --verbose" if more else proof


def _seen_by_client(path: PacketPath, client: str | None) -> Iterator[str]:
    if client is not None:
        yield clean_text(client_got(client))
    elif path.role is Role.PROBE and (sees := client_sees(path)):
        yield sees


def _observed(result: TraceResult, width: int | None) -> list[str]:
    lines: list[str] = []
    for path in result.paths:
        if path.role is Role.OBSERVED:
            text = f"#{path.id} {words.packet_words(path.packet)}: {path.fate}"
            lines += wrap(f"also seen: {text}", width, "")
    return [*lines, ""] if lines else []


def note_lines(result: TraceResult, *, width: int | None, color: bool) -> list[str]:
    """Return what keeps the answer from being the whole truth, after an empty line."""
    lines: list[str] = []
    for note in notes(result):
        wrapped = wrap(f"! {clean_text(note)}", width, "")
        lines += [paint(line, Style.OPEN, color) for line in wrapped]
    if _infers(result):
        lines += [paint(line, Style.FAINT, color) for line in wrap(INFERRED, width, "")]
    return ["", *lines] if lines and result.paths else lines


def remarks(result: TraceResult) -> list[str]:
    """Return every note for a file that stays: also how verdicts are known."""
    return [*notes(result), *([INFERRED.removeprefix("note: ")] if _infers(result) else [])]


def _infers(result: TraceResult) -> bool:
    hops = (hop for path in result.paths for hop in path.chain_hops)
    return any(h.basis is Basis.INFERRED and h.chain.backend is Backend.LEGACY for h in hops)


INFERRED = (
    "note: iptables-legacy reports which rules matched, not what they decided; "
    "its verdicts are inferred from the rules"
)


def notes(result: TraceResult) -> Iterator[str]:
    """Yield what keeps the result from being the whole truth, and every warning."""
    totals = result.totals
    if not result.paths and not totals.packets:
        yield "no packet was traced"
    if totals.lost_events:
        yield f"{counted(totals.lost_events, 'report')} of the kernel lost: hops may be missing"
    if totals.undecoded:
        yield f"{counted(totals.undecoded, 'message')} of the kernel could not be read"
    if totals.complete < totals.packets:
        yield f"{totals.complete:,} of {totals.packets:,} traced packets complete"
    yield from result.warnings
    if not result.clean:
        yield "not everything could be put back as it was. Run: ipttrace clean"


def counted(number: int, noun: str) -> str:
    """Return `1 packet`, `2 packets`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
