"""What one run found out, and several runs as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from ipttrace.path import PacketPath
from ipttrace.ruleset import Ruleset


@dataclass(frozen=True, slots=True)
class TraceTotals:
    """How much of what was traced is accounted for."""

    hits: int = 0
    """What the trigger chains counted."""
    packets: int = 0
    complete: int = 0
    lost_events: int = 0
    undecoded: int = 0


@dataclass(frozen=True, slots=True)
class TraceResult:
    """All that one run found out."""

    paths: tuple[PacketPath, ...]
    totals: TraceTotals
    client: tuple[str, ...] = ()
    """What the client's call returned, one word a packet; empty when injected."""
    trigger: str = "raw"
    backends: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    clean: bool = True
    seconds: float = 0.0
    rulesets: Mapping[str | None, Ruleset] = field(default_factory=dict, compare=False)
    """The rules that the packets met, by namespace."""


def join_results(results: Sequence[TraceResult]) -> TraceResult:
    """Return several runs as one: ids and journeys count on from run to run."""
    if not results:
        return TraceResult((), TraceTotals())
    paths: list[PacketPath] = []
    for result in results:
        ids = max((path.id for path in paths), default=0)
        journeys = max((path.journey for path in paths), default=0)
        paths += [shifted(path, ids, journeys) for path in result.paths]
    totals = [result.totals for result in results]
    return replace(
        results[-1],
        paths=tuple(paths),
        totals=TraceTotals(
            *(sum(getattr(each, one.name) for each in totals) for one in fields(TraceTotals))
        ),
        client=tuple(word for result in results for word in result.client),
        backends=tuple(sorted({name for result in results for name in result.backends})),
        warnings=tuple(dict.fromkeys(each for result in results for each in result.warnings)),
        clean=all(result.clean for result in results),
        seconds=sum(result.seconds for result in results),
        rulesets={netns: each for result in results for netns, each in result.rulesets.items()},
    )


def shifted(path: PacketPath, ids: int, journeys: int) -> PacketPath:
    """Return a path whose numbers follow those of earlier runs."""
    request = path.request + ids if path.request is not None else None
    return replace(path, id=path.id + ids, journey=path.journey + journeys, request=request)
