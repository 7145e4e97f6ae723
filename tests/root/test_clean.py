"""`ipttrace clean` removes what dead sessions left, and nothing else."""

from __future__ import annotations

import os
import signal

import pytest

from ipttrace.cli.main import main
from ipttrace.netfilter import Backend, PacketFamily
from ipttrace.system import presence
from ipttrace.system.capabilities import load_modules
from ipttrace.system.guardian import sweep
from tests.root.kernel import Iptables, Namespaces, in_namespace, run, set_sysctl
from tests.root.sessions import (
    Guardians,
    new_session,
    nft_tables,
    own_rules,
    request,
    restore,
    saved_raw,
    tcp_flow,
)
from tests.waiting import wait_until

TAGGED = ("-t", "raw", "-I", "PREROUTING", "-p", "tcp", "-m", "comment", "--comment")


@pytest.fixture
def netns(namespaces: Namespaces) -> str:
    """A namespace with `lo` only."""
    return namespaces.add("littered")


def clean(netns: str) -> list[str]:
    return sweep(in_namespace(netns))


def test_nothing_to_remove(netns: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", "--netns", netns]) == 0
    assert capsys.readouterr().out == f"namespace {netns}: nothing to remove\n"


def test_a_hostile_name_does_not_reach_the_terminal(
    namespaces: Namespaces, capsys: pytest.CaptureFixture[str]
) -> None:
    netns = namespaces.add("x\x1b[31m")
    assert main(["clean", "--netns", netns]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "x\\x1b[31m: nothing to remove" in out


def test_rule_of_a_dead_session(
    netns: str,
    iptables: Iptables,
    backend: Backend,
    family: PacketFamily,
    capsys: pytest.CaptureFixture[str],
) -> None:
    restore(netns, backend, family, ":PREROUTING ACCEPT [11:660]", ":OUTPUT ACCEPT [2:120]")
    before = saved_raw(netns, backend, family)
    iptables(netns, family, *TAGGED, f"ipttrace:{new_session()}", "-j", "TRACE")
    # The test's own iptables-legacy zeroes the policy counters.
    assert len(own_rules(netns, backend, family)) == 1
    assert main(["clean", "--netns", netns]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"namespace {netns}: removed TRACE rule of session ")
    assert out.count("\n") == 1
    assert [line.split(" [")[0] for line in saved_raw(netns, backend, family)] == [
        line.split(" [")[0] for line in before
    ]


def test_policy_counters_survive(netns: str, family: PacketFamily) -> None:
    lines = (":PREROUTING ACCEPT [11:660]", ":OUTPUT ACCEPT [2:120]")
    restore(
        netns,
        Backend.LEGACY,
        family,
        *lines,
        "[1:60] -A PREROUTING -p tcp -m comment --comment ipttrace:dead -j TRACE",
    )
    assert len(clean(netns)) == 1
    assert saved_raw(netns, Backend.LEGACY, family) == list(lines)


def test_rules_of_a_living_session_stay(
    netns: str, guardians: Guardians, iptables: Iptables, backend: Backend, family: PacketFamily
) -> None:
    wanted = request(backend, tcp_flow(family))
    guardian = guardians.start(netns, wanted.session)
    guardian.arm(wanted)
    before = saved_raw(netns, backend, family), nft_tables(netns)
    assert clean(netns) == []
    assert (saved_raw(netns, backend, family), nft_tables(netns)) == before
    iptables(netns, family, *TAGGED, "ipttrace:dead", "-j", "TRACE")
    assert len(clean(netns)) == 1
    assert len(own_rules(netns, backend, family)) == 1
    assert guardian.disarm().warnings == ()


def test_all_that_a_killed_guardian_left(
    netns: str, guardians: Guardians, backend: Backend, family: PacketFamily
) -> None:
    wanted = request(backend, tcp_flow(family))
    guardian = guardians.start(netns, wanted.session)
    guardian.arm(wanted)
    os.kill(guardian.pid, signal.SIGKILL)
    wait_until(lambda: not in_namespace(netns).run(presence.living), what="the session is dead")
    assert len(clean(netns)) == 1
    assert own_rules(netns, backend, family) == []
    assert nft_tables(netns) == []


def test_what_cannot_be_put_back_is_named(
    netns: str, iptables: Iptables, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who was logger before a session is known to it and its guardian alone."""
    iptables(netns, PacketFamily.IPV4, *TAGGED, "ipttrace:dead", "-j", "TRACE")
    load_modules(["nfnetlink_log"])
    set_sysctl(netns, "net/netfilter/nf_log/2", "nfnetlink_log")
    assert main(["clean", "--netns", netns]) == 0
    assert "net.netfilter.nf_log.2 may have been set to nfnetlink_log" in capsys.readouterr().err
    assert main(["clean", "--netns", netns]) == 0
    assert "nf_log" not in capsys.readouterr().err


@pytest.mark.parametrize("comment", ["ipttrace: mine", "my ipttrace:dead", "ipttrace", "ipttraced"])
def test_comments_that_are_not_quite_ours_stay(
    netns: str, iptables: Iptables, backend: Backend, comment: str
) -> None:
    iptables(netns, PacketFamily.IPV4, *TAGGED, comment, "-j", "TRACE")
    before = saved_raw(netns, backend, PacketFamily.IPV4)
    assert clean(netns) == []
    assert saved_raw(netns, backend, PacketFamily.IPV4) == before


def test_rule_of_native_nft(netns: str) -> None:
    run("nft", "add table inet mine", netns=netns)
    run("nft", "add chain inet mine c", netns=netns)
    rule = 'tcp dport 80 meta nftrace set 1 comment "ipttrace:dead"'
    run("nft", f"add rule inet mine c {rule}", netns=netns)
    assert clean(netns) == ["TRACE rule of session dead in inet mine/c (nf_tables)"]
    assert "ipttrace" not in run("nft", "list", "ruleset", netns=netns)
    assert nft_tables(netns) == ["inet mine"]


def test_table_of_a_dead_session(netns: str) -> None:
    run("nft", "add table ip ipttrace-dead", netns=netns)
    run("nft", "add chain ip ipttrace-dead c { type filter hook input priority 0; }", netns=netns)
    run("nft", "add table ip others", netns=netns)
    assert clean(netns) == ["nft table ip ipttrace-dead"]
    assert nft_tables(netns) == ["ip others"]


def test_device_of_a_dead_session(netns: str, guardians: Guardians) -> None:
    load_modules(["tun"])
    run("ip", "tuntap", "add", "iptt0", "mode", "tap", netns=netns)
    guardian = guardians.start(netns, new_session())
    assert clean(netns) == []
    guardian.disarm()
    assert clean(netns) == ["device iptt0"]
    assert run("ip", "-o", "link", netns=netns).count("\n") == 1


def test_several_namespaces(namespaces: Namespaces, capsys: pytest.CaptureFixture[str]) -> None:
    names = [namespaces.add("first"), namespaces.add("second")]
    run("nft", "add table ip ipttrace-dead", netns=names[1])
    assert main(["clean", "--netns", names[0], "--netns", names[1]]) == 0
    assert capsys.readouterr().out == (
        f"namespace {names[0]}: nothing to remove\n"
        f"namespace {names[1]}: removed nft table ip ipttrace-dead\n"
    )


def test_no_such_namespace(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", "--netns", "ipt-there-is-none"]) == 2
    assert "ipt-there-is-none" in capsys.readouterr().err
