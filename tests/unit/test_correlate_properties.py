"""Whatever the order in which reports of different packets come, each packet keeps its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttrace.event import Event, TraceEvent
from tests import recordings
from tests.transcripts import correlate, events_of, transcript

NAMES = ("legacy4-walk", "nft4-walk", "both4", "legacy6-walk", "nft6-walk")


def by_packet(name: str) -> list[list[TraceEvent]]:
    """Return the reports of a recording's first packets, one list a packet, in order.

    Each copy of a packet gets a sequence number, an address and trace ids of its own.
    """
    recording = recordings.read_recording(name)
    groups: list[list[TraceEvent]] = []
    owner: dict[int, list[TraceEvent]] = {}
    known: dict[object, list[TraceEvent]] = {}
    reports = [event for event in events_of(recording) if isinstance(event, TraceEvent)]
    for event in (replace(report, sequence=None) for report in reports):
        if event.packet is None:
            owner[event.trace_id or 0].append(event)
            continue
        key = (event.packet.protocol, event.packet.ip_id, event.packet.tcp_seq, event.packet.src)
        group = known.setdefault((key, event.packet.length, event.packet.payload[:8]), [])
        if not group:
            groups.append(group)
        group.append(event)
        if event.trace_id is not None:
            owner[event.trace_id] = group
    return [group for group in groups if group[0].packet and group[0].packet.protocol == "tcp"][:1]


def copies(events: list[TraceEvent], number: int) -> list[list[Event]]:
    """Return `number` packets that go the same way, each with another sequence number."""
    return [
        [
            replace(
                event,
                trace_id=None if event.trace_id is None else event.trace_id + 1000 * copy,
                packet=event.packet
                and replace(event.packet, tcp_seq=(event.packet.tcp_seq or 0) + copy),
            )
            for event in events
        ]
        for copy in range(number)
    ]


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_any_interleaving_gives_the_same_paths(name: str, data: st.DataObject) -> None:
    (events,) = by_packet(name)
    ruleset = recordings.read_recording(name).ruleset
    packets = copies(events, data.draw(st.integers(2, 5)))
    order = data.draw(st.permutations([index for index, each in enumerate(packets) for _ in each]))
    waiting = [iter(each) for each in packets]
    mixed = [next(waiting[index]) for index in order]
    whole = transcript(correlate(ruleset, packets[0]).paths(), numbered=False)
    found = correlate(ruleset, mixed).paths()
    assert [transcript([path], numbered=False) for path in found] == [whole] * len(packets)


@given(data=st.data())
def test_any_part_of_a_recording_gives_values_and_nothing_else(data: st.DataObject) -> None:
    recording = recordings.read_recording(data.draw(st.sampled_from(recordings.names())))
    events = events_of(recording)
    kept = data.draw(st.lists(st.sampled_from(events), max_size=60))
    correlator = correlate(recording.ruleset, kept)
    shown = sum(len(path.hops) for path in correlator.paths())
    assert shown <= len(kept) * 2
    assert len(correlator.paths()) <= len(kept)
