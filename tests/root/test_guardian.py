"""What the guardian changes in a namespace, and that all of it goes, however a session ends."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ipttrace.errors import IptTraceError, KernelError, UsageError
from ipttrace.netfilter import Backend, ChainRef, Hook, PacketFamily
from ipttrace.packet import Flow
from ipttrace.request import Trigger
from ipttrace.ruleset import OWN_TABLE
from ipttrace.system.owner_table import OwnerTable
from tests.root.kernel import Namespaces, in_namespace, run, set_sysctl
from tests.root.sessions import (
    FAR,
    LOOPBACK,
    Guardians,
    new_session,
    nft_tables,
    own_rules,
    request,
    restore,
    saved_raw,
    send_udp,
    tcp_flow,
    udp_flow,
)
from tests.waiting import wait_until

USERS = {
    PacketFamily.IPV4: "[7:420] -A PREROUTING -s 198.51.100.9/32 -j ACCEPT",
    PacketFamily.IPV6: "[7:420] -A PREROUTING -s 2001:db8::9/128 -j ACCEPT",
}

RELOADED = "somebody reloaded the rules meanwhile"

PARENT = """
import sys
from ipttrace.netfilter import *
from ipttrace.packet import Flow
from ipttrace.request import TraceRequest, Trigger
from ipttrace.system.guardian import Guardian
from ipttrace.system.namespaces import find_namespace
netns, session, backend, family, src, dst, device = sys.argv[1:]
guardian = Guardian.start(find_namespace(netns), session=session, legacy=backend == "legacy")
flow = Flow(PacketFamily(family), "tcp", src, dst, 40000, 8445)
if device != "-":
    guardian.bequeath(int(device), [b"first frame", b"second frame"], [flow])
guardian.arm(TraceRequest(session, Hook.PREROUTING, flow, contain=True,
             backends=frozenset({Backend(backend)}),
             early_devices=("lo",), early_hooks=(Hook.PREROUTING, Hook.OUTPUT)))
print(guardian.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def netns(namespaces: Namespaces) -> str:
    """A namespace with `lo` only."""
    return namespaces.add("guarded")


@pytest.fixture
def xtables_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock file of this test's own."""
    path = tmp_path / "xtables.lock"
    path.touch()
    monkeypatch.setenv("XTABLES_LOCKFILE", str(path))
    return path


def start_parent(
    netns: str, backend: Backend, family: PacketFamily, session: str, device: int | None = None
) -> subprocess.Popen[str]:
    """Arm in a process that can be killed; returns when the rules stand."""
    words = [netns, session, backend, family, FAR[family], LOOPBACK[family]]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *words, "-" if device is None else str(device)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[] if device is None else [device],
    )
    assert parent.stdout is not None
    assert parent.stdout.readline().strip().isdecimal()
    return parent


def kill(parent: subprocess.Popen[str]) -> None:
    parent.kill()
    parent.communicate()


def test_rule_is_as_narrow_as_asked_and_goes(
    netns: str, guardians: Guardians, backend: Backend, family: PacketFamily
) -> None:
    wanted = replace(request(backend, tcp_flow(family)), in_interface="lo")
    guardian = guardians.start(netns, wanted.session)
    guardian.arm(wanted)
    (rule,) = own_rules(netns, backend, family)
    bits = family.bits
    assert rule.startswith(
        f"[0:0] -A PREROUTING -s {FAR[family]}/{bits} -d {LOOPBACK[family]}/{bits} -i lo -p tcp "
        f"-m tcp --sport 40000 --dport 8445 -m comment --comment "
    )
    assert f"ipttrace:{wanted.session}" in rule
    assert "-m time --datestop 20" in rule
    assert rule.endswith("-j TRACE")
    disarmed = guardian.disarm()
    assert disarmed.clean
    assert disarmed.warnings == ()
    assert own_rules(netns, backend, family) == []
    assert nft_tables(netns) == []


def test_any_source_and_unknown_ports_are_left_out(
    netns: str, guardians: Guardians, backend: Backend, family: PacketFamily
) -> None:
    flow = replace(tcp_flow(family), sport=None)
    wanted = replace(request(backend, flow), any_source=True, hook=Hook.OUTPUT)
    guardians.start(netns, wanted.session).arm(wanted)
    (rule,) = own_rules(netns, backend, family)
    assert rule.startswith(
        f"[0:0] -A OUTPUT -d {LOOPBACK[family]}/{family.bits} -p tcp -m tcp --dport 8445 -m comment"
    )


def test_echo_requests_only(
    netns: str, guardians: Guardians, backend: Backend, family: PacketFamily
) -> None:
    name = "icmp" if family is PacketFamily.IPV4 else "icmp6"
    flow = Flow(family, name, FAR[family], LOOPBACK[family], icmp_id=7)
    wanted = request(backend, flow)
    guardians.start(netns, wanted.session).arm(wanted)
    (rule,) = own_rules(netns, backend, family)
    assert ("--icmp-type 8" if name == "icmp" else "--icmpv6-type 128") in rule


def test_rules_and_counters_of_the_user_stay_as_they_were(
    netns: str, guardians: Guardians, backend: Backend, family: PacketFamily
) -> None:
    restore(
        netns,
        backend,
        family,
        ":PREROUTING DROP [11:660]",
        ":OUTPUT ACCEPT [5:300]",
        ":mine - [0:0]",
        USERS[family],
        "[3:180] -A OUTPUT -j mine",
        "[3:180] -A mine -j RETURN",
    )
    send_udp(netns, family, 2)
    before = saved_raw(netns, backend, family)
    wanted = request(backend, tcp_flow(family))
    guardian = guardians.start(netns, wanted.session)
    guardian.arm(wanted)
    armed = saved_raw(netns, backend, family)
    assert [line for line in armed if wanted.session not in line] == before
    assert guardian.disarm().clean
    assert saved_raw(netns, backend, family) == before


def test_no_legacy_table_but_raw_comes_into_being(
    netns: str, guardians: Guardians, family: PacketFamily
) -> None:
    wanted = request(Backend.LEGACY, tcp_flow(family))
    guardian = guardians.start(netns, wanted.session)
    armed = guardian.arm(wanted)
    guardian.disarm()
    names = "ip_tables_names" if family is PacketFamily.IPV4 else "ip6_tables_names"
    tables = in_namespace(netns).run(Path("/proc/thread-self/net", names).read_text)
    assert tables.split() == ["raw"]
    assert {ref.chain for ref in armed.created} == {"PREROUTING", "OUTPUT"}


def test_existing_legacy_table_is_not_ours(
    netns: str, guardians: Guardians, family: PacketFamily
) -> None:
    restore(netns, Backend.LEGACY, family, USERS[family])
    wanted = request(Backend.LEGACY, tcp_flow(family))
    assert guardians.start(netns, wanted.session).arm(wanted).created == frozenset()


@pytest.mark.parametrize("device", [False, True], ids=["plain", "bequest"])
def test_all_goes_when_the_main_process_is_killed(
    netns: str, backend: Backend, family: PacketFamily, device: bool
) -> None:
    restore(netns, backend, family, ":PREROUTING ACCEPT [11:660]", USERS[family])
    before = saved_raw(netns, backend, family)
    session = new_session()
    read, write = os.pipe()
    parent = start_parent(netns, backend, family, session, write if device else None)
    os.close(write)
    assert len(own_rules(netns, backend, family)) == 1
    own = {table for table in nft_tables(netns) if OWN_TABLE + session in table}
    assert own == {f"{each} {OWN_TABLE}{session}" for each in (family.table_family, "inet")}
    kill(parent)
    wait_until(lambda: saved_raw(netns, backend, family) == before, 2.0, "the raw table as before")
    wait_until(lambda: not any(OWN_TABLE in t for t in nft_tables(netns)), 2.0, "no own table")
    with os.fdopen(read, "rb") as frames:
        assert frames.read() == (b"first framesecond frame" if device else b"")


def test_the_main_process_cleans_up_after_a_killed_guardian(
    netns: str, guardians: Guardians, backend: Backend, family: PacketFamily
) -> None:
    wanted = request(backend, tcp_flow(family))
    guardian = guardians.start(netns, wanted.session)
    guardian.arm(wanted)
    before = nf_log(netns)
    set_sysctl(netns, "net/netfilter/nf_log/2", "nfnetlink_log")
    os.kill(guardian.pid, signal.SIGKILL)
    disarmed = guardian.disarm()
    assert disarmed.clean
    assert "signal 9" in disarmed.warnings[0]
    assert f"TRACE rule of session {wanted.session}" in disarmed.warnings[0]
    assert own_rules(netns, backend, family) == []
    assert nft_tables(netns) == []
    assert nf_log(netns) == before


def test_a_guardian_killed_before_arming_is_an_error(netns: str, guardians: Guardians) -> None:
    wanted = request(Backend.NFT, tcp_flow(PacketFamily.IPV4))
    guardian = guardians.start(netns, wanted.session)
    os.kill(guardian.pid, signal.SIGKILL)
    with pytest.raises(KernelError, match="guardian process was gone"):
        guardian.arm(wanted)


def test_a_killed_guardian_has_nothing_to_release(netns: str, guardians: Guardians) -> None:
    guardian = guardians.start(netns, request(Backend.NFT, tcp_flow(PacketFamily.IPV4)).session)
    os.kill(guardian.pid, signal.SIGKILL)
    gone = pytest.raises(KernelError, match="guardian process was gone")
    with Path(os.devnull).open("wb") as device, gone:
        guardian.bequeath(device.fileno(), [], [])
    guardian.release()


def test_signals_to_the_guardian_do_not_matter(netns: str, guardians: Guardians) -> None:
    wanted = request(Backend.NFT, tcp_flow(PacketFamily.IPV4))
    guardian = guardians.start(netns, wanted.session)
    guardian.arm(wanted)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(guardian.pid, number)
    assert guardian.disarm().clean


def test_disarming_twice_says_the_same(netns: str, guardians: Guardians) -> None:
    wanted = request(Backend.NFT, tcp_flow(PacketFamily.IPV4))
    guardian = guardians.start(netns, wanted.session)
    guardian.arm(wanted)
    assert guardian.disarm() is guardian.disarm()


def test_a_lock_that_is_held_is_waited_for_then_given_up(
    netns: str, guardians: Guardians, xtables_lock: Path
) -> None:
    wanted = request(Backend.LEGACY, tcp_flow(PacketFamily.IPV4))
    guardian = guardians.start(netns, wanted.session)
    with xtables_lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(KernelError, match=rf"\(pid {os.getpid()}\) has held the xtables lock"):
            guardian.arm(wanted)
    (notice,) = guardians.notices
    assert notice.startswith(f"waiting for the xtables lock {xtables_lock}, held by ")
    assert guardian.disarm().clean
    assert own_rules(netns, Backend.LEGACY, PacketFamily.IPV4) == []
    assert nft_tables(netns) == []


def test_a_lock_that_is_released_in_time_is_taken(
    netns: str, guardians: Guardians, xtables_lock: Path
) -> None:
    wanted = request(Backend.LEGACY, tcp_flow(PacketFamily.IPV4))
    guardian = guardians.start(netns, wanted.session)
    with xtables_lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        arming = threading.Thread(target=guardian.arm, args=[wanted])
        arming.start()
        wait_until(lambda: guardians.notices, what="the guardian says that it waits")
    arming.join()
    assert len(own_rules(netns, Backend.LEGACY, PacketFamily.IPV4)) == 1


def test_a_lock_held_at_the_end_is_said_and_outwaited(
    netns: str, guardians: Guardians, xtables_lock: Path
) -> None:
    wanted = request(Backend.LEGACY, tcp_flow(PacketFamily.IPV4))
    guardian = guardians.start(netns, wanted.session)
    guardian.arm(wanted)
    with xtables_lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        disarmed = guardian.disarm()
        assert not disarmed.clean
        assert "has held the xtables lock" in disarmed.warnings[0]
        assert disarmed.warnings[-1].startswith("still trying")
        assert len(own_rules(netns, Backend.LEGACY, PacketFamily.IPV4)) == 1
    wait_until(lambda: not own_rules(netns, Backend.LEGACY, PacketFamily.IPV4), what="rule gone")


def test_rules_reloaded_meanwhile_are_said_and_left_alone(
    netns: str, guardians: Guardians, backend: Backend, family: PacketFamily
) -> None:
    wanted = request(backend, tcp_flow(family))
    guardian = guardians.start(netns, wanted.session)
    guardian.arm(wanted)
    restore(netns, backend, family, ":PREROUTING ACCEPT [1:60]", USERS[family])
    reloaded = saved_raw(netns, backend, family)
    disarmed = guardian.disarm()
    assert disarmed.clean
    assert disarmed.warnings == (
        f"our TRACE rule in raw/PREROUTING ({backend}) was gone at the end: {RELOADED}",
    )
    assert saved_raw(netns, backend, family) == reloaded


def test_nft_chain_and_table_that_we_made_go(
    netns: str, guardians: Guardians, family: PacketFamily
) -> None:
    wanted = request(Backend.NFT, tcp_flow(family))
    guardian = guardians.start(netns, wanted.session)
    ref = ChainRef(Backend.NFT, family.table_family, "raw", "PREROUTING")
    assert guardian.arm(wanted).created == {ref}
    assert f"{family.table_family} raw" in nft_tables(netns)
    guardian.disarm()
    assert nft_tables(netns) == []


def test_nft_chain_and_table_of_the_user_stay(
    netns: str, guardians: Guardians, family: PacketFamily
) -> None:
    name = ("raw", "PREROUTING")
    chain = "{ type filter hook prerouting priority -300; }"
    run("nft", f"add table {family.table_family} raw", netns=netns)
    run("nft", f"add chain {family.table_family} {' '.join(name)} {chain}", netns=netns)
    before = run("nft", "-a", "list", "ruleset", netns=netns)
    wanted = request(Backend.NFT, tcp_flow(family))
    guardian = guardians.start(netns, wanted.session)
    assert guardian.arm(wanted).created == frozenset()
    guardian.disarm()
    assert run("nft", "-a", "list", "ruleset", netns=netns) == before


def test_rule_that_somebody_put_into_our_nft_chain_stays(
    netns: str, guardians: Guardians, family: PacketFamily
) -> None:
    wanted = request(Backend.NFT, tcp_flow(family))
    guardian = guardians.start(netns, wanted.session)
    guardian.arm(wanted)
    table = f"{family.table_family} raw"
    run("nft", f"add rule {table} PREROUTING counter accept", netns=netns)
    assert guardian.disarm().clean
    left = run("nft", "list", "ruleset", netns=netns)
    assert "counter packets 0 bytes 0 accept" in left
    assert wanted.session not in left


def test_set_that_somebody_put_into_our_nft_table_stays(netns: str, guardians: Guardians) -> None:
    wanted = request(Backend.NFT, tcp_flow(PacketFamily.IPV4))
    guardian = guardians.start(netns, wanted.session)
    guardian.arm(wanted)
    run("nft", "add set ip raw theirs { type ipv4_addr; }", netns=netns)
    assert guardian.disarm().clean
    left = run("nft", "list", "ruleset", netns=netns)
    assert "set theirs" in left
    assert "chain" not in left


def test_two_sessions_at_once(
    netns: str, guardians: Guardians, backend: Backend, family: PacketFamily
) -> None:
    wants = [request(backend, tcp_flow(family)) for _ in range(2)]
    first, second = (guardians.start(netns, wanted.session) for wanted in wants)
    first.arm(wants[0])
    second.arm(wants[1])
    assert len(own_rules(netns, backend, family)) == 2
    assert first.disarm().clean
    (left,) = own_rules(netns, backend, family)
    assert wants[1].session in left
    assert second.disarm().clean
    assert own_rules(netns, backend, family) == []
    assert nft_tables(netns) == []


def test_a_session_is_not_started_twice(netns: str, guardians: Guardians) -> None:
    session = new_session()
    guardians.start(netns, session)
    with pytest.raises(KernelError, match=f"session {session}"):
        guardians.start(netns, session)


@pytest.mark.parametrize("name", ["", "A", "a b", 'a"', "x" * 17])
def test_names_of_sessions_are_plain(netns: str, guardians: Guardians, name: str) -> None:
    with pytest.raises(UsageError):
        guardians.start(netns, name)


def test_half_failed_arming_leaves_nothing(
    netns: str,
    guardians: Guardians,
    family: PacketFamily,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The legacy rule stands already when iptables-nft fails."""
    for name in ("iptables-nft", "ip6tables-nft"):
        broken = tmp_path / name
        broken.write_text("#!/bin/sh\necho out of order >&2\nexit 4\n")
        broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    wanted = replace(request(Backend.LEGACY, tcp_flow(family)), backends=frozenset(Backend))
    restore(netns, Backend.LEGACY, family, ":PREROUTING ACCEPT [11:660]", USERS[family])
    before = saved_raw(netns, Backend.LEGACY, family)
    guardian = guardians.start(netns, wanted.session)
    with pytest.raises(KernelError, match=r"cannot add TRACE rule to raw/PREROUTING.*out of order"):
        guardian.arm(wanted)
    assert saved_raw(netns, Backend.LEGACY, family) == before
    assert nft_tables(netns) == []


def test_a_taken_table_name_is_an_error_and_changes_nothing(
    netns: str, guardians: Guardians
) -> None:
    wanted = request(Backend.LEGACY, tcp_flow(PacketFamily.IPV4))
    other = in_namespace(netns).run(lambda: made_table(wanted))
    guardian = guardians.start(netns, wanted.session)
    with pytest.raises(IptTraceError, match="cannot create nft table"):
        guardian.arm(wanted)
    assert own_rules(netns, Backend.LEGACY, PacketFamily.IPV4) == []
    other.close()


def made_table(wanted: object) -> OwnerTable:
    from ipttrace.request import TraceRequest

    assert isinstance(wanted, TraceRequest)
    table = OwnerTable(wanted, conntrack_active=False)
    table.create()
    return table


def nf_log(netns: str) -> str:
    path = Path("/proc/sys/net/netfilter/nf_log/2")
    return in_namespace(netns).run(path.read_text).strip()


@pytest.mark.parametrize("before", ["NONE", "nf_log_ipv4"])
def test_log_setting_is_put_back(netns: str, guardians: Guardians, before: str) -> None:
    set_sysctl(netns, "net/netfilter/nf_log/2", before)
    guardian = guardians.start(netns, new_session())
    set_sysctl(netns, "net/netfilter/nf_log/2", "nfnetlink_log")
    guardian.disarm()
    assert nf_log(netns) == before


def test_log_setting_of_somebody_else_stays(netns: str, guardians: Guardians) -> None:
    guardian = guardians.start(netns, new_session())
    set_sysctl(netns, "net/netfilter/nf_log/2", "NONE")
    guardian.disarm()
    assert nf_log(netns) == "NONE"


def test_the_last_of_two_sessions_puts_the_log_setting_back(
    netns: str, guardians: Guardians
) -> None:
    before = nf_log(netns)
    first = guardians.start(netns, new_session())
    set_sysctl(netns, "net/netfilter/nf_log/2", "nfnetlink_log")
    second = guardians.start(netns, new_session())
    first.disarm()
    assert nf_log(netns) == "nfnetlink_log"
    second.disarm()
    assert nf_log(netns) == before


def test_quiet_takes_the_trigger_but_not_the_table(
    netns: str, guardians: Guardians, backend: Backend, family: PacketFamily
) -> None:
    wanted = replace(request(backend, udp_flow(family)), contain=True)
    guardian = guardians.start(netns, wanted.session)
    guardian.arm(wanted)
    send_udp(netns, family, 3)
    guardian.quiet()
    assert own_rules(netns, backend, family) == []
    assert any(OWN_TABLE + wanted.session in table for table in nft_tables(netns))
    assert guardian.disarm().clean


def test_owner_trigger_touches_no_table_of_the_user(
    netns: str, guardians: Guardians, backend: Backend, family: PacketFamily
) -> None:
    wanted = replace(request(backend, udp_flow(family), hook=Hook.OUTPUT), trigger=Trigger.OWNER)
    guardian = guardians.start(netns, wanted.session)
    armed = guardian.arm(wanted)
    assert armed.created == frozenset()
    assert armed.own_table == (family.table_family, OWN_TABLE + wanted.session)
    assert nft_tables(netns) == [f"{family.table_family} {OWN_TABLE}{wanted.session}"]
    assert saved_raw(netns, backend, family) == []
    send_udp(netns, family, 2)
    assert guardian.disarm().hits == 2
