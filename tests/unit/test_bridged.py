"""Frames that our own chains report on a bridge: which ports, which fate, and when it is known."""

from __future__ import annotations

from itertools import count

import pytest

from ipttrace.correlate import Correlator
from ipttrace.event import TraceEvent, TraceKind
from ipttrace.netfilter import Backend, Hook, Stage, TableFamily, Verdict, follows
from ipttrace.path import Outcome, PacketPath, WireHop
from ipttrace.ruleset import Ruleset
from tests.builders import tcp

TABLE = "ipttrace-0123abcd"
BRIDGE, ETH, P1, P2, P3 = 2, 3, 4, 5, 6
NAMES = {1: "lo", BRIDGE: "br0", ETH: "eth0", P1: "p1", P2: "p2", P3: "p3"}
SYN = tcp(tcp_seq=100)

_times = count(1)


def seen(
    chain: str, came: int | None = None, goes: int | None = None, verdict: Verdict = Verdict.ACCEPT
) -> TraceEvent:
    """Return what one of our chains says of the packet."""
    family = TableFamily.BRIDGE if chain.startswith("bridged-") else TableFamily.IP
    return TraceEvent(
        float(next(_times)),
        Backend.NFT,
        family,
        TABLE,
        chain,
        TraceKind.POLICY if verdict is Verdict.ACCEPT else TraceKind.RULE,
        verdict=verdict,
        packet=SYN,
        in_index=came,
        out_index=goes,
        trace_id=7,
    )


def correlated(*events: TraceEvent) -> Correlator:
    correlator = Correlator(
        Ruleset(),
        ids=count(1),
        interfaces=NAMES,
        bridges={P1: BRIDGE, P2: BRIDGE, P3: BRIDGE},
        own_table=(TableFamily.IP, TABLE),
    )
    for event in events:
        correlator.feed(event)
    return correlator


def ports(path: PacketPath) -> tuple[str | None, ...]:
    return path.in_interface, path.physical_in, path.out_interface, path.physical_out


COMES = (seen("bridged-prerouting", P1), seen("bridged-forward", P1, P2))


def test_a_bridged_frame_goes_from_port_to_port() -> None:
    (path,) = correlated(*COMES, seen("bridged-postrouting", None, P2)).paths()
    assert path.outcome is Outcome.FORWARDED
    assert ports(path) == ("br0", "p1", "br0", "p2")


def test_a_contained_frame_is_stopped_at_its_port() -> None:
    (path,) = correlated(*COMES, seen("bridged-postrouting", None, P2, Verdict.DROP)).paths()
    assert path.outcome is Outcome.FORWARDED
    assert [hop.interface for hop in path.hops if isinstance(hop, WireHop)] == ["p2"]


def test_ips_chains_inside_the_bridges_go_on_with_the_frame() -> None:
    correlator = correlated(
        COMES[0],
        seen("trigger-prerouting", BRIDGE),
        COMES[1],
        seen("observe-forward", BRIDGE, BRIDGE),
        seen("bridged-postrouting", None, P2),
        seen("observe-postrouting", None, BRIDGE),
    )
    (path,) = correlator.paths()
    assert path.outcome is Outcome.FORWARDED
    assert ports(path) == ("br0", "p1", "br0", "p2")
    assert correlator.tally.orphans == 0


def test_a_packet_sent_by_a_bridge_meets_the_bridges_chains_after_ips() -> None:
    correlator = correlated(
        seen("trigger-output", None, BRIDGE),
        seen("observe-postrouting", None, BRIDGE),
        seen("bridged-postrouting", None, P2),
    )
    (path,) = correlator.paths()
    assert path.outcome is Outcome.SENT
    assert ports(path) == (None, None, "br0", "p2")
    assert len(correlator.take(0.0)) == 1, "nothing more can come of it"


def test_what_leaves_by_a_bridge_is_given_out_only_when_the_bridge_has_spoken() -> None:
    correlator = correlated(
        seen("trigger-output", None, BRIDGE), seen("observe-postrouting", None, BRIDGE)
    )
    assert correlator.take(0.0) == ()
    assert not correlator.pending(), "but its fate is known"


def test_what_leaves_by_another_interface_is_given_out_at_once() -> None:
    correlator = correlated(
        seen("bridged-prerouting", P1),
        seen("trigger-prerouting", BRIDGE),
        seen("observe-forward", BRIDGE, ETH),
        seen("observe-postrouting", None, ETH),
    )
    (path,) = correlator.take(0.0)
    assert ports(path) == ("br0", "p1", "eth0", None)


def test_a_flooded_frame_is_one_path_for_each_port() -> None:
    paths = correlated(
        COMES[0],
        COMES[1],
        seen("bridged-postrouting", None, P2),
        seen("bridged-forward", P1, P3),
        seen("bridged-postrouting", None, P3),
    ).paths()
    assert [path.physical_out for path in paths] == ["p2", "p3"]
    assert [path.outcome for path in paths] == [Outcome.FORWARDED] * 2


def test_the_same_frame_again_is_another_path() -> None:
    once = (*COMES, seen("bridged-postrouting", None, P2))
    again = (seen("bridged-prerouting", P1), seen("bridged-forward", P1, P2))
    assert len(correlated(*once, *again).paths()) == 2


IP, FRAME = False, True


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ((Hook.PREROUTING, FRAME), (Hook.PREROUTING, IP)),
        ((Hook.PREROUTING, IP), (Hook.PREROUTING, FRAME)),
        ((Hook.INPUT, FRAME), (Hook.PREROUTING, IP)),
        ((Hook.INPUT, FRAME), (Hook.POSTROUTING, FRAME)),
        ((Hook.FORWARD, FRAME), (Hook.FORWARD, IP)),
        ((Hook.FORWARD, IP), (Hook.FORWARD, FRAME)),
        ((Hook.FORWARD, IP), (Hook.OUTPUT, FRAME)),
        ((Hook.POSTROUTING, FRAME), (Hook.POSTROUTING, IP)),
        ((Hook.POSTROUTING, IP), (Hook.OUTPUT, FRAME)),
        ((Hook.OUTPUT, IP), (Hook.OUTPUT, FRAME)),
        ((Hook.POSTROUTING, FRAME), (Hook.EGRESS, IP)),
        ((Hook.INGRESS, IP), (Hook.PREROUTING, FRAME)),
    ],
)
def test_stages_that_can_follow_each_other(earlier: Stage, later: Stage) -> None:
    assert follows(earlier, later, None)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ((Hook.INPUT, IP), (Hook.POSTROUTING, FRAME)),
        ((Hook.FORWARD, FRAME), (Hook.PREROUTING, IP)),
        ((Hook.FORWARD, FRAME), (Hook.INPUT, FRAME)),
        ((Hook.POSTROUTING, FRAME), (Hook.OUTPUT, FRAME)),
        ((Hook.OUTPUT, FRAME), (Hook.POSTROUTING, IP)),
        ((Hook.POSTROUTING, IP), (Hook.PREROUTING, FRAME)),
        ((Hook.EGRESS, IP), (Hook.FORWARD, FRAME)),
    ],
)
def test_stages_that_cannot(earlier: Stage, later: Stage) -> None:
    assert not follows(earlier, later, None)
