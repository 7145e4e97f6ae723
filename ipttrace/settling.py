"""Whether a packet just sent has come to its end, and nothing more of it is to be waited for."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import count

from ipttrace.conclusion import answers_to, flows_of, trails_of
from ipttrace.fates import fate, full_listener
from ipttrace.gathering import Gathering, Trails
from ipttrace.packet import PacketSummary
from ipttrace.path import LEFT, Outcome, PacketPath, Role
from ipttrace.ports import Clock, ProbeClient
from ipttrace.roles import Sent, assign_roles
from ipttrace.takers import opens
from ipttrace.tracer import Tracer

QUIET = 0.2
"""Seconds without a report after which nothing more is expected."""

_DEAD = frozenset({Outcome.DROPPED, Outcome.REJECTED})
_ENDED = frozenset({Outcome.DROPPED, Outcome.REJECTED, Outcome.REFUSED})


class Settling:
    """Judges the packets of one session, one after the other."""

    def __init__(
        self,
        client: ProbeClient,
        tracers: Sequence[Tracer],
        gathering: Gathering,
        clock: Clock,
        *,
        injected: bool,
        contained: bool,
    ) -> None:
        self._client = client
        self._tracers = tracers
        self._gathering = gathering
        self._clock = clock
        self._injected = injected
        self._contained = contained
        self._first = [0] * len(tracers)
        """In each namespace, how many packets were seen before the one just sent."""
        self._refused_since = self._look_again = 0.0

    def begin(self) -> None:
        """Note that the next packet is about to be sent."""
        self._first = [tracer.correlator.begun for tracer in self._tracers]
        self._refused_since, self._look_again = 0.0, self._clock.monotonic() + QUIET

    def is_settled(self, index: int) -> bool:
        """Tell whether the client has its result, or the kernel said how the packet ended.

        An injected packet has no client: its way and its answers' ways must have ended.  `index`
        is the packet's in the order of sending.
        """
        if not self._injected and self._client.poll() is not None:
            return True
        concerned = self._recent(self._client.identities[index])
        if not concerned:
            trail = self._gathering.unreported(index)
            return trail is not None and bool(trail.drops)
        trails = trails_of(self._tracers, self._gathering, concerned)
        concerned = tuple(replace(p, outcome=fate(p, trails.of(p))) for p in concerned)
        return not self._is_under_way(concerned, trails) and self._is_over(concerned, trails)

    def _is_under_way(self, concerned: Sequence[PacketPath], trails: Trails) -> bool:
        """Tell whether more reports of any of the packets are to come."""
        if any(self._gathering.resolving(path, trails.of(path)) for path in concerned):
            return True
        pending = self._pending()
        return any(path.id in pending and path.outcome not in _ENDED for path in concerned)

    def _is_over(self, concerned: Sequence[PacketPath], trails: Trails) -> bool:
        """Tell whether the probe's fate is known, and no answer to it is still to come."""
        seen = [path for path in concerned if path.role is not Role.OBSERVED]
        if all(path.role is not Role.PROBE for path in seen):
            return False
        if not self._injected and self._is_told(seen):
            return False  # the client is about to hear of it: IPv6 may tell it by a second answer
        if any(path.outcome in _DEAD for path in seen):
            return True
        if self._injected:
            return self._contained or not self._is_awaited(seen)
        return self._is_unanswerable(seen, trails)

    def _is_told(self, seen: Sequence[PacketPath]) -> bool:
        """Tell whether an answer to the dead packet is on its way to the client.

        An error that meets the socket while connect() holds it is lost, and the next one counts.
        """
        replies = [path for path in seen if path.role is Role.REPLY]
        if any(path.outcome is Outcome.REJECTED for path in seen):
            return bool(replies)
        dead = any(path.outcome in _DEAD for path in seen if path.role is Role.PROBE)
        errors = [path for path in replies if path.packet.icmp is not None]
        return dead and any(path.outcome in LEFT for path in errors)

    def _is_awaited(self, seen: Sequence[PacketPath]) -> bool:
        """Tell whether a packet went out for another host whose answer may still come."""
        answered = {path.request for path in seen}
        probes = [path for path in seen if path.role is Role.PROBE]
        return probes[-1].outcome in LEFT and not answered & {path.id for path in probes}

    def _is_unanswerable(self, seen: Sequence[PacketPath], trails: Trails) -> bool:
        """Tell whether a real client waits in vain: its packet found no room, or no socket.

        A refusal's answer may be on its way to the client still: it has QUIET to arrive.
        """
        now = self._clock.monotonic()
        if any(path.outcome is Outcome.REFUSED for path in seen if path.role is Role.PROBE):
            self._refused_since = self._refused_since or now
            return now >= self._refused_since + QUIET
        if now < self._look_again:
            return False
        self._look_again = now + QUIET
        probe = [path for path in seen if path.role is Role.PROBE][-1]
        answers = answers_to(probe, seen)
        if probe.outcome is not Outcome.DELIVERED or not opens(probe.packet) or answers:
            return False
        scene = self._gathering.scene(probe, (), trails.of(probe))
        return full_listener(probe, scene, answers) is not None

    def _pending(self) -> AbstractSet[int]:
        """Return the ids of the packets of which more may come."""
        since = zip(self._tracers, self._first, strict=True)
        return frozenset().union(*(tracer.correlator.pending(first) for tracer, first in since))

    def _recent(self, identity: PacketSummary) -> tuple[PacketPath, ...]:
        """Return the probe and what has to do with it, as far as it was seen since."""
        paths = [
            path
            for tracer, first in zip(self._tracers, self._first, strict=True)
            for path in tracer.correlator.paths(first=first)
        ]
        known = {path.id for path in paths}
        named = assign_roles(
            paths, flows_of(self._tracers), Sent((identity,)), count(max(known, default=0) + 1)
        )
        return tuple(path for path in named if path.id in known)
