"""The table at the end of `lab run`."""

from __future__ import annotations

from inline_snapshot import snapshot

from ipttrace.checks import Difference
from ipttrace.lab.parts import LabBackend
from ipttrace.lab.run_table import lab_lines, probe_lines
from ipttrace.lab.runner import LabRun, ProbeRun, RefusalRun
from ipttrace.lab.scenario import Refusal, Scenario, parse_scenario
from tests.builders import result

TEXT = """
name: one
title: One
namespaces: {server: {}}
probes:
  - {name: first, send: tcp 198.51.100.1:1, netns: [server], expect: {outcome: delivered}}
  - {name: the second, send: tcp 198.51.100.1:2, netns: [server], expect: {outcome: delivered}}
"""


def runs() -> list[LabRun]:
    scenario: Scenario = parse_scenario(TEXT, "one.yaml")
    first, second = scenario.probes
    refusal = Refusal("server", "iptables -A X -j DROP")
    good = ProbeRun(first, result(), ())
    said = ("outcome: expected delivered\ngot \x1b[1mlost", "and more")
    bad = ProbeRun(second, result(), tuple(Difference("refused", "", words) for words in said))
    return [
        LabRun(scenario, LabBackend.LEGACY, (good,), seconds=1.25),
        LabRun(
            scenario,
            LabBackend.BOTH,
            (good, bad),
            refusals=(RefusalRun(refusal, "No\x07 chain", ()),),
            seconds=0.5,
        ),
        LabRun(scenario, LabBackend.NFT, (), error="cannot build it"),
    ]


def test_labs() -> None:
    assert "\n".join(lab_lines(runs(), color=False)) == snapshot("""\
one  legacy   1 of  1    1.2 s  ok
one  both     2 of  3    0.5 s  NOT AS EXPECTED
    the second: outcome: expected delivered
                got \\x1b[1mlost
    the second: and more
one  nft      0 of  0    0.0 s  NOT AS EXPECTED
    cannot build it

1 of 3 runs as expected, 1.8 s\
""")


def test_probes() -> None:
    assert "\n".join(probe_lines(runs(), color=False)) == snapshot("""\
legacy  first       not seen  as expected
both    refused: iptables -A X -j DROP  as expected
          it says: No\\x07 chain
both    first       not seen  as expected
both    the second  not seen  outcome: expected delivered; and more\
""")
