# ruff: noqa: E501 -- what a pipe gets is not cut
from __future__ import annotations

import argparse
import json
from dataclasses import replace

import jsonschema
import pytest
from inline_snapshot import snapshot

from ipttrace.checkup.facts import Facts, Listener, Unknown
from ipttrace.checkup.finding import note, ok, problem
from ipttrace.cli import doctor, output
from ipttrace.netfilter import Backend
from ipttrace.render.checkup_table import checkup_lines
from ipttrace.render.schema import json_schema
from ipttrace.render.table import columns
from tests.healthy import MACHINE, NOBODY, facts, table


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    doctor.add_parser(parser.add_subparsers())
    return parser.parse_args(["doctor", *words])


def troubled() -> Facts:
    """A namespace with the trap, a tracer and a leftover, seen by root."""
    return facts(
        "web",
        ("ip", "netns", "exec", "web"),
        legacy=(table(Backend.LEGACY, 3, drops=("INPUT",)),),
        nft=(table(Backend.NFT, 12),),
        listener=Listener(4294963200, 812, "ulogd\x1b[31m"),
        leftovers=("nft table ip ipttrace-dead",),
    )


def test_what_a_pipe_gets(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.show(arguments(), troubled())
    assert capsys.readouterr().out == snapshot("""\
  ok       kernel       Linux 6.18.44, ipttrace 0.1.0, Python 3.11.2
  ok       programs     iptables-legacy 1.8.9, iptables-nft 1.8.9, nft 1.0.6; iptables is iptables-nft
  ok       modules      built in: nf_tables, xt_TRACE, nfnetlink_log, nf_log_syslog, xt_bpf, act_mirred, sch_ingress, tun
  ok       privileges   all that tracing needs
  ok       tracefs      mounted at /sys/kernel/tracing, can be used
  ok       rules        iptables-legacy: ip filter with 3 rules and policy DROP in INPUT
  ok       rules        nf_tables: ip filter with 12 rules
  problem  rules        iptables-legacy and nf_tables both decide: a packet must pass both. iptables (iptables-nft) shows only its own.
           do: See both: ipttrace rules --netns web. Then move the rules of one to the other, and empty it
  note     nflog-group  NFLOG group 0 is held by ulogd\\x1b[31m (pid 812): reports of legacy tables are read from the kernel log instead, which is small and shared
           do: Stop it while you trace legacy tables (kill 812); chains of nf_tables need no group
  ok       nf_log       loggers: ipv4 none, ipv6 none; ipttrace sets its own while it traces, and puts it back
  ok       sessions     no session of yours is at work here
  problem  leftovers    left by a dead session: nft table ip ipttrace-dead
           do: ipttrace clean --netns web
  ok       conntrack    3 connections tracked, 1,000 at most
  ok       sysctl       net.netfilter.nf_conntrack_events = 2: conntrack reports new connections
  ok       sysctl       net.netfilter.nf_conntrack_log_invalid = 0: conntrack logs no packet that it calls invalid
  ok       sysctl       net.netfilter.nf_log_all_netns = 0: the kernel log has netfilter lines of this namespace only
  ok       sysctl       net.ipv4.ip_forward = 0: packets for others are dropped when routed
  ok       sysctl       net.ipv6.conf.all.forwarding = 0: packets for others are dropped when routed
  ok       sysctl       no bridge is here: net.bridge.* are of no account
  ok       sysctl       rp_filter is off on every interface

  2 problems, 1 note, the rest is ok
""")


def test_an_eighty_column_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "width", lambda: 80)
    doctor.show(arguments(), troubled())
    out = capsys.readouterr().out
    assert max(map(columns, out.splitlines())) <= 80
    assert out == snapshot("""\
  ok       kernel       Linux 6.18.44, ipttrace 0.1.0, Python 3.11.2
  ok       programs     iptables-legacy 1.8.9, iptables-nft 1.8.9, nft 1.0.6;
                        iptables is iptables-nft
  ok       modules      built in: nf_tables, xt_TRACE, nfnetlink_log,
                        nf_log_syslog, xt_bpf, act_mirred, sch_ingress, tun
  ok       privileges   all that tracing needs
  ok       tracefs      mounted at /sys/kernel/tracing, can be used
  ok       rules        iptables-legacy: ip filter with 3 rules and policy DROP
                        in INPUT
  ok       rules        nf_tables: ip filter with 12 rules
  problem  rules        iptables-legacy and nf_tables both decide: a packet must
                        pass both. iptables (iptables-nft) shows only its own.
           do: See both: ipttrace rules --netns web. Then move the rules of one
               to the other, and empty it
  note     nflog-group  NFLOG group 0 is held by ulogd\\x1b[31m (pid 812):
                        reports of legacy tables are read from the kernel log
                        instead, which is small and shared
           do: Stop it while you trace legacy tables (kill 812); chains of
               nf_tables need no group
  ok       nf_log       loggers: ipv4 none, ipv6 none; ipttrace sets its own
                        while it traces, and puts it back
  ok       sessions     no session of yours is at work here
  problem  leftovers    left by a dead session: nft table ip ipttrace-dead
           do: ipttrace clean --netns web
  ok       conntrack    3 connections tracked, 1,000 at most
  ok       sysctl       net.netfilter.nf_conntrack_events = 2: conntrack reports
                        new connections
  ok       sysctl       net.netfilter.nf_conntrack_log_invalid = 0: conntrack
                        logs no packet that it calls invalid
  ok       sysctl       net.netfilter.nf_log_all_netns = 0: the kernel log has
                        netfilter lines of this namespace only
  ok       sysctl       net.ipv4.ip_forward = 0: packets for others are dropped
                        when routed
  ok       sysctl       net.ipv6.conf.all.forwarding = 0: packets for others are
                        dropped when routed
  ok       sysctl       no bridge is here: net.bridge.* are of no account
  ok       sysctl       rp_filter is off on every interface

  2 problems, 1 note, the rest is ok
""")


def test_an_ordinary_user(capsys: pytest.CaptureFixture[str]) -> None:
    closed = Unknown("Permission denied")
    given = facts(legacy=closed, nft=closed, listener=closed, leftovers=closed)
    doctor.show(arguments(), replace(given, machine=replace(MACHINE, privileges=NOBODY)))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("  ok")] == snapshot(
        [
            "  problem  privileges   this process lacks CAP_NET_ADMIN, CAP_NET_RAW: nothing can be traced here; what works here is doctor, and in a user namespace of their own lab, check and tui --lab",
            "           do: Run as root: sudo ipttrace ..., or trace in a namespace of your own: unshare -Ur unshare -n",
            "  note     rules        cannot tell which rules iptables-legacy has: Permission denied",
            "           do: To see it, run as root: sudo ipttrace doctor",
            "  note     rules        cannot tell which rules nf_tables has: Permission denied",
            "           do: To see it, run as root: sudo ipttrace doctor",
            "  note     nflog-group  cannot tell who holds NFLOG group 0: Permission denied",
            "           do: To see it, run as root: sudo ipttrace doctor",
            "  note     leftovers    cannot tell whether dead sessions left anything: Permission denied",
            "           do: To see it, run as root: sudo ipttrace doctor",
            "",
            "  1 problem, 4 notes, the rest is ok",
        ]
    )


def test_nothing_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.show(arguments(), facts())
    assert capsys.readouterr().out.endswith("\n\n  nothing stands in the way of a trace\n")


def test_state_is_a_word_with_and_without_colour() -> None:
    findings = [ok("a", "fine"), note("b", "so so", "look"), problem("c", "bad", "mend it")]
    assert list(checkup_lines(findings, width=None, color=False)) == [
        "  ok       a  fine",
        "  note     b  so so",
        "           do: look",
        "  problem  c  bad",
        "           do: mend it",
        "",
        "  1 problem, 1 note, the rest is ok",
    ]
    coloured = list(checkup_lines(findings, width=None, color=True))
    assert coloured[3] == "  \x1b[1;31mproblem\x1b[0m  c  bad"
    assert coloured[0] == "  \x1b[1;32mok\x1b[0m       a  fine"


def test_json_has_a_line_for_every_finding(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    doctor.show(arguments("--json", "--netns", "web"), troubled())
    validator = jsonschema.Draft202012Validator(json_schema())
    found = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    for record in found:
        validator.validate(record)
        assert record["netns"] == "web"
        assert (record["advice"] is None) == (record["state"] == "ok")
    assert {record["record"] for record in found} == {"finding"}
    assert [record["topic"] for record in found if record["state"] == "problem"] == [
        "rules",
        "leftovers",
    ]
