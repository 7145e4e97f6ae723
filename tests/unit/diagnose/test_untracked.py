"""NOTRACK in front of nat."""

from __future__ import annotations

from typing import Any

import pytest

from ipttrace.evidence import Scene
from ipttrace.netfilter import Backend, Hook, TableFamily, Verdict
from ipttrace.path import ChainHop, Change, Outcome
from ipttrace.ruleset import Chain, Ruleset
from tests import builders as b
from tests.unit.diagnose.cases import filter_rule, freed, why

NOTRACK = b.rule_hop("raw", "PREROUTING", 2, "-p tcp -m tcp --dport 8443 -j NOTRACK")
INPUT = b.policy_hop("filter", "INPUT")
HERE = Scene(freed("tcp_v4_rcv", "NO_SOCKET"), b.tcp(), local=True)


def nat(*texts: str) -> Ruleset:
    """Return rules of nat/PREROUTING."""
    return b.ruleset(b.chain("nat", "PREROUTING", texts))


REDIRECT = "-p tcp -m tcp --dport 8443 -j REDIRECT --to-ports 80"


@pytest.mark.parametrize("text", [None, "-p tcp -j CT --notrack"])
def test_a_port_that_is_not_tracked_is_not_redirected(text: str | None) -> None:
    hop = NOTRACK if text is None else b.rule_hop("raw", "PREROUTING", 2, text)
    diagnosis = why(b.path(hop, INPUT, outcome=Outcome.REFUSED), nat(REDIRECT), scene=HERE)
    assert diagnosis.cause == "untracked-no-nat"
    assert diagnosis.summary == (
        "refused: raw/PREROUTING 2 keeps conntrack from tracking it, so nat/PREROUTING 1, which "
        "would send it on (REDIRECT), was never asked"
    )
    assert [str(ref) for ref in diagnosis.rules] == ["raw/PREROUTING 2", "nat/PREROUTING 1"]
    assert diagnosis.remedy == (
        (
            "to have it tracked: iptables-legacy -t raw -I PREROUTING 2 -p tcp --dport 8443 "
            "-j ACCEPT"
        ),
        "or delete that rule: iptables-legacy -t raw -D PREROUTING 2",
    )


def test_what_a_rule_dropped_then_is_told_with_it() -> None:
    path = b.path(NOTRACK, filter_rule("-p tcp -j DROP"), outcome=Outcome.DROPPED)
    diagnosis = why(path, nat(REDIRECT))
    assert diagnosis.cause == "untracked-no-nat"
    assert diagnosis.summary.startswith("dropped at filter/INPUT 1: raw/PREROUTING 2 keeps")


LATE = b.rule_hop("n", "pre", 1, "notrack", hook=Hook.PREROUTING, priority=-150)


@pytest.mark.parametrize(
    ("hops", "rules", "outcome"),
    [
        ((NOTRACK, INPUT), (), Outcome.REFUSED),
        ((NOTRACK, INPUT), ("-p tcp -m tcp --dport 22 -j REDIRECT --to-ports 80",), None),
        ((NOTRACK, INPUT), ("-m recent --name x --rcheck -j ACCEPT", REDIRECT), None),
        ((NOTRACK, INPUT), (REDIRECT,), Outcome.DELIVERED),
        ((INPUT,), (REDIRECT,), None),
        ((LATE, INPUT), (REDIRECT,), None),
        ((NOTRACK, b.policy_hop("nat", "PREROUTING"), INPUT), (REDIRECT,), None),
    ],
    ids=["no rule", "another port", "in doubt", "delivered", "tracked", "too late", "asked"],
)
def test_nat_that_would_not_have_helped_is_not_blamed(
    hops: tuple[ChainHop, ...], rules: tuple[str, ...], outcome: Outcome | None
) -> None:
    path = b.path(*hops, outcome=outcome or Outcome.REFUSED)
    assert why(path, nat(*rules), scene=HERE).cause != "untracked-no-nat"


def test_native_notrack() -> None:
    words: dict[str, Any] = {"backend": Backend.NFT, "family": TableFamily.INET}
    hop = b.rule_hop(
        "n", "r", 1, "tcp dport 8443 notrack", hook=Hook.PREROUTING, priority=-300, **words
    )
    ref = b.chain_ref("n", "d", Backend.NFT, TableFamily.INET)
    rule = b.rule(ref, "tcp dport 8443 redirect to :80", 1)
    rules = b.ruleset(Chain(ref, (rule,), Hook.PREROUTING, -100, Verdict.ACCEPT))
    path = b.path(hop, outcome=Outcome.REFUSED)
    diagnosis = why(path, rules, scene=HERE)
    assert diagnosis.cause == "untracked-no-nat"
    assert diagnosis.remedy[0] == (
        "to have it tracked: nft insert rule inet n r handle 11 tcp dport 8443 accept"
    )


@pytest.mark.parametrize(
    ("rewritten", "cause"), [((), "untracked-no-nat"), ((Change("mark", 0, 1),), "unknown")]
)
def test_a_packet_of_this_host_for_itself_goes_by_lo(
    rewritten: tuple[Change, ...], cause: str
) -> None:
    """What routed it again had another interface before: that is not known."""
    text = "-p tcp -m tcp --dport 8443 -j NOTRACK"
    hops = (
        b.rule_hop("raw", "OUTPUT", 1, text),
        b.rule_hop("mangle", "OUTPUT", 1, "-j MARK --set-mark 1", *rewritten),
        b.policy_hop("raw", "PREROUTING"),
        INPUT,
    )
    rules = b.ruleset(b.chain("nat", "OUTPUT", [f"-o lo {REDIRECT}"]))
    path = b.path(*hops, outcome=Outcome.REFUSED, in_interface=None, out_interface=None)
    assert why(path, rules).cause == cause
