"""Words that can never be met are refused when the file is read."""

from __future__ import annotations

import pytest

from ipttrace.errors import UsageError
from ipttrace.lab.expectation import Expectation
from ipttrace.lab.scenario import parse_scenario
from ipttrace.path import Outcome

LAB = """
name: one
title: One probe
namespaces: {server: {}}
probes:
  - name: local
    send: tcp 198.51.100.1:8445
    netns: [server]
    expect: {EXPECT}
"""


@pytest.mark.parametrize(
    ("expect", "words"),
    [
        ("cause: mark-dorp", "there is no cause 'mark-dorp': do you mean mark-drop?"),
        ("cause: xyz", "there is no cause 'xyz'"),
        ("outcome: passed", "passed"),
        ("rule: filter/INPUT", "names no rule"),
        ("rule: INPUT 1", "names no chain"),
        ("crosses: [filter/INPUT x]", "neither the number of a rule nor policy"),
        ('crosses-not: ["filter/\\e[31mX"]', "has control characters"),
        ("nat: {}", "no translation is expected"),
        ("nat: {source: nowhere}", "not an IPv4 or IPv6 address"),
        ("nft: {cause: xyz}", "there is no cause"),
    ],
)
def test_it_names_the_line_and_the_field(expect: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_scenario(LAB.replace("EXPECT", expect), "lab.yaml")
    assert words in str(refused.value)
    assert "lab.yaml: line 9, probes[0].expect" in str(refused.value)


def test_a_backend_has_fields_of_its_own() -> None:
    text = LAB.replace("EXPECT", "outcome: dropped, legacy: {outcome: rejected, client: X}")
    expect: Expectation = parse_scenario(text, "x").probes[0].expect
    assert expect.on("nft").outcome is Outcome.DROPPED
    assert (expect.on("legacy").outcome, expect.on("legacy").client) == (Outcome.REJECTED, "X")
    assert expect.on("both").outcome is Outcome.DROPPED
