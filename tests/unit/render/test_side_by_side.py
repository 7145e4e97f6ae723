"""Expected and actual way side by side; the text is under review here."""

from __future__ import annotations

from inline_snapshot import snapshot

from ipttrace.checks import Case, State
from ipttrace.lab.comparing import compare
from ipttrace.lab.expectation import Expectation, NatExpectation
from ipttrace.lab.stepping import parting_ways
from ipttrace.path import Outcome, PacketPath
from ipttrace.render.side_by_side import case_lines
from tests import builders as b


def case(expect: Expectation, *paths: PacketPath, client: tuple[str, ...] = ()) -> Case:
    result = b.result(*paths, client=client)
    return Case(
        "check.yaml",
        "article-complete",
        "legacy",
        "outside 8443",
        State.FAILED,
        0.42,
        compare(expect, "server", result),
        parting_ways(expect, "server", result),
        result,
    )


EXPECTED = Expectation(
    outcome=Outcome.DROPPED,
    rule="filter/INPUT 1",
    crosses=("mangle/PREROUTING 1", "nat/PREROUTING", "filter/INPUT 1"),
)
UNMARKED = b.path(
    b.policy_hop("raw", "PREROUTING"),
    b.policy_hop("mangle", "PREROUTING"),
    b.policy_hop("nat", "PREROUTING"),
    b.policy_hop("mangle", "INPUT"),
    b.policy_hop("filter", "INPUT"),
)


def test_where_they_part() -> None:
    lines = case_lines(case(EXPECTED, UNMARKED), width=100, color=False)
    assert "\n".join(lines) == snapshot("""\
! outcome: expected dropped, got delivered
! rule: expected filter/INPUT 1, got filter/INPUT policy
! crosses: expected mangle/PREROUTING 1, which was not met
! crosses: expected filter/INPUT 1 after nat/PREROUTING, which was not met

tcp 203.0.113.7:40000 > 198.51.100.1:8443  SYN  60 bytes
    iptables-legacy, in on eth0, namespace server
     expected                what happened
                             raw      PREROUTING  policy ACCEPT
  !  mangle/PREROUTING 1     mangle   PREROUTING  policy ACCEPT
  =  nat/PREROUTING          nat      PREROUTING  policy ACCEPT
                             mangle   INPUT       policy ACCEPT
  !  filter/INPUT 1 decides  filter   INPUT       policy ACCEPT
  !  dropped                 outcome              delivered
> delivered

note: iptables-legacy reports which rules matched, not what they decided; its verdicts are inferred
  from the rules\
""")


def test_narrow_lines_keep_what_was_expected() -> None:
    wrong = Expectation(rule="filter/INPUT 2", client="CONNECTED", crosses=EXPECTED.crosses)
    lines = case_lines(case(wrong, b.local_path(), client=("TIMEOUT",)), width=80, color=False)
    assert "\n".join(lines) == snapshot("""\
! rule: expected filter/INPUT 2, got filter/INPUT 1
! crosses: expected nat/PREROUTING after mangle/PREROUTING 1, which was not met
! client: expected CONNECTED, got TIMEOUT

tcp 198.51.100.1:40000 > 198.51.100.1:8445  SYN  60 bytes
    iptables-legacy, made here, out by lo, namespace server
     expected                what happened
                             raw      OUTPUT        policy ACCEPT
                             mangle   OUTPUT        policy ACCEPT
                             nat      OUTPUT 1      -o lo -p … -j REDIRECT …  +1
                                                    dport 8445 -> 8443
                             filter   OUTPUT        policy ACCEPT
                             mangle   POSTROUTING   policy ACCEPT
                             nat      POSTROUTING   policy ACCEPT
                             raw      PREROUTING    policy ACCEPT
  =  mangle/PREROUTING 1     mangle   PREROUTING 1  … --dport 8443 -j MARK …  +1
                                                    mark 0 -> 1
                             mangle   PREROUTING    policy ACCEPT
                             mangle   INPUT         policy ACCEPT
  !  nat/PREROUTING          -                      not met
  !  filter/INPUT 2 decides  filter   INPUT 1       … --mark 0x1 -j DROP      +1
                                                    DROP
                             outcome                dropped
  !  CONNECTED               client                 TIMEOUT
x dropped at filter/INPUT 1
  a client sees a timeout

note: iptables-legacy reports which rules matched, not what they decided; its
  verdicts are inferred from the rules\
""")


def test_colour_marks_where_they_part() -> None:
    lines = case_lines(case(EXPECTED, UNMARKED), width=100, color=True)
    assert any("\x1b[1;31m  !  \x1b[0m" in line for line in lines)
    assert not any("\x1b[1;31m  =" in line for line in lines)


def test_what_never_came_shows_what_was_seen() -> None:
    lines = case_lines(case(EXPECTED, b.path(netns="client")), width=100, color=False)
    assert lines[0] == "! no packet of the probe was seen in server"
    assert "namespace client" in "\n".join(lines)


def test_addresses_are_beside_each_other() -> None:
    expect = Expectation(nat=NatExpectation(destination="198.51.100.1:8445"))
    lines = case_lines(case(expect, b.redirect_path()), width=None, color=False)
    [line] = [line for line in lines if "destination" in line and line.startswith("  !")]
    assert line.split() == ["!", "198.51.100.1:8445", "destination", "198.51.100.1:8443"]


def test_names_from_outside_are_cleaned() -> None:
    evil = Expectation(outcome=Outcome.DROPPED, client="CONNECTED")
    lines = case_lines(case(evil, UNMARKED, client=("\x1b]0;x\x07",)), width=None, color=False)
    assert "\x1b" not in "".join(lines)
    assert "\x07" not in "".join(lines)


def test_an_error_says_why() -> None:
    broken = Case("f", "lab", "nft", "p", State.ERROR, message="cannot do it")
    assert case_lines(broken, width=None, color=False) == ["cannot do it"]
