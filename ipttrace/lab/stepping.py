"""Lays what was expected of a packet beside what happened to it, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ipttrace.checks import Agreement, Step
from ipttrace.lab.comparing import (
    NOT_MET,
    client_differences,
    decides,
    meetings,
    path_differences,
    probe_paths,
    same_endpoint,
    translated,
)
from ipttrace.lab.expectation import Fields
from ipttrace.lab.hop_names import HopName
from ipttrace.path import ChainHop, Hop, PacketPath
from ipttrace.result import TraceResult

DECIDES = " decides"
NAMED = "named as the cause"

Note = tuple[Agreement, str]
"""What was expected at a hop, and whether it was so."""


def parting_ways(
    expect: Fields, netns: str | None, result: TraceResult
) -> tuple[tuple[Step, ...], ...]:
    """Return the expected beside the actual way of each packet that is not as expected."""
    client = tuple(client_differences(expect, result))
    return tuple(
        tuple(steps(expect, path, result.client))
        for path in probe_paths(netns, result)
        if client or any(True for _ in path_differences(expect, path))
    )


def steps(expect: Fields, path: PacketPath, client: Sequence[str] = ()) -> Iterator[Step]:
    """Yield the expected beside the actual way, from the first hop to the client's result."""
    notes, alone = _notes(expect, path)
    number = 0
    for hop in path.hops:
        if not isinstance(hop, ChainHop):
            yield Step(Agreement.FREE, hop=hop)
            continue
        yield from alone.get(number, ())
        yield _noted(hop, notes.get(number, []))
        number += 1
    yield from alone.get(number, ())
    yield from _ending(expect, path, client)


def _noted(hop: Hop, notes: Sequence[Note]) -> Step:
    if not notes:
        return Step(Agreement.FREE, hop=hop)
    parts = any(agreement is Agreement.PARTS for agreement, _ in notes)
    shown = [text for agreement, text in notes if not parts or agreement is Agreement.PARTS]
    said = [text for text in dict.fromkeys(shown) if f"{text}{DECIDES}" not in shown]
    return Step(Agreement.PARTS if parts else Agreement.MET, ", ".join(said), hop)


def _notes(expect: Fields, path: PacketPath) -> tuple[dict[int, list[Note]], dict[int, list[Step]]]:
    """Return what was expected at each chain hop, and what was expected before it in vain."""
    hops = path.chain_hops
    notes: dict[int, list[Note]] = {}
    alone: dict[int, list[Step]] = {}
    places = meetings(expect.crosses, hops)
    for index, (words, place) in enumerate(zip(expect.crosses, places, strict=True)):
        if place is not None:
            notes.setdefault(place, []).append((Agreement.MET, words))
            continue
        least = max((p + 1 for p in places[:index] if p is not None), default=0)
        most = next((p for p in places[index + 1 :] if p is not None), len(hops))
        _place(HopName.parse(words), words, hops, range(least, most), notes, alone)
    for words in expect.crosses_not:
        wanted = HopName.parse(words)
        for place, hop in enumerate(hops):
            if wanted.matches(hop):
                notes.setdefault(place, []).append((Agreement.PARTS, f"no {words}"))
    if expect.rule is not None:
        _decision(expect.rule, path, notes, alone)
    return notes, alone


def _place(
    wanted: HopName,
    words: str,
    hops: Sequence[ChainHop],
    between: range,
    notes: dict[int, list[Note]],
    alone: dict[int, list[Step]],
) -> None:
    """Set what is missing beside a hop of its own chain, else on a line of its own."""
    place = next((i for i in between if wanted.in_chain(hops[i])), None)
    if place is not None:
        notes.setdefault(place, []).append((Agreement.PARTS, words))
    else:
        alone.setdefault(between.stop, []).append(
            Step(Agreement.PARTS, words, topic="-", actual=NOT_MET)
        )


def _decision(
    words: str,
    path: PacketPath,
    notes: dict[int, list[Note]],
    alone: dict[int, list[Step]],
) -> None:
    wanted, hops = HopName.parse(words), path.chain_hops
    if decides(wanted, path):
        places = [place for place, hop in enumerate(hops) if wanted.matches(hop)]
        for place in places[-1:]:
            notes.setdefault(place, []).append((Agreement.MET, f"{words}{DECIDES}"))
        if not places:
            step = Step(Agreement.MET, f"{words}{DECIDES}", topic="rule", actual=NAMED)
            alone.setdefault(len(hops), []).append(step)
        return
    same = [place for place, hop in enumerate(hops) if wanted.in_chain(hop)]
    place = same[-1] if same else len(hops) - 1
    if place >= 0:
        notes.setdefault(place, []).append((Agreement.PARTS, f"{words}{DECIDES}"))
    else:
        alone.setdefault(0, []).append(Step(Agreement.PARTS, f"{words}{DECIDES}", topic="-"))


def _ending(expect: Fields, path: PacketPath, client: Sequence[str]) -> Iterator[Step]:
    cause = path.diagnosis.cause if path.diagnosis else "none"
    yield _said("outcome", expect.outcome, path.outcome)
    if expect.cause is not None:
        yield _said("cause", expect.cause, cause)
    if expect.nat is not None:
        actual = translated(path)
        for field in ("source", "destination"):
            wanted, got = getattr(expect.nat, field), getattr(actual, field)
            if wanted is not None:
                met = same_endpoint(wanted, got)
                agreement = Agreement.MET if met else Agreement.PARTS
                yield Step(agreement, wanted, topic=field, actual=got)
    if expect.client is not None:
        words = sorted(set(client)) or ["nothing"]
        yield _said("client", expect.client, ", ".join(words))


def _said(topic: str, wanted: str | None, got: str) -> Step:
    if wanted is None:
        return Step(Agreement.FREE, topic=topic, actual=got)
    agreement = Agreement.MET if wanted == got else Agreement.PARTS
    return Step(agreement, wanted, topic=topic, actual=got)
