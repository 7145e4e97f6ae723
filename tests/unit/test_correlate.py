"""Recorded reports become the paths that the kernel walked."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ipttrace.event import ForeignLog, Lost, TraceEvent
from ipttrace.path import ChainHop, Outcome
from tests import recordings
from tests.transcripts import correlate, events_of, hop_text, transcript

GOLDEN = Path(__file__).parent.parent / "data"


@pytest.mark.parametrize("name", recordings.names())
def test_each_recording_gives_the_reviewed_paths(name: str) -> None:
    recording = recordings.read_recording(name)
    text = transcript(correlate(recording.ruleset, events_of(recording)).paths())
    golden = GOLDEN / f"{name}.paths"
    if os.environ.get("IPTTRACE_UPDATE_SNAPSHOTS") == "1":
        golden.write_text(text)
    assert text == golden.read_text()


def test_an_unconditional_legacy_rule_that_reads_like_a_policy_is_that_rule() -> None:
    recording = recordings.read_recording("legacy4-walk")
    path = correlate(recording.ruleset, events_of(recording)).paths()[0]
    assert hop_text(path.hops[-1]) == "legacy INPUT filter/INPUT rule 4 DROP inferred"
    assert path.outcome is Outcome.DROPPED


def test_an_nft_report_without_a_rule_is_no_hop() -> None:
    recording = recordings.read_recording("nft4-walk")
    events = events_of(recording)
    assert any(isinstance(event, TraceEvent) and event.header_only for event in events)
    paths = correlate(recording.ruleset, events).paths()
    hops = [hop for path in paths for hop in path.hops if isinstance(hop, ChainHop)]
    assert all(hop.number is not None or hop.event == "policy" for hop in hops)


def test_a_legacy_report_that_no_rule_can_have_made_is_counted_and_makes_no_hop() -> None:
    recording = recordings.read_recording("foreign4")
    correlator = correlate(recording.ruleset, events_of(recording))
    assert correlator.tally.foreign == len(correlator.foreign) == 3
    assert all(isinstance(log, ForeignLog) for log in correlator.foreign)


def test_a_gap_in_the_log_groups_numbers_is_counted_and_the_path_called_incomplete() -> None:
    recording = recordings.read_recording("legacy4-walk")
    events = events_of(recording)
    cut = [event for number, event in enumerate(events) if number not in (4, 5, 10)]
    correlator = correlate(recording.ruleset, cut)
    assert correlator.tally.lost == 3
    assert correlator.paths()[0].outcome is Outcome.INCOMPLETE


def test_an_overrun_is_counted() -> None:
    recording = recordings.read_recording("legacy4-walk")
    correlator = correlate(recording.ruleset, [Lost(1.0, None, "full"), Lost(2.0, 5, "full")])
    assert correlator.tally.lost == 6


def test_a_reused_trace_id_is_believed_only_until_the_next_headers() -> None:
    recording = recordings.read_recording("nft4-walk")
    events = events_of(recording)
    same_id = [
        replace(event, trace_id=7) if isinstance(event, TraceEvent) else event for event in events
    ]
    expected = transcript(correlate(recording.ruleset, events).paths())
    assert transcript(correlate(recording.ruleset, same_id).paths()) == expected


def test_equal_packets_in_flight_are_flagged_and_none_is_lost() -> None:
    recording = recordings.read_recording("legacy4-walk")
    events = [event for event in events_of(recording) if isinstance(event, TraceEvent)]
    first = [event for event in events if event.packet == events[0].packet][:2]
    twice = [replace(event, sequence=None) for event in first for _ in range(2)]
    paths = correlate(recording.ruleset, twice).paths()
    assert [path.ambiguous for path in paths] == [True, True]
    assert [hop_text(hop) for hop in paths[0].hops] == [hop_text(hop) for hop in paths[1].hops]


def test_a_packet_born_inside_anothers_chain_is_served_before_it() -> None:
    """A TEE clone runs OUTPUT and POSTROUTING while its twin waits inside mangle/PREROUTING."""
    recording = recordings.read_recording("legacy4-walk")
    events = [
        replace(event, sequence=None)
        for event in events_of(recording)
        if isinstance(event, TraceEvent)
    ]
    twin = events[0].packet
    walk = [event for event in events if event.packet and event.packet.protocol == "tcp"]
    assert twin is not None
    sent = [event for event in events if event.hook in ("OUTPUT", "POSTROUTING")]
    length = len([event for event in sent if event.packet == sent[0].packet])
    clone = [replace(event, packet=twin) for event in sent[:length]]
    paths = correlate(recording.ruleset, [*walk[:2], *clone, *walk[2:]]).paths()
    assert [path.outcome for path in paths] == [Outcome.DROPPED, Outcome.SENT]
    assert [path.ambiguous for path in paths] == [False, False]
    assert len(paths[0].hops) == len(walk)
