"""A packet and its copies have one fingerprint, and go their ways within one another."""

from __future__ import annotations

import dataclasses
from itertools import count

from ipttrace.correlate import Correlator
from ipttrace.event import TraceEvent, TraceKind
from ipttrace.jumpstack import next_place
from ipttrace.netfilter import Backend, Hook, TableFamily, Verdict
from ipttrace.path import Outcome
from ipttrace.report import Locator, Step
from ipttrace.ruleset import Ruleset
from tests.builders import chain, ruleset, udp
from tests.transcripts import hop_text

OWN = "ipttrace-x"
PACKET = udp()
COPYING = "-j TEE --gateway 203.0.113.2"
LO, ETH1 = 1, 3
TEE_HANDLE = 11


def nft_rules() -> Ruleset:
    return ruleset(
        chain("raw", "OUTPUT", backend=Backend.NFT),
        chain("raw", "PREROUTING", backend=Backend.NFT),
        chain("mangle", "OUTPUT", [COPYING], backend=Backend.NFT),
    )


def base_report(trace_id: int, table: str, name: str, **fields: object) -> TraceEvent:
    """The only report of a base chain that no rule of matched: its policy, with the headers."""
    event = TraceEvent(
        1.0,
        Backend.NFT,
        TableFamily.IP,
        table,
        name,
        TraceKind.POLICY,
        verdict=Verdict.ACCEPT,
        trace_id=trace_id,
        packet=PACKET,
        mark=0,
    )
    return dataclasses.replace(event, **fields)  # type: ignore[arg-type]


def receipt(trace_id: int) -> list[TraceEvent]:
    return [
        base_report(trace_id, "raw", "PREROUTING", in_index=LO),
        base_report(trace_id, OWN, "observe-input", in_index=LO),
    ]


def test_a_copy_that_is_received_over_lo_before_its_original_goes_on() -> None:
    """The softirq that receives the copy runs while the TEE rule has not reported yet."""
    copy = [
        base_report(2, OWN, "trigger-output", out_index=ETH1),
        base_report(2, "mangle", "OUTPUT", out_index=ETH1),
        base_report(2, OWN, "observe-postrouting", out_index=LO),
        *receipt(3),
    ]
    tee = base_report(
        1,
        "mangle",
        "OUTPUT",
        kind=TraceKind.RULE,
        handle=TEE_HANDLE,
        verdict=Verdict.CONTINUE,
        out_index=LO,
    )
    original = [
        tee,
        base_report(1, "mangle", "OUTPUT", packet=None),
        base_report(1, OWN, "observe-postrouting", out_index=LO),
        *receipt(4),
    ]
    correlator = Correlator(nft_rules(), ids=count(1), own_table=(TableFamily.IP, OWN))
    for event in (base_report(1, "raw", "OUTPUT", out_index=LO), *copy, *original):
        correlator.feed(event)
    paths = correlator.paths()
    assert [[hop_text(hop) for hop in path.hops] for path in paths] == [
        [
            "nft OUTPUT raw/OUTPUT policy ACCEPT reported",
            "nft OUTPUT mangle/OUTPUT rule 1 CONTINUE reported",
            "nft OUTPUT mangle/OUTPUT policy ACCEPT reported",
            "nft PREROUTING raw/PREROUTING policy ACCEPT reported",
        ],
        [
            "nft OUTPUT mangle/OUTPUT policy ACCEPT reported",
            "nft PREROUTING raw/PREROUTING policy ACCEPT reported",
        ],
    ]
    assert [path.outcome for path in paths] == [Outcome.DELIVERED, Outcome.DELIVERED]
    assert not any(path.ambiguous for path in paths)


LEGACY = ruleset(
    chain("filter", "INPUT", ["-j U", "-j LOG"]),
    chain("filter", "U", ["-j LOG", "-j W", "-g V", "-j RETURN"]),
    chain("filter", "V", ["-j RETURN"]),
    chain("filter", "W", ["-j LOG"]),
)


def step(name: str, number: int, kind: TraceKind = TraceKind.RULE) -> Step:
    event = TraceEvent(
        1.0,
        Backend.LEGACY,
        TableFamily.IP,
        "filter",
        name,
        kind,
        number,
        hook=Hook.INPUT,
    )
    station = Locator(LEGACY, frozenset()).locate(event)
    assert station is not None
    return Step(station, 1.0, Hook.INPUT, 0)


def test_jumps_say_where_a_legacy_walk_goes_on() -> None:
    way = [
        (step("INPUT", 1), ("U", 0)),
        (step("U", 1), ("U", 1)),
        (step("U", 2), ("W", 0)),
        (step("W", 1), ("W", 1)),
        (step("W", 2, TraceKind.RETURN), ("U", 2)),
        (step("U", 3), ("V", 0)),
        (step("V", 1), ("INPUT", 1)),
        (step("INPUT", 2), ("INPUT", 2)),
    ]
    for number, (_, place) in enumerate(way, 1):
        assert next_place(each for each, _ in way[:number]) == place
    assert next_place([]) is None


def test_a_chain_that_was_gone_to_from_a_base_chain_returns_to_the_policy() -> None:
    rules = ruleset(chain("filter", "INPUT", ["-g V"]), chain("filter", "V", ["-j RETURN"]))
    locator = Locator(rules, frozenset())
    events = [
        TraceEvent(1.0, Backend.LEGACY, TableFamily.IP, "filter", name, TraceKind.RULE, 1,
                   hook=Hook.INPUT)
        for name in ("INPUT", "V")
    ]  # fmt: skip
    stations = [locator.locate(event) for event in events]
    steps = [Step(station, 1.0, Hook.INPUT, 0) for station in stations if station is not None]
    assert next_place(steps) == ("INPUT", 0)


def sent_over_lo(trace_id: int) -> list[TraceEvent]:
    """A copy from its birth to the queue of lo."""
    return [
        base_report(trace_id, OWN, "trigger-output", out_index=LO),
        base_report(trace_id, OWN, "observe-postrouting", out_index=LO),
    ]


def logged(number: int, **fields: object) -> TraceEvent:
    """A report of the legacy mangle table at PREROUTING."""
    event = TraceEvent(
        1.0,
        Backend.LEGACY,
        TableFamily.IP,
        "mangle",
        "PREROUTING",
        TraceKind.RULE,
        number,
        hook=Hook.PREROUTING,
        packet=PACKET,
        mark=0,
        in_index=LO,
    )
    return dataclasses.replace(event, **fields)  # type: ignore[arg-type]


def test_copies_that_wait_on_lo_take_no_report_of_their_original() -> None:
    rules = nft_rules() | ruleset(
        chain("mangle", "PREROUTING", [COPYING, COPYING, "-j LOG"]),
    )
    first = base_report(1, OWN, "trigger-prerouting", in_index=LO)
    original = [first, logged(1), *sent_over_lo(2), logged(2), *sent_over_lo(3), logged(3)]
    end = [
        logged(4, kind=TraceKind.POLICY),
        base_report(1, OWN, "observe-input", in_index=LO),
    ]
    copies = [
        event
        for trace_id in (4, 5)
        for event in (
            base_report(trace_id, OWN, "trigger-prerouting", in_index=LO),
            logged(3),
            logged(4, kind=TraceKind.POLICY),
            base_report(trace_id, OWN, "observe-input", in_index=LO),
        )
    ]
    correlator = Correlator(rules, ids=count(1), own_table=(TableFamily.IP, OWN))
    for time, event in enumerate([*original, *end, *copies], 1):
        correlator.feed(dataclasses.replace(event, time=float(time)))
    found = [[(hop.number, hop.time) for hop in path.chain_hops] for path in correlator.paths()]
    assert found == [
        [(1, 2.0), (2, 5.0), (3, 8.0), (None, 9.0)],
        [(3, 12.0), (None, 13.0)],
        [(3, 16.0), (None, 17.0)],
    ]
    assert not any(path.ambiguous for path in correlator.paths())
