"""What stands in a namespace for one request and one IP version: our table, and raw triggers."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import replace

from ipttrace.errors import NotSupportedError
from ipttrace.netfilter import Backend, ChainRef, PacketFamily
from ipttrace.request import Armed, TraceRequest, Trigger
from ipttrace.system import legacy_rules
from ipttrace.system.held_table import HeldTable, Undo
from ipttrace.system.nft_filtering import errors_about
from ipttrace.system.owner_table import OwnerTable
from ipttrace.system.trace_rule import filter_rules, reply_rules, trace_rule
from ipttrace.system.triggers import LegacyTrigger, NftTrigger, Notify, RawTrigger

NO_ERRORS = (
    "ICMP errors about packets of the filter are not traced ({family}): "
    "it asks for lengths, or is too long for the kernel"
)
ONE_WAY = "the filter swapped is too long for the kernel: packets of the other direction"
NOT_TRACED = "answers that the filter does not match are not traced ({family}): {reason}"


class FamilyArming:
    """One IP version of a request; each step is noted for its undoing before it is done."""

    def __init__(
        self,
        request: TraceRequest,
        family: PacketFamily,
        *,
        has_nft: bool,
        notify: Notify,
        undo: list[Undo],
    ) -> None:
        self._request, self._warnings = _narrowed(request, family, has_nft=has_nft)
        self._family = family
        self._has_nft = has_nft
        self._notify = notify
        self._undo = undo
        self._triggers: list[RawTrigger] = []
        self._own = HeldTable(undo)
        self._raw_hits: dict[Backend, int] = {}
        self._created: dict[Backend, frozenset[ChainRef]] = {}
        """The chains that exist only because a trigger of ours needed them."""
        self.complaints: list[str] = []
        """What was found wrong when the triggers were taken back."""
        self._lost_counts = False

    @property
    def hits(self) -> int:
        """How many packets the triggers met; one that met those of both backends counts once."""
        return self._own.hits + max(self._raw_hits.values(), default=0)

    @property
    def lost_counts(self) -> bool:
        """Whether somebody took triggers away, and what they had counted."""
        return self._lost_counts or bool(self.complaints)

    @property
    def due(self) -> int | None:
        """How many packets the filter took, traced or not; None where nobody counted."""
        counted = self._has_nft and self._request.filter is not None and self._request.counts_due
        return max(0, self._own.due) if counted else None

    def arm(self) -> Armed:
        """Do all that the request asks for in this family."""
        if self._request.trigger is Trigger.OWNER:
            return self._armed(Trigger.OWNER, self._own_table(), frozenset(), frozenset())
        if self._has_two_limits():
            try:
                return self._armed_by_table()
            except NotSupportedError:  # then the raw rules do what they can
                self._request = replace(self._request, trigger=Trigger.RAW)
        own_table = self._own_table() if self._has_nft else None
        self._undo.append(self.remove_triggers)
        problems = self._raw_triggers(())
        self._warnings += map(str, problems)
        backends = frozenset(trigger.backend for trigger in self._triggers)
        if backends:
            self._own.count_due_anew()
            return self._armed(Trigger.RAW, own_table, backends, self._all_created())
        if not self._has_nft:
            raise problems[0]
        self._own.close()
        self._warnings.append("tracing with a table of our own instead of raw")
        return self._armed_by_table()

    def renew(self) -> Armed:
        """Set the raw triggers anew, some of which somebody took away; the table counts on."""
        table = self._own.table
        if self._request.trigger is Trigger.OWNER:
            return self._armed(Trigger.OWNER, table, frozenset(), frozenset())
        intact = [trigger for trigger in self._triggers if trigger.stands()]
        self._triggers = [trigger for trigger in self._triggers if trigger not in intact]
        try:
            # What a rule counts between the reading of its counter and its end is lost, too.
            self._lost_counts = self.lost_counts or bool(self._triggers)
            self.remove_triggers()
            self.complaints.clear()
            problems = self._raw_triggers({each.backend for each in intact})
        finally:
            self._triggers += intact
        backends = frozenset(trigger.backend for trigger in self._triggers)
        if not backends:
            raise problems[0]
        return self._armed(Trigger.RAW, table, backends, self._all_created())

    def _has_two_limits(self) -> bool:
        """Tell whether raw rules would stand in two engines, each with a limit of its own.

        A packet that one of them leaves out the other may trace: more than the limit, uncounted.
        """
        both = len(self._backends()) > 1
        return both and self._request.filter is not None and self._request.limit is not None

    def _armed_by_table(self) -> Armed:
        """Let our table trace, though raw was asked for."""
        self._request = replace(self._request, trigger=Trigger.OWNER)
        own_table = self._own_table()
        self._own.count_due_anew()
        return self._armed(Trigger.OWNER, own_table, frozenset(), frozenset())

    def _armed(
        self,
        trigger: Trigger,
        own_table: OwnerTable | None,
        backends: frozenset[Backend],
        created: frozenset[ChainRef],
    ) -> Armed:
        if own_table is None and self._request.replies:
            no_nat = "replies are traced by address: not through NAT (no nf_tables)"
            self._warnings.append(no_nat)
        standing = frozenset({Backend.NFT}) if trigger is Trigger.OWNER else backends
        table = own_table.table if own_table else None
        return Armed(trigger, standing, created, table, tuple(self._warnings))

    def _own_table(self) -> OwnerTable:
        """Make our table; without what matches a filter in it, if the kernel cannot do that."""
        request = self._request
        try:
            return self._made(request)
        except NotSupportedError as error:
            if request.filter is None or request.trigger is Trigger.OWNER:
                raise
            made = self._made(replace(request, replies=False, counts_due=False))
            self._request = replace(request, counts_due=False)
            if request.replies and request.conntrack_active:
                self._warnings.append(NOT_TRACED.format(family=self._family, reason=error))
            return made

    def _made(self, request: TraceRequest) -> OwnerTable:
        table = OwnerTable(request, conntrack_active=request.conntrack_active, family=self._family)
        self._own.make(table)
        return table

    def _raw_triggers(self, standing: Collection[Backend]) -> list[NotSupportedError]:
        """Set a trigger in each backend asked for where none is `standing`.

        Returns what is not to be had.
        """
        problems: list[NotSupportedError] = []
        for trigger in self._wanted():
            if trigger.backend in standing:
                continue
            try:
                self._created[trigger.backend] = self._set(trigger)
            except NotSupportedError as error:
                problems.append(error)
        return problems

    def _all_created(self) -> frozenset[ChainRef]:
        return frozenset(ref for refs in self._created.values() for ref in refs)

    def _wanted(self) -> Iterator[RawTrigger]:
        request, now = self._request, time.time()
        if request.filter is not None:
            rules = filter_rules(request, self._family, now)
        else:
            rules = (trace_rule(request, now),)
        backends = self._backends()
        if Backend.LEGACY in backends:
            by_address = request.replies and not self._has_nft and request.filter is None
            yield LegacyTrigger(
                [*rules, *(reply_rules(rules[0]) if by_address else ())], self._notify
            )
        if Backend.NFT in backends:
            yield NftTrigger(rules)

    def _backends(self) -> frozenset[Backend]:
        """Return where the triggers are to stand.

        A filter's request names the backends of both families; a legacy table that is in use for
        one of them only is not made for the other, because it could not be deleted.
        """
        if not self._has_nft:
            return frozenset({Backend.LEGACY})
        wanted = self._request.backends
        if self._request.filter is not None and not legacy_rules.tables(self._family):
            wanted -= {Backend.LEGACY}
        return wanted or frozenset({Backend.NFT})

    def _set(self, trigger: RawTrigger) -> frozenset[ChainRef]:
        """Set one trigger, if need be without a match whose module is absent."""
        try:
            return self._try(trigger)
        except NotSupportedError as first:
            for weaker, lost in trigger.weaker():
                try:
                    created = self._try(weaker)
                except NotSupportedError:
                    continue
                self._notify(lost)
                return created
            raise first from None

    def _try(self, trigger: RawTrigger) -> frozenset[ChainRef]:
        """Set a trigger; one that is refused as a whole is not noted for removal."""
        self._triggers.append(trigger)
        try:
            return trigger.set()
        except NotSupportedError:
            self._triggers.remove(trigger)
            raise

    def quiet(self) -> None:
        """Take the triggers back; what contains stays."""
        self._own.quiet()  # first, as what it counts as due would no longer be traced
        self.remove_triggers()

    def remove_triggers(self) -> None:
        """Take the raw triggers back, and keep their counts."""
        while self._triggers:
            trigger = self._triggers[-1]
            removed = trigger.remove()
            self._triggers.pop()
            before = self._raw_hits.get(trigger.backend, 0)
            self._raw_hits[trigger.backend] = before + removed.hits
            self.complaints += removed.warnings


def _narrowed(
    request: TraceRequest, family: PacketFamily, *, has_nft: bool
) -> tuple[TraceRequest, list[str]]:
    """Return what a request comes to for one family, and what cannot be had.

    Where connections are not tracked, or cannot be asked for, answers are what the filter matches
    the other way round.
    """
    if request.filter is None:
        return request, []
    tracked = has_nft and request.conntrack_active and family not in request.untracked
    if tracked or not request.replies:
        return replace(request, conntrack_active=tracked), []
    program = request.filter.both_ways
    warnings = [] if program else [NOT_TRACED.format(family=family, reason=ONE_WAY)]
    if has_nft and not errors_about(request.filter, family):
        warnings.append(NO_ERRORS.format(family=family))
    both = replace(request.filter, program=program or request.filter.program)
    return replace(request, conntrack_active=False, filter=both), warnings
