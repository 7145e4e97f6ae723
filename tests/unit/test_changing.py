"""Rules that somebody changes: which held when a batch of reports was made."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from itertools import count

import pytest

from ipttrace.changing import PATIENCE, REFRESH, ChangingRules, same_rules
from ipttrace.correlate import Correlator
from ipttrace.decode.iptables_save import decode_iptables_save
from ipttrace.errors import KernelError
from ipttrace.event import TraceEvent, TraceKind
from ipttrace.netfilter import (
    Backend,
    Basis,
    ChainRef,
    Hook,
    PacketFamily,
    TableFamily,
    Verdict,
)
from ipttrace.report import Locator
from ipttrace.ruleset import Chain, Rule, Ruleset
from tests.fakes import FakeClock
from tests.recordings import read_recording
from tests.transcripts import events_of


def rules(*lines: str, backend: Backend = Backend.LEGACY, policy: str = "ACCEPT") -> Ruleset:
    text = "\n".join(["*filter", f":INPUT {policy} [0:0]", *lines, "COMMIT"])
    return decode_iptables_save(text + "\n", backend, TableFamily.IP)


ACCEPTS = rules("-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT")
DROPS = rules("-A INPUT -p tcp -m tcp --dport 80 -j DROP")


@dataclass
class Reader:
    """Rules that the test changes."""

    ruleset: Ruleset = ACCEPTS
    generation: int = 1
    readings: int = 0
    on_reading: list[Ruleset] = field(default_factory=list)
    """What somebody changes them to while they are read."""

    failure: KernelError | None = None

    def change(self, ruleset: Ruleset) -> None:
        self.ruleset, self.generation = ruleset, self.generation + 1

    def watch(self) -> Reader:
        return self

    def now(self) -> Hashable:
        return self.generation

    def close(self) -> None:
        """Nothing is open."""

    def read(self, family: PacketFamily | None = None) -> Ruleset:
        self.readings += 1
        if self.failure is not None:
            raise self.failure
        found = self.ruleset
        if self.on_reading:
            self.change(self.on_reading.pop(0))
        return found

    def backends(self, family: PacketFamily | None) -> frozenset[Backend]:
        return self.ruleset.backends()

    def interfaces(self) -> Mapping[int, str]:
        return {}

    def bridges(self) -> Mapping[int, int]:
        return {}

    def conntrack_entries(self) -> int:
        return 0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_rules_that_stay_are_read_once(clock: FakeClock) -> None:
    reader = Reader()
    changing = ChangingRules(reader, None, clock)
    for _ in range(10):
        settled = changing.settle()
        assert settled is not None
        assert (settled.ruleset, settled.read_anew) == (ACCEPTS, False)
    assert (reader.readings, changing.changes, changing.first_change) == (1, 0, None)


def test_a_change_is_known_before_anything_is_looked_up(clock: FakeClock) -> None:
    reader = Reader()
    changing = ChangingRules(reader, None, clock)
    clock.time += REFRESH
    reader.change(DROPS)
    settled = changing.settle()
    assert settled is not None
    assert (settled.ruleset, settled.read_anew, settled.changed) == (DROPS, True, True)
    assert (changing.changes, changing.first_change) == (1, clock.time)


def test_reports_wait_while_rules_change_too_often_to_be_read(clock: FakeClock) -> None:
    reader = Reader()
    changing = ChangingRules(reader, None, clock)
    reader.change(DROPS)
    assert changing.settle() is not None
    reader.change(rules())
    assert changing.settle() is None
    assert reader.readings == 2
    clock.time += REFRESH
    assert changing.settle() is not None


def test_rules_that_cannot_be_read_just_now_are_tried_again(clock: FakeClock) -> None:
    reader = Reader()
    changing = ChangingRules(reader, None, clock)
    reader.change(DROPS)
    reader.failure = KernelError("cannot read the rules")
    assert changing.settle() is None
    clock.time += PATIENCE + REFRESH
    with pytest.raises(KernelError):
        changing.settle()
    reader.failure = None
    assert changing.settle(at_once=True) is not None


def test_rules_that_change_while_they_are_read_are_read_again(clock: FakeClock) -> None:
    reader = Reader()
    changing = ChangingRules(reader, None, clock)
    clock.time += REFRESH
    reader.change(rules())
    reader.on_reading = [DROPS]
    assert changing.settle() is None
    clock.time += REFRESH
    settled = changing.settle()
    assert settled is not None
    assert settled.ruleset == DROPS


def test_rules_that_never_rest_are_taken_as_read_in_the_end(clock: FakeClock) -> None:
    reader = Reader()
    changing = ChangingRules(reader, None, clock)
    reader.change(DROPS)
    reader.on_reading = [rules()] * 10
    waits = 0
    while changing.settle() is None:
        clock.time += REFRESH
        waits += 1
    assert waits <= PATIENCE + 2


def test_a_change_of_no_rule_is_none(clock: FakeClock) -> None:
    """Sets have elements, another session comes and goes, a rule is replaced by its equal."""
    reader = Reader()
    changing = ChangingRules(reader, None, clock)
    clock.time += REFRESH
    reader.change(rules("-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT"))
    settled = changing.settle()
    assert settled is not None
    assert (settled.read_anew, settled.changed, changing.changes) == (True, False, 0)


def test_policies_are_rules_too() -> None:
    assert not same_rules(rules(), rules(policy="DROP"))
    assert same_rules(rules(), Ruleset()), "an empty chain decides nothing"
    assert not same_rules(ACCEPTS, DROPS)


# ------------------------------------------------------------- reports from before or after


def report(number: int, backend: Backend = Backend.LEGACY, handle: int | None = None) -> TraceEvent:
    return TraceEvent(
        time=1.0,
        backend=backend,
        table_family=TableFamily.IP,
        table="filter",
        chain="INPUT",
        kind=TraceKind.RULE,
        hook=Hook.INPUT,
        number=number,
        handle=handle,
        verdict=Verdict.DROP if backend is Backend.NFT else None,
    )


def test_a_report_that_may_be_of_two_rules_names_none() -> None:
    station = Locator(DROPS, frozenset(), earlier=ACCEPTS).locate(report(1))
    assert station is not None
    assert (station.rule, station.verdict, station.basis) == (None, None, Basis.UNKNOWN)
    assert station.replaced


def test_a_report_that_only_one_of_the_rulesets_can_have_made_is_its() -> None:
    station = Locator(DROPS, frozenset(), earlier=rules()).locate(report(1))
    assert station is not None
    assert (station.verdict, station.replaced) == (Verdict.DROP, False)


def test_a_report_that_means_the_same_in_both_is_certain() -> None:
    both = rules("-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT", "-A INPUT -j DROP")
    station = Locator(both, frozenset(), earlier=ACCEPTS).locate(report(1))
    assert station is not None
    assert (station.verdict, station.replaced) == (Verdict.ACCEPT, False)


def test_a_handle_that_neither_has_is_a_rule_that_went() -> None:
    nft = rules(backend=Backend.NFT)
    station = Locator(nft, frozenset(), earlier=nft).locate(report(1, Backend.NFT, 99))
    assert station is not None
    assert (station.rule, station.verdict, station.replaced) == (None, Verdict.DROP, True)


@pytest.mark.parametrize(
    ("table", "doubtful"), [("filter", True), ("mangle", True), ("elsewhere", False)]
)
def test_only_what_met_a_table_that_was_changed_is_in_doubt(table: str, doubtful: bool) -> None:
    """On a host whose rules change all the time most packets meet none of those."""
    recording = read_recording("legacy4-walk")
    ref = ChainRef(Backend.LEGACY, TableFamily.IP, table, "another")
    rule = Rule(ref, 1, 1, "-A another -j DROP", "DROP")
    correlator = Correlator(recording.ruleset, ids=count(1))
    correlator.use(recording.ruleset | Ruleset({ref: Chain(ref, (rule,))}))
    for event in events_of(recording):
        correlator.feed(event)
    paths = correlator.paths()
    assert len(paths) == 7
    met = [table in {hop.chain.table for hop in path.chain_hops} for path in paths]
    assert [path.rules_changed for path in paths] == met
    assert any(met) is doubtful
