"""The table of all cases and the rules that no probe met; the text is under review here."""

from __future__ import annotations

from dataclasses import replace

from inline_snapshot import snapshot

from ipttrace.checks import Case, Coverage, Difference, State
from ipttrace.netfilter import Backend, TableFamily
from ipttrace.render.check_table import check_lines, coverage_lines
from tests import builders as b

PASSED = Case(
    "a.yaml", "article-complete", "legacy", "outside 8445", State.PASSED, 0.25,
    result=b.result(b.redirect_path()),
)  # fmt: skip
FAILED = replace(
    PASSED,
    backend="nft",
    name="local",
    state=State.FAILED,
    seconds=12.0,
    differences=(Difference("outcome", "delivered", "dropped", 1),),
    result=b.result(b.mark_drop_path()),
)
ERROR = Case("b.yaml", "live", "", "ssh", State.ERROR, message="cannot trace here")
SKIPPED = Case("b.yaml", "live", "", "\x1b[1mweb", State.SKIPPED, message="not run after ssh")
SECONDS = {"a.yaml": 13.5, "b.yaml": 0.2}
UNSEEN = replace(PASSED, result=b.result(), state=State.FAILED)


def test_table() -> None:
    lines = check_lines([PASSED, FAILED, ERROR, SKIPPED, UNSEEN], SECONDS, width=100, color=False)
    assert "\n".join(lines) == snapshot("""\
ok       a.yaml  legacy  outside 8445  delivered   0.25 s
FAILED   a.yaml  nft     local         dropped    12.00 s
    outcome: expected delivered, got dropped
ERROR    b.yaml          ssh
    cannot trace here
skipped  b.yaml          \\x1b[1mweb
    not run after ssh
FAILED   a.yaml  legacy  outside 8445  not seen    0.25 s

a.yaml: 1 as expected, 2 not; 13.5 s
b.yaml: 0 as expected, 0 not, 1 could not be run, 1 skipped; 0.2 s
2 files, 5 cases: 1 as expected, 2 not, 1 could not be run, 1 skipped; 13.7 s\
""")


def test_colour_is_not_the_only_carrier() -> None:
    lines = check_lines([FAILED], SECONDS, width=100, color=True)
    assert lines[0].startswith("\x1b[1;31mFAILED\x1b[0m")


def test_nothing_at_all() -> None:
    assert check_lines([], {}, width=100, color=False)[-1].startswith("0 files, 0 cases")


def test_coverage() -> None:
    native = b.chain(
        "my", "in", ["tcp dport 22 counter drop"],
        backend=Backend.NFT, family=TableFamily.INET,
    )  # fmt: skip
    rules = tuple((b.article_rules() | b.ruleset(native)).rules())
    covered = [
        Coverage("article-complete", "legacy", "server", 5, rules[1:]),
        Coverage("live", "", None, 3, ()),
    ]
    assert "\n".join(coverage_lines(covered, width=100, color=False)) == snapshot("""\
article-complete, legacy, namespace server: 1 of 5 rules met
  iptables-legacy  nat      PREROUTING 1  -d 198.51.100.1 -p tcp --dport 8445 -j REDIRECT …
  iptables-legacy  nat      OUTPUT 1      -o lo -p tcp --dport 8445 -j REDIRECT --to-ports 8443
  iptables-legacy  filter   INPUT 1       -m mark --mark 0x1 -j DROP
  nft              inet my  in 1          tcp dport 22 counter drop
live, this namespace: 3 of 3 rules met\
""")


def test_no_rules_at_all() -> None:
    assert list(coverage_lines([], width=100, color=False)) == ["there are no rules"]
