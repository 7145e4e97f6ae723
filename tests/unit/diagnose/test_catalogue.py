from __future__ import annotations

import re

from ipttrace.diagnose.catalogue import EXPECTABLE, Cause, meets
from ipttrace.path import Outcome

CODES = [
    "delivered",
    "answered",
    "no-listener",
    "listener-other-address",
    "listener-other-netns",
    "redirect-not-in-output",
    "rule-reject",
    "rule-drop",
    "policy-drop",
    "mark-drop",
    "other-backend-drop",
    "match-hotdrop",
    "queue-no-listener",
    "tproxy-no-socket",
    "rp-filter",
    "martian-loopback",
    "forwarding-off",
    "no-route",
    "blackhole-route",
    "neighbour-failed",
    "accept-queue-full",
    "conntrack-invalid",
    "conntrack-full",
    "stale-conntrack",
    "untracked-no-nat",
    "mtu-exceeded",
    "ttl-exceeded",
    "hairpin-no-masquerade",
    "asymmetric-reply",
    "bad-checksum",
    "protocol-reset",
    "kernel-drop",
    "remote-refused",
    "remote-silent",
    "output-blocked",
    "unknown",
]


def test_every_cause_is_there_once() -> None:
    assert [str(cause) for cause in Cause] == CODES


def test_every_cause_says_what_it_means_in_one_line() -> None:
    for cause in Cause:
        assert re.fullmatch(r"[a-z][^\n]{10,80}[^.]", cause.meaning), cause


def test_outcomes_and_causes_can_be_expected_and_nothing_else() -> None:
    assert {"dropped", "mark-drop", "delivered", "unknown"} <= EXPECTABLE
    assert "died" not in EXPECTABLE


def test_an_expectation_is_met_by_the_outcome_or_by_the_cause() -> None:
    assert meets("dropped", Outcome.DROPPED, "mark-drop")
    assert meets("mark-drop", Outcome.DROPPED, "mark-drop")
    assert not meets("rule-drop", Outcome.DROPPED, "mark-drop")
    assert not meets("mark-drop", Outcome.DROPPED, None)
