# ruff: noqa: E501 -- what a pipe gets is not cut
from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from inline_snapshot import snapshot

from ipttrace.cli import rules
from ipttrace.errors import UsageError
from ipttrace.netfilter import Backend, Hook, TableFamily, Verdict
from ipttrace.render.schema import json_schema
from ipttrace.ruleset import Chain, Counter, Ruleset
from tests import builders as b


def readings(*rulesets: Ruleset) -> Callable[[], Ruleset]:
    return iter(rulesets).__next__


def interrupt(seconds: float) -> None:
    raise KeyboardInterrupt


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    rules.add_parser(parser.add_subparsers())
    return parser.parse_args(["rules", *words])


def counted(chain: Chain, *packets: int) -> Chain:
    made = tuple(
        replace(rule, counter=Counter(n, 60 * n))
        for rule, n in zip(chain.rules, packets, strict=False)
    )
    policy = Counter(packets[-1], 60 * packets[-1]) if chain.hook else None
    return replace(chain, rules=made, counter=policy)


def some_rules(*packets: int) -> Ruleset:
    numbers: Sequence[int] = packets or (1, 2000)
    native = b.rule(
        b.chain_ref("fw", "in", Backend.NFT, TableFamily.INET),
        "tcp dport 22 counter accept",
        1,
        handle=9,
    )
    ingress = b.chain_ref("guard", "early", Backend.NFT, TableFamily.NETDEV)
    return b.ruleset(
        counted(b.chain("nat", "PREROUTING", [b.REDIRECT_RULE]), *numbers),
        counted(b.chain("filter", "WEB", ["-j DROP"], backend=Backend.NFT), *numbers),
        b.chain("filter", "INPUT", family=TableFamily.IP6),
        Chain(native.chain, (replace(native, counter=None),)),
        Chain(ingress, (), Hook.INGRESS, -5, Verdict.DROP, devices=("eth0", "lo")),
    )


def test_the_table_that_people_read(capsys: pytest.CaptureFixture[str]) -> None:
    rules.show(arguments(), readings(some_rules()), interrupt)
    assert capsys.readouterr().out == snapshot("""\
iptables-legacy  nat/PREROUTING  policy ACCEPT  2,000 packets, 120,000 bytes
  1    1 packet  60 bytes  -d 198.51.100.1/32 -p tcp -m tcp --dport 8445 -j REDIRECT --to-ports 8443
iptables-nft  filter/WEB  user chain
  1    1 packet  60 bytes  -j DROP                                                                    handle 11
ip6tables-legacy  filter/INPUT  policy ACCEPT  0 packets, 0 bytes  no rules
nft  inet fw/in  user chain
  1  no counter            tcp dport 22 counter accept                                                handle 9
nft  netdev guard/early  hook INGRESS of eth0, lo priority -5  policy DROP  no rules
""")


def test_one_table_only(capsys: pytest.CaptureFixture[str]) -> None:
    rules.show(arguments("--table", "fw"), readings(some_rules()), interrupt)
    assert capsys.readouterr().out == snapshot("""\
nft  inet fw/in  user chain
  1  no counter    tcp dport 22 counter accept  handle 9
""")


def test_nothing_to_show_is_said_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    rules.show(arguments(), readings(b.ruleset()), interrupt)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "ipttrace: no table here: neither iptables-legacy nor nf_tables has one\n"
    )


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_named_table_that_is_not_there_is_an_error(more: list[str]) -> None:
    with pytest.raises(UsageError, match="no table raw here"):
        rules.show(arguments("--table", "raw", *more), readings(some_rules()), interrupt)


def test_one_namespace_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert arguments("--netns", "a").netns == "a"
    with pytest.raises(SystemExit) as ended:
        arguments("--netns", "a", "--netns", "b")
    assert ended.value.code == 2
    assert "argument --netns: 'a' is named already" in capsys.readouterr().err


def test_our_own_rules_and_tables_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    chain = b.chain("raw", "PREROUTING", ["-j TRACE", "-j ACCEPT"])
    own, theirs = chain.rules
    chain = replace(chain, rules=(replace(own, number=None), replace(theirs, number=1)))
    ours = b.chain("ipttrace-ab12", "trigger-prerouting", ["-j X"], backend=Backend.NFT)
    rules.show(arguments(), readings(b.ruleset(chain, ours)), interrupt)
    out = capsys.readouterr().out
    assert "TRACE" not in out
    assert "ipttrace-" not in out
    assert "  1  0 packets  0 bytes  -j ACCEPT" in out


def test_watching_shows_what_rose_until_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    given = readings(some_rules(1, 5), some_rules(1, 5), some_rules(4, 6))
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rules.show(arguments("--watch", "--table", "nat"), given, wait)
    assert capsys.readouterr().out == snapshot("""\
iptables-legacy  nat/PREROUTING  policy ACCEPT  5 packets, 300 bytes
  1  1 packet  60 bytes  -d 198.51.100.1/32 -p tcp -m tcp --dport 8445 -j REDIRECT --to-ports 8443
iptables-legacy  nat/PREROUTING 1  +3 packets, +180 bytes  -d 198.51.100.1/32 -p tcp -m tcp --dport 8445 -j REDIRECT --to-ports 8443
iptables-legacy  nat/PREROUTING  +1 packet, +60 bytes  policy ACCEPT
""")
    assert waits == [1.0] * 3


def records(text: str) -> list[dict[str, Any]]:
    validator = jsonschema.Draft202012Validator(json_schema())
    made = [json.loads(line) for line in text.splitlines()]
    for record in made:
        validator.validate(record)
    return made


def test_json_has_a_line_for_every_chain_and_rule(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    rules.show(arguments("--json", "--netns", "server"), readings(some_rules()), interrupt)
    found = records(capsysbinary.readouterr().out.decode())
    assert [record["record"] for record in found] == [
        "chain",
        "rule",
        "chain",
        "rule",
        "chain",
        "chain",
        "rule",
        "chain",
    ]
    assert {record["netns"] for record in found} == {"server"}
    assert {record["rise"] for record in found} == {None}


def test_json_watching_repeats_only_what_rose(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    given = readings(some_rules(1, 5), some_rules(4, 5))
    waits = iter([None])

    def wait(seconds: float) -> None:
        if next(waits, interrupt) is interrupt:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rules.show(arguments("--json", "--watch", "--table", "nat"), given, wait)
    last = records(capsysbinary.readouterr().out.decode())[2:]
    assert [(record["record"], record["rise"]) for record in last] == [
        ("rule", {"packets": 3, "bytes": 180})
    ]
