"""Which rules were met, also when the rules change between the probes."""

from __future__ import annotations

from dataclasses import replace

from ipttrace.lab.coverage import RulesMet
from ipttrace.netfilter import Backend, TableFamily
from ipttrace.ruleset import TAG, Counter, Rule, Ruleset
from tests import builders as b


def unmet(met: RulesMet) -> list[str]:
    [coverage] = met.coverage("lab", "legacy")
    return [str(rule.ref) for rule in coverage.unmet]


def test_rules_that_matched_are_met() -> None:
    met = RulesMet()
    met.read("server", b.article_rules())
    assert len(unmet(met)) == 4
    met.saw(b.result(b.mark_drop_path()))
    assert unmet(met) == ["nat/PREROUTING 1", "nat/OUTPUT 1"]
    met.saw(b.result(b.local_path(), b.redirect_path(number=2)))
    assert unmet(met) == []
    [coverage] = met.coverage("lab", "legacy")
    assert (coverage.netns, coverage.rules) == ("server", 4)


def test_another_namespace_is_another_rule() -> None:
    met = RulesMet()
    met.read("server", b.article_rules())
    met.saw(b.result(b.mark_drop_path(netns="client")))
    assert len(unmet(met)) == 4


def test_a_rule_that_moves_is_the_same_rule() -> None:
    met = RulesMet()
    met.read("server", b.ruleset(b.chain("filter", "INPUT", ["-j DROP"])))
    met.saw(b.result(b.path(b.rule_hop("filter", "INPUT", 1, "-j DROP"))))
    met.read("server", b.ruleset(b.chain("filter", "INPUT", ["-p tcp -j ACCEPT", "-j DROP"])))
    assert unmet(met) == ["filter/INPUT 1"]
    met.saw(b.result(b.path(b.rule_hop("filter", "INPUT", 1, "-p tcp -j ACCEPT"))))
    assert unmet(met) == []
    [coverage] = met.coverage("lab", "legacy")
    assert coverage.rules == 2


def test_rules_of_a_table_stand_together_though_some_came_later() -> None:
    first = [b.chain("filter", "INPUT", ["-j LOG"]), b.chain("nat", "OUTPUT", ["-j LOG"])]
    later = [b.chain("filter", "INPUT", ["-j LOG", "-j DROP"]), b.chain("filter", "X", ["-j LOG"])]
    met = RulesMet()
    met.read("server", b.ruleset(*first))
    met.read("server", b.ruleset(*later))
    assert unmet(met) == ["filter/INPUT 1", "filter/INPUT 2", "filter/X 1", "nat/OUTPUT 1"]


def test_equal_rules_are_told_apart() -> None:
    met = RulesMet()
    met.read("server", b.ruleset(b.chain("filter", "INPUT", ["-j LOG", "-j LOG"])))
    met.saw(b.result(b.path(b.rule_hop("filter", "INPUT", 2, "-j LOG"))))
    assert unmet(met) == ["filter/INPUT 1"]


def test_a_native_rule_whose_counter_rose_is_the_same() -> None:
    def rules(packets: int) -> Ruleset:
        chain = b.chain("my", "in", ["counter drop"], backend=Backend.NFT, family=TableFamily.INET)
        (rule,) = chain.rules
        rule = replace(rule, counter=Counter(packets, packets * 60))
        return b.ruleset(replace(chain, rules=(rule,)))

    met = RulesMet()
    met.read("server", rules(0))
    met.read("server", rules(1))
    [coverage] = met.coverage("lab", "nft")
    assert (coverage.rules, len(coverage.unmet)) == (1, 1)
    assert coverage.unmet[0].text == "counter drop"


def test_rules_of_ours_do_not_count() -> None:
    own = b.chain("filter", "input", ["-j X"], backend=Backend.NFT)
    tables = b.ruleset(replace(own, ref=replace(own.ref, table="ipttrace-abc")))
    rule = Rule(b.chain_ref("raw", "PREROUTING"), 1, None, f'-m comment "{TAG}x"')
    raw = replace(b.chain("raw", "PREROUTING"), rules=(rule,))
    met = RulesMet()
    met.read("server", tables | b.ruleset(raw))
    assert met.coverage("lab", "nft") == []


def test_hops_without_a_rule_are_ignored() -> None:
    met = RulesMet()
    met.saw(b.result(b.mark_drop_path()))
    met.read("server", b.article_rules())
    unreadable = replace(b.rule_hop("filter", "INPUT", 1, "-j DROP"), number=None, rule=None)
    met.saw(b.result(b.path(unreadable, b.policy_hop("filter", "INPUT"))))
    assert len(unmet(met)) == 4
