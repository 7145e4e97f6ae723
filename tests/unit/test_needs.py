"""When what a watch has armed no longer does its work, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.decode.iptables_save import decode_iptables_save
from ipttrace.needs import (
    BRIDGE_CAME,
    EARLY_CAME,
    GONE,
    TRACKED_NOW,
    disturbance,
    engines,
    standing,
)
from ipttrace.netfilter import Backend, ChainRef, Hook, PacketFamily, TableFamily
from ipttrace.request import TraceRequest
from ipttrace.ruleset import Ruleset

REQUEST = TraceRequest(
    session="s1", backends=frozenset({Backend.NFT}), untracked=frozenset(PacketFamily)
)
OURS = "-A PREROUTING -m comment --comment ipttrace:s1 -j TRACE"
ANOTHERS = "-A PREROUTING -m comment --comment ipttrace:s2 -j TRACE"
USERS = "-A PREROUTING -p udp -j DROP"


def raw(*lines: str, table: str = "raw") -> Ruleset:
    text = "\n".join([f"*{table}", ":PREROUTING ACCEPT [0:0]", *lines, "COMMIT"])
    return decode_iptables_save(text + "\n", Backend.NFT, TableFamily.IP)


ARMED = standing(REQUEST, raw(OURS, USERS), {7})


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([OURS, USERS], None),
        ([OURS], None),
        ([ANOTHERS, OURS, USERS], None),
        ([], GONE),
        ([ANOTHERS], GONE),
        ([USERS, OURS], GONE),
        ([OURS, USERS, OURS], None),
    ],
    ids=["as it was", "alone", "another session's", "gone", "theirs only", "not first", "twice"],
)
def test_our_rules_must_stand_before_all_others(lines: list[str], reason: str | None) -> None:
    assert disturbance(ARMED, standing(REQUEST, raw(*lines), {7})) == reason


@pytest.mark.parametrize(
    ("request_now", "reason"),
    [
        (replace(REQUEST, early_hooks=(Hook.OUTPUT,)), EARLY_CAME),
        (replace(REQUEST, untracked=frozenset({PacketFamily.IPV6})), TRACKED_NOW),
        (
            replace(REQUEST, backends=frozenset(Backend)),
            "rules of iptables-legacy came into use",
        ),
    ],
    ids=["early", "tracked", "engine"],
)
def test_what_comes_needs_others_and_what_goes_does_not(
    request_now: TraceRequest, reason: str
) -> None:
    now = replace(ARMED, request=request_now)
    assert disturbance(ARMED, now) == reason
    assert disturbance(now, ARMED) is None


def test_a_bridge_that_comes_needs_a_table_of_its_own() -> None:
    assert disturbance(ARMED, replace(ARMED, bridges=frozenset({7, 8}))) == BRIDGE_CAME
    assert disturbance(ARMED, replace(ARMED, bridges=frozenset())) is None


def test_chains_that_are_there_because_of_us_are_no_engine_in_use() -> None:
    ref = ChainRef(Backend.NFT, TableFamily.IP, "raw", "PREROUTING")
    assert engines(raw(OURS), {ref}) == frozenset()
    assert engines(raw(OURS), ()) == {Backend.NFT}
    assert engines(raw(table="ipttrace-s2"), ()) == frozenset()
