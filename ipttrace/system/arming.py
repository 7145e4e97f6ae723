"""What a guardian changes in its namespace, each step noted for its undoing before it is done."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ipttrace.errors import IptTraceError, KernelError, NotSupportedError
from ipttrace.netfilter import Backend, ChainRef
from ipttrace.packet import Flow
from ipttrace.ports import Armed, Disarmed, TraceRequest, Trigger
from ipttrace.system import nft_rules
from ipttrace.system.owner_table import OwnerTable
from ipttrace.system.trace_rule import reply_rules, trace_rule
from ipttrace.system.triggers import NO_TIME, LegacyTrigger, NftTrigger, Notify, RawTrigger

Undo = Callable[[], None]


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


class Arming:
    """The changes of one session in the namespace that this process has entered."""

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self._undo: list[Undo] = []
        self._triggers: list[RawTrigger] = []
        self._owner: OwnerTable | None = None
        self._bequest: Bequest | None = None
        self._armed_once = False
        self._hits = 0
        self._warnings: list[str] = []

    def undo_last(self, step: Undo) -> None:
        """Note a step that is undone after all others."""
        self._undo.insert(0, step)

    def arm(self, request: TraceRequest) -> Armed:
        """Do all that `request` asks for; on an error nothing of it stays."""
        kept = list(self._undo)
        try:
            armed = self._arm(request)
        except BaseException:
            own, self._undo = self._undo[len(kept) :], kept
            for step in reversed(own):
                self._attempt(step)
            self._triggers, self._owner, self._hits, self._warnings = [], None, 0, []
            raise
        self._armed_once = True
        return armed

    def _arm(self, request: TraceRequest) -> Armed:
        has_nft = nft_rules.available()
        _refuse_impossible(request, has_nft=has_nft)
        if request.trigger is Trigger.OWNER:
            return self._armed(request, self._own_table(request), frozenset(), frozenset(), ())
        own_table = self._own_table(request) if has_nft else None
        backends, created, problems = self._raw_triggers(request, has_nft=has_nft)
        warnings = tuple(str(problem) for problem in problems)
        if backends:
            return self._armed(request, own_table, backends, created, warnings)
        if not has_nft:
            raise problems[0]
        self._close_owner()
        instead = replace(request, trigger=Trigger.OWNER)
        warnings = (*warnings, "tracing with a table of our own instead of raw")
        return self._armed(instead, self._own_table(instead), frozenset(), frozenset(), warnings)

    def _armed(
        self,
        request: TraceRequest,
        own_table: OwnerTable | None,
        backends: frozenset[Backend],
        created: frozenset[ChainRef],
        warnings: tuple[str, ...],
    ) -> Armed:
        if own_table is None and request.replies:
            warnings = (*warnings, "replies are traced by address: not through NAT (no nf_tables)")
        standing = frozenset({Backend.NFT}) if request.trigger is Trigger.OWNER else backends
        table = own_table.table if own_table else None
        return Armed(request.trigger, standing, created, table, warnings)

    def _own_table(self, request: TraceRequest) -> OwnerTable:
        self._owner = OwnerTable(request, conntrack_active=request.conntrack_active)
        self._undo.append(self._close_owner)
        self._owner.create()
        return self._owner

    def _close_owner(self) -> None:
        owner, self._owner = self._owner, None
        if owner is None:
            return
        try:
            self._hits += owner.hits()
        finally:
            owner.close()

    def _raw_triggers(
        self, request: TraceRequest, *, has_nft: bool
    ) -> tuple[frozenset[Backend], frozenset[ChainRef], list[NotSupportedError]]:
        """Set a trigger in each backend asked for; return where they stand, and what is not had."""
        created: frozenset[ChainRef] = frozenset()
        problems: list[NotSupportedError] = []
        self._undo.append(self._remove_triggers)
        for trigger in self._wanted(request, has_nft=has_nft):
            try:
                created |= self._set(trigger)
            except NotSupportedError as error:
                problems.append(error)
        return frozenset(t.backend for t in self._triggers), created, problems

    def _wanted(self, request: TraceRequest, *, has_nft: bool) -> list[RawTrigger]:
        rule = trace_rule(request, time.time())
        wanted: list[RawTrigger] = []
        default = frozenset({Backend.NFT if has_nft else Backend.LEGACY})
        backends = request.backends or default
        if Backend.LEGACY in backends or not has_nft:
            replies = reply_rules(rule) if request.replies and not has_nft else ()
            wanted.append(LegacyTrigger([rule, *replies], self._notify))
        if Backend.NFT in backends and has_nft:
            wanted.append(NftTrigger(rule))
        return wanted

    def _set(self, trigger: RawTrigger) -> frozenset[ChainRef]:
        """Set one trigger; once more without its time limit if a module for that is absent."""
        self._triggers.append(trigger)
        try:
            return trigger.set()
        except NotSupportedError as first:
            self._triggers.remove(trigger)
            return self._set_without_limit(trigger.without_limit(), first)

    def _set_without_limit(
        self, trigger: RawTrigger, first: NotSupportedError
    ) -> frozenset[ChainRef]:
        self._triggers.append(trigger)
        try:
            created = trigger.set()
        except NotSupportedError:
            self._triggers.remove(trigger)
            raise first from None
        self._notify(NO_TIME.format(backend=trigger.backend))
        return created

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
        self._remove_triggers()
        if self._owner is not None:
            self._owner.quiet()

    def _remove_triggers(self) -> None:
        while self._triggers:
            removed = self._triggers[-1].remove()
            self._triggers.pop()
            self._hits += removed.hits
            self._warnings += removed.warnings

    def take_back(self) -> Disarmed:
        """Undo every step in reverse; a step that fails stays noted for another try."""
        problems = [self._attempt(self._carry_out)]
        failed: list[Undo] = []
        for step in reversed(self._undo):
            problem = self._attempt(step)
            if problem is not None:
                problems.append(problem)
                failed.insert(0, step)
        self._undo = failed
        said = [problem for problem in problems if problem is not None]
        return Disarmed(not said, self._hits, (*self._warnings, *dict.fromkeys(said)))

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


def _refuse_impossible(request: TraceRequest, *, has_nft: bool) -> None:
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
