"""What a guardian changes in its namespace, each step noted for its undoing before it is done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ipttrace.errors import IptTraceError, KernelError, NotSupportedError, UsageError
from ipttrace.netfilter import PacketFamily
from ipttrace.packet import Flow
from ipttrace.request import Armed, Disarmed, TraceRequest, Trigger
from ipttrace.system import nft_rules
from ipttrace.system.bridge_arming import arm_bridges, as_ip_sees_it, counted_at_ingress
from ipttrace.system.bridges import Bridges, find_bridges
from ipttrace.system.early_arming import arm_early
from ipttrace.system.family_arming import FamilyArming
from ipttrace.system.held_table import HeldTable, Undo
from ipttrace.system.trace_rule import FASTEST_LIMIT
from ipttrace.system.triggers import Notify

IPV6 = Path("/proc/thread-self/net/if_inet6")
"""Absent in a kernel without IPv6."""


@dataclass(frozen=True, slots=True)
class Bequest:
    """A device, the frames to write to it, and the conntrack entries to delete after."""

    descriptor: int
    frames: Sequence[bytes]
    flows: Sequence[Flow]

    def carry_out(self) -> None:
        """Write, delete, and close the device; nothing of it may stop the rest."""
        try:
            for frame in self.frames:
                os.write(self.descriptor, frame)
            for flow in self.flows:
                _delete_entry(flow)
        except (OSError, IptTraceError) as error:
            raise KernelError(f"cannot end what the probe left: {error}") from error
        finally:
            os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class Counts:
    """What rules of ours have counted, tables and triggers together."""

    hits: int = 0
    due: int | None = 0
    """None where somebody did not count."""
    counted: bool = True
    """False if counts were taken away."""

    def __add__(self, other: Counts) -> Counts:
        known = self.due is not None and other.due is not None
        due = (self.due or 0) + (other.due or 0) if known else None
        return Counts(self.hits + other.hits, due, self.counted and other.counted)


class Arming:
    """The changes of one session in the namespace that this process has entered."""

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self._undo: list[Undo] = []
        self._sides: list[FamilyArming] = []
        self._tables: list[HeldTable] = []
        self._bequest: Bequest | None = None
        self._armed_once = False
        self._own_steps = 0
        """How many of the last steps to undo are those of `arm`."""
        self._earlier = Counts()
        """What was counted before all was armed anew."""

    def undo_last(self, step: Undo) -> None:
        """Note a step that is undone after all others."""
        self._undo.insert(0, step)

    def arm(self, request: TraceRequest) -> Armed:
        """Do all that `request` asks for; on an error nothing of it stays."""
        kept = list(self._undo)
        try:
            armed = self._arm(request)
        except BaseException:
            own, self._undo[:] = self._undo[len(kept) :], kept
            for step in reversed(own):
                self._attempt(step)
            self._sides, self._tables = [], []
            raise
        self._armed_once = True
        self._own_steps = len(self._undo) - len(kept)
        return armed

    def rearm(self, request: TraceRequest, *, whole: bool) -> Armed:
        """Set the triggers anew; if `whole`, take all back, and arm for `request`."""
        if not whole:
            armed = _joined([side.renew() for side in self._sides])
            return replace(armed, early=any(held.stands for held in self._tables[:1]))
        kept = len(self._undo) - self._own_steps
        own, self._undo[:] = self._undo[kept:], self._undo[:kept]
        problems = self._undone(own)
        self._own_steps = len(own)
        self._undo += own
        if problems:
            raise KernelError(f"cannot take back what is to be armed anew: {problems[0]}")
        self._earlier += self._counts()
        self._sides, self._tables = [], []
        return self.arm(request)

    def _arm(self, request: TraceRequest) -> Armed:
        has_nft = nft_rules.available()
        _refuse_impossible(request, has_nft=has_nft)
        bridges = find_bridges() if has_nft else Bridges()
        request = replace(request, counted_devices=counted_at_ingress(request, bridges))
        early, bridged = self._tables = [HeldTable(self._undo), HeldTable(self._undo)]
        warnings = arm_early(request, early) if has_nft else ()
        if not early.stands:
            request = replace(request, early_devices=(), counted_devices=(), early_hooks=())
        elif request.filter is not None:
            # What the raw rules would judge once more counted twice, and against two limits.
            request = replace(request, trigger=Trigger.OWNER)
        seen = as_ip_sees_it(request, bridges)
        self._sides = [
            FamilyArming(seen, family, has_nft=has_nft, notify=self._notify, undo=self._undo)
            for family in _families(request)
        ]
        armed = _joined([side.arm() for side in self._sides])
        warnings = (*warnings, *armed.warnings, *arm_bridges(request, bridges, bridged))
        return replace(armed, warnings=warnings, early=early.stands)

    def bequeath(self, bequest: Bequest) -> None:
        """Keep what is to be done before the rules go."""
        self.release()
        self._bequest = bequest

    def release(self) -> None:
        """Forget what was bequeathed."""
        if self._bequest is not None:
            os.close(self._bequest.descriptor)
            self._bequest = None

    def _carry_out(self) -> None:
        """Do what was bequeathed; nothing was sent before all was armed."""
        if not self._armed_once:
            self.release()
        bequest, self._bequest = self._bequest, None
        if bequest is not None:
            bequest.carry_out()

    def quiet(self) -> None:
        """Take the triggers back; what contains stays."""
        for side in self._sides:
            side.quiet()
        for held in self._tables:
            held.quiet()

    def take_back(self) -> Disarmed:
        """Undo every step in reverse; a step that fails stays noted for another try."""
        bequeathed = self._attempt(self._carry_out)
        said = [bequeathed] if bequeathed is not None else []
        said += self._undone(self._undo)
        found = [complaint for side in self._sides for complaint in side.complaints]
        counts = self._earlier + self._counts()
        warnings = (*found, *dict.fromkeys(said))
        return Disarmed(not said, counts.hits, warnings, counts.due, counts.counted)

    def _undone(self, steps: list[Undo]) -> list[str]:
        """Undo steps, the last one first; keep in the list those that fail, and return why."""
        problems: list[str] = []
        failed: list[Undo] = []
        for step in reversed(steps):
            problem = self._attempt(step)
            if problem is not None:
                problems.append(problem)
                failed.insert(0, step)
        steps[:] = failed
        return problems

    def _counts(self) -> Counts:
        """Return what was counted by what stands, or stood last."""
        tables = [Counts(held.hits, held.due) for held in self._tables]
        sides = [Counts(side.hits, side.due, not side.lost_counts) for side in self._sides]
        return sum([*tables, *sides], Counts(due=0 if sides else None))

    @property
    def finished(self) -> bool:
        """Whether nothing is left to undo."""
        return not self._undo

    @staticmethod
    def _attempt(step: Undo) -> str | None:
        try:
            step()
        except (IptTraceError, OSError) as error:
            return str(error)
        return None


def _families(request: TraceRequest) -> tuple[PacketFamily, ...]:
    """Return the families whose packets are asked for and that the kernel has."""
    if request.flow is not None:
        return (request.flow.family,)
    return tuple(PacketFamily) if IPV6.exists() else (PacketFamily.IPV4,)


def _joined(parts: list[Armed]) -> Armed:
    """Return what was armed in all families; their tables have one name."""
    return replace(
        parts[0],
        backends=frozenset(backend for part in parts for backend in part.backends),
        created=frozenset(chain for part in parts for chain in part.created),
        warnings=tuple(dict.fromkeys(warning for part in parts for warning in part.warnings)),
    )


def _refuse_impossible(request: TraceRequest, *, has_nft: bool) -> None:
    raw = request.trigger is Trigger.RAW
    if raw and request.limit is not None and request.limit > FASTEST_LIMIT:
        raise UsageError(
            f"cannot limit a TRACE rule to {request.limit} packets/s: "
            f"the kernel's limit match counts to {FASTEST_LIMIT}",
            "Use --limit none, or --trigger owner.",
        )
    if has_nft:
        return
    if request.trigger is Trigger.OWNER:
        raise NotSupportedError(
            "cannot use trigger owner: this kernel has no nf_tables", "Use --trigger raw."
        )
    if request.contain:
        raise NotSupportedError(
            "cannot keep the probe inside the namespace: this kernel has no nf_tables",
            "Let it out with --let-out.",
        )


def _delete_entry(flow: Flow) -> None:
    from ipttrace.system.conntrack import delete_entry

    delete_entry(flow)
