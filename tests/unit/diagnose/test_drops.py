from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.netfilter import Backend, TableFamily, Verdict
from ipttrace.path import (
    Change,
    Outcome,
    Strength,
)
from tests import builders as b
from tests.unit.diagnose.cases import dropped, filter_rule, texts, why


def test_a_mark_that_was_there_before_is_a_plain_rule_drop() -> None:
    path = replace(b.path(filter_rule(b.DROP_MARKED), outcome=Outcome.DROPPED), mark=1)
    assert why(path).cause == "rule-drop"


def test_a_mark_that_would_have_matched_all_the_same_decided_nothing() -> None:
    marker = b.rule_hop("mangle", "PREROUTING", 1, "-j MARK", Change("mark", 1, 3))
    path = b.path(marker, filter_rule("-m mark --mark 0x1/0x1 -j DROP"), outcome=Outcome.DROPPED)
    assert why(replace(path, mark=1)).cause == "rule-drop"


def test_a_mask_is_applied_as_the_kernel_does() -> None:
    marker = b.rule_hop("mangle", "PREROUTING", 1, "-j MARK", Change("mark", 0, 0x14001))
    diagnosis = dropped(marker, filter_rule("-m mark --mark 0x4000/0x4000 -j DROP"))
    assert diagnosis.cause == "mark-drop"
    assert "it drops mark 0x14001" in diagnosis.summary


def test_a_negated_mark_can_be_what_decides() -> None:
    marker = b.rule_hop("mangle", "PREROUTING", 1, "-j MARK", Change("mark", 0, 2))
    assert dropped(marker, filter_rule("-m mark ! --mark 0x0 -j DROP")).cause == "mark-drop"


def test_the_last_rule_that_set_the_mark_is_named() -> None:
    first = b.rule_hop("mangle", "PREROUTING", 1, "-j MARK", Change("mark", 0, 2))
    second = b.rule_hop("mangle", "PREROUTING", 4, "-j MARK", Change("mark", 2, 1))
    diagnosis = dropped(first, second, filter_rule(b.DROP_MARKED))
    assert "mangle/PREROUTING 4 had set" in diagnosis.summary


def test_a_restored_connmark_is_said_to_be_restored() -> None:
    restore = b.rule_hop(
        "mangle", "PREROUTING", 2, "-j CONNMARK --restore-mark", Change("mark", 0, 1)
    )
    diagnosis = dropped(restore, filter_rule(b.DROP_MARKED))
    assert diagnosis.cause == "mark-drop"
    assert diagnosis.summary.endswith("which mangle/PREROUTING 2 had restored from the connection")


def test_a_reject_for_a_mark_is_a_rule_reject_that_names_who_set_it() -> None:
    marker = b.rule_hop("mangle", "PREROUTING", 2, "-j MARK", Change("mark", 0, 1))
    reject = filter_rule("-m mark --mark 0x1 -j REJECT")
    diagnosis = dropped(marker, reject, outcome=Outcome.REJECTED)
    assert diagnosis.cause == "rule-reject"
    assert diagnosis.summary.endswith("matched mark 0x1, which mangle/PREROUTING 2 had set")
    assert "filter/INPUT 1 matched mark 0x1, which mangle/PREROUTING 2 had set" in texts(diagnosis)
    assert [str(ref) for ref in diagnosis.rules] == ["filter/INPUT 1", "mangle/PREROUTING 2"]


def test_a_drop_on_a_connmark_names_who_set_it() -> None:
    setter = b.rule_hop("mangle", "PREROUTING", 2, "-j CONNMARK --set-xmark 0x5/0xffffffff")
    diagnosis = dropped(setter, filter_rule("-m connmark --mark 0x5 -j DROP"))
    assert diagnosis.cause == "mark-drop"
    assert "connmark 0x5, which mangle/PREROUTING 2 had set" in diagnosis.summary


def test_a_connmark_that_no_hop_set_is_a_rule_drop() -> None:
    assert dropped(filter_rule("-m connmark --mark 0x5 -j DROP")).cause == "rule-drop"


def test_the_mark_may_decide_in_the_rule_that_calls_the_dropping_chain() -> None:
    marker = b.rule_hop("mangle", "PREROUTING", 1, "-j MARK", Change("mark", 0, 1))
    jump = filter_rule("-m mark --mark 0x1 -j KILL", number=3)
    diagnosis = dropped(marker, jump, filter_rule("-j DROP", "KILL"))
    assert diagnosis.cause == "mark-drop"
    assert diagnosis.summary == (
        "dropped at filter/KILL 1: filter/INPUT 3 sends it there for mark 0x1,"
        " which mangle/PREROUTING 1 had set"
    )
    assert len(diagnosis.rules) == 3


def test_a_rule_with_criteria_of_its_own_in_such_a_chain_is_a_rule_drop() -> None:
    marker = b.rule_hop("mangle", "PREROUTING", 1, "-j MARK", Change("mark", 0, 1))
    jump = filter_rule("-m mark --mark 0x1 -j KILL", number=3)
    assert dropped(marker, jump, filter_rule("-p tcp -j DROP", "KILL")).cause == "rule-drop"


NATIVE = {"backend": Backend.NFT, "family": TableFamily.INET}


@pytest.mark.parametrize("text", ["meta mark 0x00000001 drop # handle 7", "mark 1 drop"])
def test_native_nft_marks(text: str) -> None:
    marker = b.rule_hop(
        "fw",
        "pre",
        1,
        "meta mark set 0x1",
        Change("mark", 0, 1),
        **NATIVE,  # type: ignore[arg-type]
    )
    drop = b.rule_hop(
        "fw",
        "in",
        2,
        text,
        handle=7,
        verdict=Verdict.DROP,
        **NATIVE,  # type: ignore[arg-type]
    )
    diagnosis = dropped(marker, drop)
    assert diagnosis.cause == "mark-drop"
    assert (
        diagnosis.remedy[1] == "or delete the rule that drops: nft delete rule inet fw in handle 7"
    )


def test_a_native_mark_that_is_not_understood_is_not_guessed() -> None:
    marker = b.rule_hop("mangle", "PREROUTING", 1, "-j MARK", Change("mark", 0, 1))
    text = "meta mark & 0x00000001 == 0x00000001 drop"
    drop = b.rule_hop("fw", "in", 2, text, verdict=Verdict.DROP, **NATIVE)  # type: ignore[arg-type]
    assert dropped(marker, drop).cause == "rule-drop"


@pytest.mark.parametrize("match", ["-m conntrack --ctstate INVALID", "-m state --state INVALID"])
def test_a_drop_on_invalid_is_conntracks(match: str) -> None:
    diagnosis = dropped(filter_rule(f"{match} -j DROP"), packet=b.tcp(flags=("SYN", "FIN")))
    assert diagnosis.cause == "conntrack-invalid"
    assert "INVALID (flags SYN FIN)" in diagnosis.summary
    assert "by itself this is a rule-drop" in texts(diagnosis)


@pytest.mark.parametrize(
    "match", ["! --ctstate INVALID", "--ctstate INVALID,NEW", "--ctstate NEW,INVALID"]
)
def test_other_states_prove_nothing_of_the_kind(match: str) -> None:
    assert dropped(filter_rule(f"-m conntrack {match} -j DROP")).cause == "rule-drop"


def test_a_mark_goes_before_conntrack() -> None:
    marker = b.rule_hop("mangle", "PREROUTING", 1, "-j MARK", Change("mark", 0, 1))
    both = "-m mark --mark 0x1 -m conntrack --ctstate INVALID -j DROP"
    diagnosis = dropped(marker, filter_rule(both))
    assert diagnosis.cause == "mark-drop"
    assert "by itself this is a conntrack-invalid" in texts(diagnosis)


def test_a_rule_drop_quotes_what_the_rule_drops() -> None:
    diagnosis = dropped(
        filter_rule('-p tcp -m tcp --dport 8443 -m comment --comment "x" -j DROP', number=3)
    )
    assert diagnosis.cause == "rule-drop"
    assert diagnosis.summary == "dropped at filter/INPUT 3: the rule drops -p tcp --dport 8443"
    assert diagnosis.remedy == (
        "to let it in: iptables-legacy -I INPUT 3 -p tcp --dport 8443 -j ACCEPT",
        "or delete the rule: iptables-legacy -D INPUT 3",
    )


def test_an_unconditional_rule_is_no_policy() -> None:
    diagnosis = dropped(filter_rule("-j DROP", number=9))
    assert diagnosis.cause == "rule-drop"
    assert diagnosis.summary.endswith("the rule drops every packet that comes to it")


def test_legacy_verdicts_are_inferred_and_nft_ones_reported() -> None:
    legacy = dropped(filter_rule("-j DROP")).evidence
    nft = dropped(filter_rule("-j DROP", backend=Backend.NFT)).evidence
    assert [each.strength for each in legacy] == [Strength.REPORTED, Strength.INFERRED]
    assert [each.strength for each in nft] == [Strength.REPORTED]


def test_a_policy_drop_says_that_no_rule_accepted() -> None:
    diagnosis = dropped(b.policy_hop("filter", "FORWARD", Verdict.DROP))
    assert diagnosis.cause == "policy-drop"
    assert diagnosis.summary == (
        "dropped at filter/FORWARD policy: no rule of the chain accepted it, and the policy is DROP"
    )
    assert diagnosis.remedy == (
        (
            "to let it through: iptables-legacy -A FORWARD -d 198.51.100.1 -p tcp --dport 8443"
            " -j ACCEPT"
        ),
    )


@pytest.mark.parametrize(
    ("option", "answer"),
    [
        ("", "ICMP 3/3, port unreachable"),
        ("--reject-with tcp-reset", "a TCP reset"),
        ("--reject-with icmp-host-prohibited", "ICMP 3/10, host prohibited"),
        ("--reject-with icmp-admin-prohibited", "ICMP 3/13, prohibited by the administrator"),
    ],
)
def test_a_reject_says_what_it_answers(option: str, answer: str) -> None:
    diagnosis = dropped(filter_rule(f"-p tcp -j REJECT {option}"), outcome=Outcome.REJECTED)
    assert diagnosis.cause == "rule-reject"
    assert (
        diagnosis.summary
        == f"rejected at filter/INPUT 1: the rule for -p tcp answers with {answer}"
    )


@pytest.mark.parametrize("chain", ["OUTPUT", "POSTROUTING"])
def test_what_the_sender_stops_is_output_blocked(chain: str) -> None:
    table = "filter" if chain == "OUTPUT" else "mangle"
    start = b.policy_hop("raw", "OUTPUT")
    diagnosis = dropped(start, b.rule_hop(table, chain, 2, "-p tcp -j DROP"))
    assert diagnosis.cause == "output-blocked"
    assert diagnosis.summary == (
        f"dropped at {table}/{chain} 2 on its way out of this host: the rule drops -p tcp"
    )
    assert "by itself this is a rule-drop" in texts(diagnosis)


def test_output_blocked_goes_before_a_mark() -> None:
    marker = b.rule_hop("mangle", "OUTPUT", 1, "-j MARK", Change("mark", 0, 1))
    diagnosis = dropped(marker, filter_rule(b.DROP_MARKED, "OUTPUT"))
    assert diagnosis.cause == "output-blocked"
    assert "it drops mark 0x1, which mangle/OUTPUT 1 had set" in diagnosis.summary
    assert len(diagnosis.rules) == 2


def test_a_forwarded_packet_that_postrouting_drops_is_a_rule_drop() -> None:
    start = b.policy_hop("filter", "FORWARD")
    assert dropped(start, b.rule_hop("mangle", "POSTROUTING", 1, "-j DROP")).cause == "rule-drop"


def test_ipv6_gets_ip6tables() -> None:
    hop = filter_rule("-j DROP", family=TableFamily.IP6)
    diagnosis = dropped(hop, packet=b.icmp(b.CLIENT6, b.SERVER6, kind=128))
    assert diagnosis.remedy[0] == (
        "to let it in: ip6tables-legacy -I INPUT 1 -p ipv6-icmp -j ACCEPT"
    )


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (["-p tcp -j {}", "-p tcp -m tcp --dport 8443 -j ACCEPT"], "filter/INPUT 2"),
        (["-p tcp -j {}", "-p udp -j ACCEPT", "-j LOG", "-j ACCEPT"], "filter/INPUT 4"),
        (["-p tcp -j {}", "-p tcp -m tcp --dport 22 -j ACCEPT"], None),
        (["-p tcp -j {}", "-p tcp -m length --length 1:99 -j ACCEPT"], None),
        (["-p tcp -j {}", "-p tcp -j DROP"], None),
    ],
)
@pytest.mark.parametrize(
    ("target", "outcome"), [("DROP", Outcome.DROPPED), ("REJECT", Outcome.REJECTED)]
)
def test_a_rule_behind_that_would_accept_it_is_named(
    rules: list[str], said: str | None, target: str, outcome: Outcome
) -> None:
    texts_of = [text.format(target) for text in rules]
    path = b.path(filter_rule(texts_of[0]), outcome=outcome)
    diagnosis = why(path, b.ruleset(b.chain("filter", "INPUT", texts_of)))
    assert diagnosis.cause in ("rule-drop", "rule-reject")
    words = f"; {said} would accept it, but stands behind that rule" if said else ""
    assert diagnosis.summary.partition(";")[1:] == words.partition(";")[1:]
