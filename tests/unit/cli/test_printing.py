"""What --expect asks for of a probe with several legs, and the lines of a watch."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.cli.printing import PacketPrinter, meets_expectation
from ipttrace.cli.writing import NoFile
from ipttrace.path import Outcome, Role
from tests import builders as b

SENT = b.path(b.policy_hop("filter", "OUTPUT"), outcome=Outcome.SENT)
PASSED = b.path(b.policy_hop("filter", "FORWARD"), outcome=Outcome.FORWARDED, leg=2, number=2)
ARRIVED = b.path(b.policy_hop("filter", "INPUT"), leg=3, number=3)
SEEN = b.path(b.policy_hop("filter", "INPUT"), role=Role.OBSERVED, number=4, journey=2)


def test_the_last_leg_counts() -> None:
    result = b.result(SENT, PASSED, ARRIVED, SEEN)
    assert meets_expectation("delivered", result)
    assert not meets_expectation("forwarded", result)


@pytest.mark.parametrize("outcome", [Outcome.DROPPED, Outcome.LOST])
def test_every_probe_counts(outcome: Outcome) -> None:
    other = b.path(outcome=outcome, number=5, journey=3)
    assert not meets_expectation("delivered", b.result(SENT, PASSED, ARRIVED, other))


def test_nothing_sent_is_nothing_met() -> None:
    assert not meets_expectation("delivered", b.result(SEEN))


def lines_of(capsys: pytest.CaptureFixture[str], *, several: bool) -> list[str]:
    printer = PacketPrinter(json=False, verbose=False, file=NoFile(), several=several)
    for path, netns in ((SENT, "client"), (PASSED, "router"), (SEEN, "router")):
        printer.packet(replace(path, netns=netns))
    return capsys.readouterr().out.splitlines()


def test_the_time_of_a_packet_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """One line a namespace; two dots in place of the time say that it is the same packet."""
    first, second, other = lines_of(capsys, several=True)
    assert first.split()[0].count(":") == other.split()[0].count(":") == 2
    assert second.split()[0] == ".."
    assert first.index("#") == second.index("#")
    assert ", client  >" in first
    assert ", router  >" in second


def test_a_single_namespace_is_not_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert not any("router" in line for line in lines_of(capsys, several=False))
