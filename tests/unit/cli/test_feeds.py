"""What a watch tells the screen: not too often, everything at the end, and what it cannot see."""

from __future__ import annotations

from ipttrace.cli.feeds import RULES_ONLY, WatchFeed, _Telling
from ipttrace.cli.watch_request import Watch
from ipttrace.request import Trigger
from ipttrace.result import TraceResult, TraceTotals
from ipttrace_tui.feed import RunState, Snapshot
from tests.builders import article_rules, mark_drop_path

WANTED = Watch("udp port 53", (), Trigger.RAW, 20, None, None)


def told() -> tuple[_Telling, list[Snapshot]]:
    seen: list[Snapshot] = []
    return _Telling(WANTED, seen.append), seen


def test_many_packets_are_told_in_few_snapshots() -> None:
    telling, seen = told()
    for number in range(1, 301):
        telling.give(mark_drop_path(number=number))
    assert 1 <= len(seen) < 30
    telling.end(TraceResult((), TraceTotals(300, 300, 300), rulesets={None: article_rules()}))
    assert [path.id for path in seen[-1].paths] == list(range(1, 301))
    assert seen[-1].state is RunState.FINISHED
    assert seen[-1].totals.packets == 300
    assert seen[-1].rulesets == {None: article_rules()}


def test_limit_missing_evidence_and_notes_are_told_from_the_start() -> None:
    telling, seen = told()
    telling.note("rules of iptables-legacy are not shown")
    telling.note("rules of iptables-legacy are not shown")
    telling.now("arming")
    [snapshot] = seen
    assert (snapshot.limit, snapshot.missing) == (20, RULES_ONLY)
    assert snapshot.warnings == ("rules of iptables-legacy are not shown",)
    assert (snapshot.state, snapshot.message) == (RunState.RUNNING, "arming")


def test_the_title_says_what_is_watched() -> None:
    assert WatchFeed(WANTED).title == "watch udp port 53, 20/s"
    everything = Watch("", (), Trigger.RAW, None, None, None)
    assert WatchFeed(everything).title == "watch all packets, no limit"
