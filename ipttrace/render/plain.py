"""One packet's facts as single lines without layout: for comments, pages and descriptions."""

from __future__ import annotations

from collections.abc import Iterator

from ipttrace.decode.text import clean_text
from ipttrace.diagnose.client import client_got, client_sees
from ipttrace.diagnose.unmatched import since
from ipttrace.path import PacketPath, Role
from ipttrace.render import words
from ipttrace.render.table import Row
from ipttrace.render.text import fate_words, path_rows


def packet_line(path: PacketPath) -> str:
    """Return who speaks to whom and where, in one line."""
    return f"#{path.id} {words.packet_words(path.packet)}  {', '.join(words.about(path))}"


def hop_lines(path: PacketPath) -> list[str]:
    """Return a line a hop: where, the rule or what happened, what it did, its counter's rise."""
    return [hop_line(row) for row in path_rows(path)]


def hop_line(row: Row) -> str:
    """Return `nat PREROUTING 1: -p tcp ... | dport 8445 -> 8443 | +1`."""
    place = " ".join(" ".join(row.lead).split())
    facts = [fact for fact in (row.rule, ", ".join(row.effect), row.counter) if fact]
    return f"{place}: {' | '.join(facts)}"


def mark(path: PacketPath) -> str:
    """Return the sign of a packet's fate: `>`, `x` or `?`."""
    return words.MARKS[path.outcome]


def fate_lines(path: PacketPath) -> list[str]:
    """Return a packet's fate, what its sender sees, the evidence, and what can be done."""
    return [f"{mark(path)} {fate_words(path)}", *(f"{label}: {text}" for label, text in why(path))]


def why(path: PacketPath, client: str | None = None) -> Iterator[tuple[str, str]]:
    """Yield every reason and remedy as (what it is, the text).

    `client` is what the client's call returned.
    """
    if client is not None:
        yield "client", clean_text(client_got(client))
    elif path.role is Role.PROBE and (sees := client_sees(path)):
        yield "client", sees
    diagnosis = path.diagnosis
    if diagnosis is not None:
        for each in diagnosis.evidence:
            yield "evidence", clean_text(f"{each.text} ({each.strength})")
        for other in diagnosis.unmatched:
            begun = f" since {hop}" if (hop := since(path, other)) else ""
            text = f"{other.rule} wants {other.criterion}, the packet has {other.actual}{begun}"
            yield "not matched", clean_text(text)
        yield from (("remedy", clean_text(remedy)) for remedy in diagnosis.remedy)
    yield from (("caution", caution) for caution in words.cautions(path))
