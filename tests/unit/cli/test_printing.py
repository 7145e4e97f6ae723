"""What --expect asks for of a probe with several legs."""

from __future__ import annotations

import pytest

from ipttrace.cli.printing import meets_expectation
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
