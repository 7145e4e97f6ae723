from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ipttrace.diagnose.client import client_sees
from ipttrace.evidence import Scene
from ipttrace.path import Diagnosis, Evidence, Outcome, PacketPath, ResetHop, Strength
from tests import builders as b
from tests.unit.diagnose.cases import filter_rule, freed, texts, why

RESET = "-p tcp -j REJECT --reject-with tcp-reset"
UNREACHABLE = "-j REJECT --reject-with icmp-host-prohibited"
NO_RESET = "the kernel's TCP sent no reset (no tcp_send_reset): the rule made it"


def rejected(rule: str) -> PacketPath:
    return b.path(filter_rule(rule), outcome=Outcome.REJECTED)


def told(rule: str, **words: Any) -> Diagnosis:
    diagnosis = why(rejected(rule), scene=Scene(**{"trail": freed(), "counters": {}, **words}))
    assert diagnosis.cause == "rule-reject"
    return diagnosis


def test_a_rules_reset_is_not_the_kernels() -> None:
    evidence = told(RESET).evidence
    assert Evidence(NO_RESET, Strength.REPORTED) in evidence
    assert Evidence("TcpOutRsts did not rise", Strength.MATCHED) in evidence
    assert Evidence("the kernel freed it: NETFILTER_DROP in nf_hook_slow", Strength.REPORTED) in (
        evidence
    )


def test_what_was_not_seen_is_not_said() -> None:
    assert NO_RESET not in texts(told(RESET, trail=None))
    sent = replace(freed(), resets=(ResetHop(b.TIME, "NO_SOCKET", "kernel"),))
    assert NO_RESET not in texts(told(RESET, trail=sent))
    assert "TcpOutRsts did not rise" not in texts(told(RESET, counters=None))
    assert "TcpOutRsts did not rise" not in texts(told(RESET, counters={"Tcp.OutRsts": 1}))


def test_an_error_that_was_sent() -> None:
    diagnosis = told(UNREACHABLE, counters={"Icmp.OutDestUnreachs": 1})
    assert "an ICMP error was sent (IcmpOutDestUnreachs rose)" in texts(diagnosis)
    path = replace(rejected(UNREACHABLE), diagnosis=diagnosis)
    assert client_sees(path) == "a client sees EHOSTUNREACH"


@pytest.mark.parametrize("counter", ["Icmp.OutRateLimitHost", "Icmp.OutRateLimitGlobal"])
def test_an_error_that_was_held_back(counter: str) -> None:
    diagnosis = told(UNREACHABLE, counters={counter: 1})
    name = counter.replace(".", "")
    assert f"the kernel's rate limit held its ICMP error back: {name} rose" in texts(diagnosis)
    path = replace(rejected(UNREACHABLE), diagnosis=diagnosis)
    assert client_sees(path) == "a client sees a timeout"


def test_others_errors_may_have_been_held_back_too() -> None:
    counters = {"Icmp.OutRateLimitHost": 1, "Icmp.OutDestUnreachs": 1}
    path = replace(rejected(UNREACHABLE), diagnosis=told(UNREACHABLE, counters=counters))
    assert client_sees(path) == "a client sees EHOSTUNREACH"
