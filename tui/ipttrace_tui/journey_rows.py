"""The legs of one packet's way through several namespaces, and of the answer to it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from ipttrace.decode.text import clean_text
from ipttrace.path import LEFT, PacketPath, Role, WireHop
from ipttrace.render.picture import Line, Look, Picture, Segment
from ipttrace_tui.view_model import OUTCOMES, Tone, packet_title


@dataclass(frozen=True, slots=True)
class LegRow:
    """One namespace that the packet came through."""

    path: PacketPath
    number: str
    """`leg 2`, `answer 1`."""
    where: str
    came: str
    """`in on eth0`, or that it was made there."""
    fate: str
    tone: Tone


NEAR = 300
"""Packets before and after one in which its other legs are looked for."""


def around(paths: Sequence[PacketPath], selected: PacketPath | None) -> Sequence[PacketPath]:
    """Return the packets among which the legs of `selected` are: all, of a long log its part.

    Ids rise, so that its place is found without unpacking the log.
    """
    if selected is None or len(paths) <= 2 * NEAR:
        return paths
    place = bisect_left(range(len(paths)), selected.id, key=lambda index: paths[index].id)
    return paths[max(0, place - NEAR) : place + NEAR]


def legs(paths: Sequence[PacketPath], selected: PacketPath | None) -> list[LegRow]:
    """Return the legs of the journey that the selected packet is on, then those of its answer.

    If the selected packet is an answer, the journey is that of the packet it answers.
    """
    if selected is None:
        return []
    asked = next((p for p in paths if p.id == selected.request), None)
    first = asked if selected.role is Role.REPLY and asked is not None else selected
    ways = _journey(paths, first.journey)
    ids = {path.id for path in ways}
    answers = {path.journey for path in paths if path.request in ids} - {first.journey}
    return [
        *(_row(path, "leg") for path in ways),
        *(_row(path, "answer") for number in sorted(answers) for path in _journey(paths, number)),
    ]


def _journey(paths: Sequence[PacketPath], number: int) -> list[PacketPath]:
    return sorted((path for path in paths if path.journey == number), key=lambda path: path.leg)


def _row(path: PacketPath, word: str) -> LegRow:
    glyph, tone = OUTCOMES[path.outcome]
    came = f"in on {clean_text(path.in_interface)}" if path.in_interface else "made here"
    out = _way_out(path)
    fate = f"{glyph} {path.fate}{f' by {out}' if out else ''}"
    where = clean_text(path.netns or "this namespace")
    return LegRow(path, f"{word} {path.leg}", where, came, fate, tone)


def _way_out(path: PacketPath) -> str:
    if path.outcome not in LEFT:
        return ""
    sent = [hop.interface for hop in path.hops if isinstance(hop, WireHop) and hop.event == "sent"]
    return clean_text(path.out_interface or (sent[-1] if sent and sent[-1] else ""))


def link_picture(before: LegRow | None, row: LegRow, here: bool) -> Picture:
    """Return the lines between two legs: the wire, then the namespace and what came of it there."""
    lines: list[Line] = []
    if before is not None:
        joined = before.path.journey == row.path.journey
        wire = f"   ┃ {_way_out(before.path)} → {clean_text(row.path.in_interface or '?')}"
        lines += [(Segment(wire, Look.LIT),), (Segment("   ▼", Look.LIT),)] if joined else [()]
    name = Look.SELECTED if here else Look.PLAIN
    mark = "▸ " if here else "  "
    look = {Tone.GOOD: Look.LIT, Tone.BAD: Look.DEAD}.get(row.tone, Look.CHANGED)
    head = f"{mark}{row.number}  {row.where}  {row.came}  "
    lines.append((Segment(head, name), Segment(row.fate, look)))
    return Picture(tuple(lines))


def subject(rows: Sequence[LegRow]) -> str:
    """Return what the picture is about."""
    return packet_title(rows[0].path) if rows else ""
