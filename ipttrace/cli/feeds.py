"""What the screen shows: a probe or live packets, traced in the screen's worker thread.

What touches the kernel is imported there, too: the screen is painted before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ipttrace.path import PacketPath
from ipttrace.probe import ProbeSpec
from ipttrace.result import TraceResult, join_results
from ipttrace.ruleset import Ruleset
from ipttrace_tui.feed import RunState, Snapshot
from ipttrace_tui.packet_log import PacketLog

if TYPE_CHECKING:
    from ipttrace.cli.watch_request import Watch
    from ipttrace.watch import WatchSession

Publish = Callable[[Snapshot], None]
Cancelled = Callable[[], bool]
PACE = 0.1
"""Seconds between two snapshots of a watch, at least."""
RULES_ONLY = "no kernel evidence"
"""Of a run that asks neither tracepoints nor tables: every watch, and `--evidence none`."""


def rules_now(netns: str | None) -> Ruleset:
    """Return the rules of a namespace, by the name that the user gave; None is ours."""
    from ipttrace.system.namespaces import find_namespaces
    from ipttrace.system.rulesets import NamespaceRules

    [namespace] = find_namespaces((netns,) if netns is not None else ())
    return NamespaceRules(namespace).read()


class ProbeFeed:
    """One probe (an `ipttrace_tui.feed.Feed`)."""

    live = False

    def __init__(self, spec: ProbeSpec) -> None:
        self._spec = spec
        self.netns = tuple(spec.netns)
        self.title = f"{spec.protocol} {spec.dst}" + (f" port {spec.dport}" if spec.dport else "")

    def read_rules(self, netns: str | None) -> Ruleset:
        """Return the rules of a namespace as they are now."""
        return rules_now(netns)

    def run(self, publish: Publish, cancelled: Cancelled) -> None:
        """Trace the probe and publish what was found."""
        from ipttrace.cli.compose import trace_probe

        notes: list[str] = []
        missing = RULES_ONLY if self._spec.evidence == "none" else ""
        publish(Snapshot(missing=missing))

        def answer(found: TraceResult) -> None:
            publish(replace(running([found], "tidying up"), missing=missing))

        result = trace_probe(
            self._spec,
            answer=answer,
            note=notes.append,
            hint=notes.append,
            cancelled=cancelled,
        )
        whole = Snapshot.of(replace(result, warnings=(*notes, *result.warnings)))
        publish(replace(whole, missing=missing))


class WatchFeed:
    """Live packets, as `ipttrace watch` sees them; more come while they are looked at."""

    live = True

    def __init__(self, wanted: Watch) -> None:
        self._wanted = wanted
        self.netns = tuple(wanted.netns)
        rate = "no limit" if wanted.limit is None else f"{wanted.limit}/s"
        self.title = f"watch {wanted.filter_text or 'all packets'}, {rate}"

    def read_rules(self, netns: str | None) -> Ruleset:
        """Return the rules of a namespace as they are now."""
        return rules_now(netns)

    def run(self, publish: Publish, cancelled: Cancelled) -> None:
        """Watch until cancelled or a limit is reached."""
        from ipttrace.cli.watching import watch

        told = _Telling(self._wanted, publish)
        told.now("arming")

        def asked() -> bool:
            told.when_due()
            return cancelled()

        result, _ = watch(
            self._wanted, give=told.give, note=told.note, cancelled=asked, begun=told.begin
        )
        told.end(result)


@dataclass
class _Telling:
    """What a watch has told the screen."""

    wanted: Watch
    publish: Publish
    log: PacketLog = field(default_factory=PacketLog)
    notes: list[str] = field(default_factory=list)
    session: WatchSession | None = None
    last: float = 0.0

    def begin(self, session: WatchSession) -> None:
        """Ask this session how far it has come."""
        self.session = session

    def note(self, text: str) -> None:
        """Take a warning."""
        self.notes.append(text)

    def give(self, path: PacketPath) -> None:
        """Take a packet."""
        self.log.append(path)
        self.when_due()

    def when_due(self) -> None:
        """Publish unless it was done a moment ago."""
        if time.monotonic() - self.last >= PACE:
            self.now("")

    def now(self, message: str) -> None:
        """Publish what there is."""
        self.last = time.monotonic()
        self.publish(self._snapshot(self.session.so_far() if self.session else None, message))

    def end(self, result: TraceResult) -> None:
        """Publish what came of it."""
        self.publish(replace(self._snapshot(result, ""), state=RunState.FINISHED))

    def _snapshot(self, result: TraceResult | None, message: str) -> Snapshot:
        found = Snapshot.of(result) if result else Snapshot(trigger=self.wanted.trigger)
        return replace(
            found,
            paths=self.log.view(),
            state=RunState.RUNNING,
            message=message,
            warnings=tuple(dict.fromkeys((*self.notes, *found.warnings))),
            limit=self.wanted.limit,
            missing=RULES_ONLY,
        )


def running(results: list[TraceResult], message: str) -> Snapshot:
    """Return what is known so far of a run that goes on."""
    return replace(Snapshot.of(join_results(results)), state=RunState.RUNNING, message=message)
