"""Two streams of one recording, each in order, give the paths that the recording gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttrace.event import Event, FlowChange, FlowEvent, ForeignLog, TraceEvent, TraceKind
from ipttrace.interleave import as_logged, interleave
from ipttrace.netfilter import TABLE_HOOKS, Backend, Hook, TableFamily, Verdict
from ipttrace.packet import PacketSummary
from ipttrace.ruleset import Chain, Ruleset
from tests import builders, recordings
from tests.transcripts import correlate, events_of, transcript

NAMES = recordings.names()
PACKET = builders.tcp()


def is_logged(event: Event) -> bool:
    """Tell whether the kernel log would have it."""
    legacy = isinstance(event, TraceEvent) and event.backend is Backend.LEGACY
    return legacy or isinstance(event, ForeignLog)


def streams(events: Sequence[Event]) -> tuple[list[Event], list[Event]]:
    return [each for each in events if is_logged(each)], [e for e in events if not is_logged(e)]


def recorded(name: str) -> tuple[Ruleset, Sequence[Event]]:
    """Return rules and events of a recording, with no more than the kernel log shows.

    The recorded UDP packets differ in their ports only; here also in what `fingerprint` sees.
    """
    recording = recordings.read_recording(name)
    events = [_told_apart(event) for event in events_of(recording)]
    return recording.ruleset, [as_logged(event) for event in events]


def _told_apart(event: Event) -> Event:
    if not isinstance(event, TraceEvent | ForeignLog):
        return event
    packet = event.packet
    if packet is not None and packet.protocol == "udp":
        packet = replace(packet, length=packet.length + (packet.dport or 0))
    return replace(event, sequence=None, packet=packet)


def joined(events: Sequence[Event], ruleset: Ruleset) -> Sequence[Event]:
    return interleave(*streams(events), ruleset)


def paths_of(ruleset: Ruleset, events: Sequence[Event]) -> list[str]:
    return sorted(transcript([path], numbered=False) for path in correlate(ruleset, events).paths())


@pytest.mark.parametrize("name", NAMES)
def test_each_recording_gives_its_paths(name: str) -> None:
    ruleset, events = recorded(name)
    assert paths_of(ruleset, joined(events, ruleset)) == paths_of(ruleset, events)


@pytest.mark.parametrize("name", ["both4", "legacy4-walk", "flows6", "native4"])
@given(data=st.data())
def test_read_in_pieces_it_gives_the_same_paths(name: str, data: st.DataObject) -> None:
    ruleset, events = recorded(name)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(events) - 1), max_size=6)))
    pieces = [events[a:b] for a, b in zip([0, *cuts], [*cuts, len(events)], strict=True)]
    found = [event for piece in pieces for event in joined(piece, ruleset)]
    assert paths_of(ruleset, found) == paths_of(ruleset, events)


@given(data=st.data())
def test_any_two_streams_keep_all_events_and_the_logs_order(data: st.DataObject) -> None:
    ruleset, events = recorded(data.draw(st.sampled_from(NAMES)))
    kept = st.lists(st.sampled_from(events), max_size=40)
    logged, traced = streams([*data.draw(kept), *data.draw(kept)])
    found = interleave(logged, traced, ruleset)
    times = [event.time for event in found]
    assert len(found) == len(logged) + len(traced)
    if logged and traced:
        assert times == sorted(times)
    order = [_named(event) for event in found if is_logged(event)]
    assert order == [_named(event) for event in logged]


def _named(event: Event) -> Event:
    return replace(event, time=0.0)


# -- ways, each as the kernel walks it: `-` are the kernel log's, `=` those of our own nft table

WAYS = {
    "in": """
        - raw:PREROUTING s0>
        = reply-prerouting s0>
        - mangle:PREROUTING s0>
        - mangle:INPUT s0>
        - filter:INPUT s0>
        = observe-input s0>
    """,
    "forwarded": """
        = trigger-prerouting s0>
        - raw:PREROUTING s0>
        - nat:PREROUTING s0>
        = observe-forward s0>s1
        - mangle:FORWARD s0>s1
        - filter:FORWARD s0>s1
        - mangle:POSTROUTING s0>s1
        = observe-postrouting s0>s1
    """,
    "loopback": """
        = trigger-output >lo
        - raw:OUTPUT >lo
        - filter:OUTPUT >lo
        - mangle:POSTROUTING >lo
        = observe-postrouting >lo
        = trigger-prerouting lo>
        - raw:PREROUTING lo>
        - mangle:PREROUTING lo>
        - filter:INPUT lo>
        = observe-input lo>
    """,
    "copied by TEE": """
        - raw:PREROUTING s0>
        - mangle:PREROUTING s0>
        2= trigger-output >s1
        - raw:OUTPUT >s1
        - mangle:OUTPUT >s1
        - mangle:POSTROUTING >s1
        2= observe-postrouting >s1
        - nat:PREROUTING s0>
        - mangle:INPUT s0>
        - filter:INPUT s0>
        = observe-input s0>
    """,
    "no legacy table": """
        = trigger-prerouting s0>
        = observe-input s0>
    """,
    "no table of ours": """
        - raw:PREROUTING s0>
        - filter:INPUT s0>
    """,
}
INDEXES = {"lo": 1, "s0": 2, "s1": 3, "": None}


def way(text: str, packet: PacketSummary = PACKET, shift: int = 0) -> list[TraceEvent]:
    """Return the reports of one packet; those of a copy have another trace id."""
    lines = [line.split() for line in text.split("\n") if line.strip()]
    return [_report(line, packet, shift) for line in lines]


def _report(words: Sequence[str], packet: PacketSummary, shift: int) -> TraceEvent:
    kind, point, links = words
    came, _, goes = links.partition(">")
    table, _, chain = point.rpartition(":")
    event = TraceEvent(
        1.0,
        Backend.LEGACY,
        TableFamily.IP,
        table,
        chain,
        TraceKind.POLICY,
        1,
        packet=packet,
        in_index=INDEXES[came],
        out_index=INDEXES[goes],
    )
    if kind == "-":
        return replace(event, hook=Hook(chain))
    trace_id = shift + int(kind.rstrip("=") or 1)
    return replace(event, backend=Backend.NFT, table="ipttrace-0", number=None, trace_id=trace_id)


def all_tables(*more: Chain) -> Ruleset:
    places = [(table, hook) for table, hooks in TABLE_HOOKS.items() for hook in hooks]
    return builders.ruleset(*(builders.chain(table, hook) for table, hook in places), *more)


def shuffled(events: Sequence[Event]) -> Sequence[Event]:
    """Return all events after they came in two streams."""
    return interleave(*streams(events), all_tables())


@pytest.mark.parametrize("name", WAYS)
def test_a_way_comes_back_in_the_order_in_which_it_was_walked(name: str) -> None:
    events = way(WAYS[name])
    assert list(shuffled(events)) == events


@given(st.data())
def test_ways_of_several_packets_come_back(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(list(WAYS)), min_size=1, max_size=4))
    ways = [
        way(WAYS[name], replace(PACKET, ip_id=number), 10 * number)
        for number, name in enumerate(names)
    ]
    order = data.draw(st.permutations([index for index, each in enumerate(ways) for _ in each]))
    waiting = [iter(each) for each in ways]
    found = shuffled([next(waiting[index]) for index in order])
    for walked in ways:
        of_packet = [e for e in found if isinstance(e, TraceEvent) and e.packet == walked[0].packet]
        assert of_packet == walked


def test_an_answer_with_the_requests_own_content_is_another_way() -> None:
    """An echo over UDP in IPv6: nothing but the addresses differs."""
    request = builders.udp("2001:db8::2", "2001:db8::1")
    answer = replace(request, src=request.dst, dst=request.src)
    text = "- raw:OUTPUT >s0\n= reply-output >s0\n- filter:OUTPUT >s0\n= observe-postrouting >s0"
    events = [
        replace(event, table_family=TableFamily.IP6)
        for event in [*way(WAYS["in"], request), *way(text, answer, 5)]
    ]
    places = [(table, hook) for table, hooks in TABLE_HOOKS.items() for hook in hooks]
    chains = [builders.chain(*place, family=TableFamily.IP6) for place in places]
    assert list(interleave(*streams(events), builders.ruleset(*chains))) == events


def test_a_clone_has_ended_when_the_packet_that_it_copies_goes_on() -> None:
    """Both pass POSTROUTING, but the clone is not tracked: it does not meet the nat table."""
    tee = builders.chain("mangle", "POSTROUTING", ["-j TEE --gateway 198.51.100.9"])
    nat = builders.chain("nat", "POSTROUTING")
    first, copied, inner, left, on, translated, gone = way("""
        = observe-forward s0>s1
        - mangle:POSTROUTING s0>s1
        - mangle:POSTROUTING >s1
        2= observe-postrouting >s1
        - mangle:POSTROUTING s0>s1
        - nat:POSTROUTING s0>s1
        = observe-postrouting s0>s1
    """)
    inner, on = replace(inner, number=2), replace(on, number=2)
    events = [first, copied, inner, left, on, translated, gone]
    found = interleave(*streams(events), all_tables(tee, nat))
    assert list(found) == events


def test_a_clone_comes_back_over_loopback_after_the_packet_that_it_copies() -> None:
    tee = builders.chain("mangle", "INPUT", ["-j TEE --gateway 198.51.100.1"])
    events = way("""
        - raw:PREROUTING s0>
        - mangle:INPUT s0>
        2= trigger-output >lo
        - raw:OUTPUT >lo
        - mangle:POSTROUTING >lo
        2= observe-postrouting >lo
        - mangle:INPUT s0>
        - filter:INPUT s0>
        = observe-input s0>
        3= trigger-prerouting lo>
        - raw:PREROUTING lo>
        - mangle:INPUT lo>
        - filter:INPUT lo>
        3= observe-input lo>
    """)
    events[6] = replace(events[6], number=2)
    assert list(interleave(*streams(events), all_tables(tee))) == events


def test_packets_that_differ_in_ports_alone_keep_their_own_ways() -> None:
    """The log shows no payload: datagrams of one length have one fingerprint."""
    one, two = (replace(builders.udp(dport=port), ip_id=7) for port in (53, 54))
    ways = [way(WAYS["forwarded"], one), way(WAYS["forwarded"], two, 10)]
    events = [event for pair in zip(*ways, strict=True) for event in reversed(pair)]
    found = shuffled(events)
    for walked in ways:
        of_packet = [e for e in found if isinstance(e, TraceEvent) and e.packet == walked[0].packet]
        assert of_packet == walked


def test_a_packet_without_legacy_reports_keeps_its_own_order() -> None:
    first, second, third = (replace(PACKET, ip_id=number) for number in (1, 2, 3))
    one, two = way(WAYS["in"], first), way(WAYS["in"], second, 10)
    trigger, observed = way(WAYS["no legacy table"], third, 20)
    found = list(shuffled([*one[:-1], *two, trigger, one[-1], observed]))
    assert found.index(trigger) < found.index(observed)


# -- chains of nft at a legacy table's own priority

FILTER = builders.chain("filter", "INPUT", ["-j DROP"], backend=Backend.NFT)


def nft(verdict: Verdict, handle: int | None = None) -> TraceEvent:
    """Return a report of the nft chain that has the hook and priority of legacy's filter/INPUT."""
    (event,) = way("= ipttrace-0:INPUT s0>")
    return replace(event, table="filter", verdict=verdict, handle=handle)


def test_at_one_priority_nft_is_taken_to_come_first() -> None:
    logged = way("- mangle:INPUT s0>\n- filter:INPUT s0>")
    found = interleave(logged, [nft(Verdict.ACCEPT)], all_tables(FILTER))
    assert found == [logged[0], nft(Verdict.ACCEPT), logged[1]]


def test_an_nft_chain_that_dropped_the_packet_came_last() -> None:
    logged = way("- mangle:INPUT s0>\n- filter:INPUT s0>")
    jumped = nft(Verdict.JUMP, 11)
    inner = replace(nft(Verdict.RETURN, 1), chain="U", packet=None)
    dropped = replace(nft(Verdict.DROP), packet=None)
    found = interleave(logged, [jumped, inner, dropped], all_tables(FILTER))
    assert found == [*logged, jumped, inner, dropped]


# -- what is no trace report


def flow_event(change: FlowChange = FlowChange.NEW, time: float = 1.0) -> FlowEvent:
    return FlowEvent(time, change, PACKET.flow, PACKET.flow.reversed())


def test_a_new_connection_comes_after_its_packets_reports() -> None:
    first, second = way(WAYS["no table of ours"])
    other = way(WAYS["no table of ours"], replace(PACKET, ip_id=1, sport=1))
    found = interleave([first, other[0], second, other[1]], [flow_event()], all_tables())
    assert found == [first, other[0], second, flow_event(), other[1]]


@pytest.mark.parametrize("change", [FlowChange.UPDATE, FlowChange.DESTROY])
def test_other_events_stay_where_they_were_in_their_stream(change: FlowChange) -> None:
    events = way(WAYS["in"])
    logged, traced = streams(events)
    found = interleave(logged, [traced[0], flow_event(change), *traced[1:]], all_tables())
    assert list(found) == [*events[:2], flow_event(change), *events[2:]]


def test_a_report_that_fits_no_rule_stays_where_it_was() -> None:
    first, second = way(WAYS["no table of ours"])
    stranger = replace(first, table="nowhere")
    logged = [first, stranger, second]
    assert interleave(logged, way("= observe-input s0>"), all_tables())[:3] == logged


def test_headers_without_an_id_are_those_of_the_packet_before() -> None:
    lone = replace(nft(Verdict.ACCEPT), packet=None, trace_id=77)
    logged = way(WAYS["no table of ours"])
    assert list(interleave(logged, [lone], all_tables())) == [lone, *logged]


# -- what both streams show


@pytest.mark.parametrize(
    ("packet", "shown"),
    [
        (builders.udp(payload=b"1234"), builders.udp()),
        (builders.tcp(tcp_seq=7), builders.tcp(tcp_seq=7)),
        (
            replace(PACKET, protocol="sctp"),
            replace(PACKET, protocol="sctp", sport=None, dport=None),
        ),
    ],
)
def test_an_nft_report_shows_no_more_than_the_log(
    packet: PacketSummary, shown: PacketSummary
) -> None:
    (event,) = way("= observe-input s0>", packet)
    assert as_logged(event) == replace(event, packet=shown)


def test_times_do_not_fall_where_one_stream_was_read_first() -> None:
    early = [replace(event, time=1.0) for event in way("= trigger-prerouting s0>")]
    early += [replace(event, time=1.0) for event in way("= observe-input s0>")]
    late = [replace(event, time=2.0) for event in way(WAYS["no table of ours"])]
    found = interleave(late, early, all_tables())
    assert [event.time for event in found] == [1.0, 2.0, 2.0, 2.0]
