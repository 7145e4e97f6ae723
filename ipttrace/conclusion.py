"""What follows from all that a session took in: the packets' roles, their evidence and causes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ipttrace.correlate import Tally
from ipttrace.diagnose import Case, diagnose
from ipttrace.evidence import Scene
from ipttrace.fates import fate
from ipttrace.gathering import Gathering, Trails
from ipttrace.netfilter import RuleRef
from ipttrace.packet import Flow
from ipttrace.path import Outcome, PacketPath, Role
from ipttrace.result import TraceResult, TraceTotals
from ipttrace.roles import Sent, assign_roles
from ipttrace.ruleset import Counter
from ipttrace.timeline import with_evidence
from ipttrace.tracer import Tracer

_UNKNOWN = frozenset({Outcome.LOST, Outcome.INCOMPLETE})


def flows_of(tracers: Sequence[Tracer]) -> dict[int, tuple[Flow, ...]]:
    """Return every flow that each packet has had, by path id."""
    known: dict[int, tuple[Flow, ...]] = {}
    for tracer in tracers:
        known |= tracer.correlator.flows_of()
    return known


def trails_of(
    tracers: Sequence[Tracer], gathering: Gathering, paths: Sequence[PacketPath]
) -> Trails:
    """Return what the kernel's events say of each path."""
    numbers = {tracer.netns: number for number, tracer in enumerate(tracers)}
    return gathering.trails(numbers, paths)


@dataclass(frozen=True, slots=True)
class Conclusion:
    """All that a session took in, after its last packet."""

    tracers: Sequence[Tracer]
    gathering: Gathering
    sent: Sent
    changes: Sequence[Mapping[RuleRef, Counter]]
    """By how much the rules' counters rose, by tracer."""
    made_in: int | None = None
    """Which tracer's namespace the client is in, if in any."""

    def paths(self, ids: Iterator[int]) -> tuple[PacketPath, ...]:
        """Return all paths with their roles, evidence and diagnoses."""
        paths = [
            path
            for tracer, risen in zip(self.tracers, self.changes, strict=True)
            for path in tracer.correlator.paths(risen)
        ]
        named = assign_roles(paths, flows_of(self.tracers), self.sent, ids)
        if not self.gathering.asked:
            return tuple(self._diagnosed(path, named, Scene()) for path in named)
        scenes = {path.id: scene for path, scene in self._scenes(named)}
        whole = tuple(
            with_evidence(path, scenes[path.id], answers_to(path, named)) for path in named
        )
        return tuple(self._diagnosed(path, whole, scenes[path.id]) for path in whole)

    def _scenes(self, paths: Sequence[PacketPath]) -> Iterator[tuple[PacketPath, Scene]]:
        """Yield what was seen around each packet; the tables are asked for the probes alone."""
        trails = trails_of(self.tracers, self.gathering, paths)
        flows = flows_of(self.tracers)
        for path in paths:
            trail = trails.of(path)
            if path.role is not Role.PROBE:
                yield path, Scene(trail=trail, last=path.last_packet)
                continue
            if path.id not in flows:
                trail = self.gathering.unreported(path.journey - 1)
            seen = replace(path, outcome=fate(path, trail))
            scene = self.gathering.scene(seen, flows.get(path.id, ()), trail)
            if not path.hops and path.in_interface is None and not self._is_clients(path):
                # It never came here: what this namespace would do with it says nothing of it.
                scene = replace(scene, route=None, route_back=None, neighbour=None)
            yield path, scene

    def _is_clients(self, path: PacketPath) -> bool:
        """Tell whether the client runs in the namespace of a path."""
        return self.made_in is not None and self.tracers[self.made_in].netns == path.netns

    def _diagnosed(
        self, path: PacketPath, paths: tuple[PacketPath, ...], scene: Scene
    ) -> PacketPath:
        tracer = next(each for each in self.tracers if each.netns == path.netns)
        answers = answers_to(path, paths)
        case = Case(
            path,
            answers,
            self._got(path),
            tracer.correlator.ruleset,
            scene,
            paths,
            self._is_clients(path),
            logged=tracer.correlator.foreign,
        )
        return replace(path, diagnosis=diagnose(case))

    def _got(self, path: PacketPath) -> str | None:
        """Return what the client's call returned, where the packet had a client."""
        is_probe = path.role is Role.PROBE and self.sent.results
        return self.sent.results[path.journey - 1] if is_probe else None

    def result(self, paths: tuple[PacketPath, ...], seconds: float) -> TraceResult:
        """Return the paths with what there is to be said of all of them."""
        tally = self._tally()
        armed = [tracer.armed for tracer in self.tracers if tracer.armed is not None]
        known = flows_of(self.tracers).keys()
        seen = [path for path in paths if path.id in known]
        totals = TraceTotals(
            packets=len(seen),
            complete=sum(path.outcome not in _UNKNOWN for path in seen),
            lost_events=tally.lost,
            undecoded=tally.undecoded,
        )
        warnings = [warning for each in armed for warning in each.warnings]
        return TraceResult(
            paths=paths,
            totals=totals,
            client=self.sent.results,
            trigger=armed[0].trigger,
            backends=tuple(sorted({name for each in armed for name in each.backends})),
            warnings=(*dict.fromkeys(warnings), *_remarks(tally)),
            seconds=seconds,
            rulesets={tracer.netns: tracer.correlator.ruleset for tracer in self.tracers},
        )

    def _tally(self) -> Tally:
        tallies = [tracer.correlator.tally for tracer in self.tracers]
        names = ("lost", "undecoded", "foreign", "orphans")
        return Tally(*(sum(getattr(each, name) for each in tallies) for name in names))


def answers_to(path: PacketPath, paths: Sequence[PacketPath]) -> list[PacketPath]:
    """Return the paths of the packets that answer a path's packet."""
    return [other for other in paths if other.request == path.id]


def _remarks(tally: Tally) -> tuple[str, ...]:
    remarks = []
    if tally.foreign:
        remarks.append(
            f"{tally.foreign} log messages are not of these rules and packets and were left out: "
            "others log to the same place, or the rules were changed meanwhile"
        )
    if tally.orphans:
        remarks.append(f"{tally.orphans} reports belong to packets whose beginning was not seen")
    return tuple(remarks)
