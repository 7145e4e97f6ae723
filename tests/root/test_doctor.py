"""`ipttrace doctor` on the real kernel: it finds what is there, helps, and changes nothing."""

from __future__ import annotations

import json
import os
import resource
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ipttrace.checkup.facts import Interior, Unknown
from ipttrace.cli.main import main
from ipttrace.netfilter import Backend, PacketFamily
from ipttrace.system.facts import read_facts
from ipttrace.system.machine_facts import SWITCHES
from ipttrace.system.netlink_queue import NETLINK_NETFILTER, NetlinkQueue
from tests.root.kernel import Iptables, Namespaces, Pair, in_namespace, run, set_sysctl
from tests.root.sessions import Guardians, request, tcp_flow

TREE = Path(__file__).parents[2]
NOBODY = 65534
TAGGED = ("-t", "raw", "-I", "PREROUTING", "-m", "comment", "--comment")
ACCEPT = ("-A", "INPUT", "-p", "tcp", "--dport", "80", "-j", "ACCEPT")
TIMES = 6.0
"""How much more CPU time than `ipttrace --help` it may take; on slow machines both are slow."""

MACHINE = frozenset({"kernel", "programs", "modules", "privileges", "tracefs"})
"""Topics that are the machine's, whatever a test does."""

UNPRIVILEGED = """
import ctypes, os, sys
from pathlib import Path
import ipttrace.checkup.examine, ipttrace.render.checkup_table, ipttrace.system.facts
from ipttrace.cli.main import main

libc = ctypes.CDLL(None, use_errno=True)
NEWUSER, NEWNET, PR_SET_DUMPABLE = 0x10000000, 0x40000000, 4

def unshare(flags):
    assert libc.unshare(flags) == 0, os.strerror(ctypes.get_errno())
    if flags & NEWUSER:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {nobody} 1")
        Path("/proc/self/gid_map").write_text(f"0 {nobody} 1")

nobody, steps, *words = sys.argv[1:]
os.setgroups([])
os.setresgid(*[int(nobody)] * 3)
os.setresuid(*[int(nobody)] * 3)
assert libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0
for step in steps.split():
    unshare({"-Ur": NEWUSER, "-n": NEWNET, "-Urn": NEWUSER | NEWNET}[step])
sys.exit(main(words))
"""
"""Becomes an ordinary user after all is imported: the checkout may be root's alone.

Its steps are those of unshare(1)."""

Finding = dict[str, Any]
T = TypeVar("T")


@pytest.fixture
def netns(namespaces: Namespaces) -> str:
    """A namespace with `lo` only."""
    return namespaces.add("patient")


def known(read: T | Unknown) -> T:
    assert not isinstance(read, Unknown)
    return read


def interior(netns: str) -> Interior:
    return known(read_facts(in_namespace(netns)).interior)


def parse(output: str) -> list[Finding]:
    return [json.loads(line) for line in output.splitlines()]


def doctor(capfdbinary: pytest.CaptureFixture[bytes], *words: str) -> list[Finding]:
    """Return the findings that are not ok and not the machine's."""
    capfdbinary.readouterr()
    assert main(["doctor", "--json", *words]) == 0
    found = parse(capfdbinary.readouterr().out.decode())
    return [each for each in found if each["state"] != "ok" and each["topic"] not in MACHINE]


def as_nobody(steps: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `ipttrace` as an ordinary user, in the namespaces that `steps` of unshare(1) make."""
    command = [sys.executable, "-c", UNPRIVILEGED, str(NOBODY), steps, *words]
    return subprocess.run(command, cwd=TREE, capture_output=True, text=True, check=False)


def findings_of_nobody(steps: str, *words: str) -> list[Finding]:
    done = as_nobody(steps, "doctor", "--json", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return parse(done.stdout)


def of_topic(found: list[Finding], topic: str) -> list[Finding]:
    return [each for each in found if each["topic"] == topic]


def may_make_namespaces() -> bool:
    return all(
        not path.exists() or path.read_text().strip() != off for path, off in SWITCHES.items()
    )


def follow(advice: str) -> None:
    """Run the command that ends an advice."""
    run(*shlex.split(advice.rpartition(": ")[2]))


# -- it only looks


def state_of(netns: str) -> dict[str, str]:
    """Return what a look could change; the modules are the machine's, and other tests load some."""
    paths = [
        Path("/proc/thread-self/net/ip_tables_names"),
        Path("/proc/thread-self/net/ip6_tables_names"),
        *(Path(f"/proc/sys/net/netfilter/nf_log/{family}") for family in (2, 10)),
    ]
    there = [path for path in paths if path.exists()]
    state = {str(path): in_namespace(netns).run(path.read_text) for path in there}
    state["nft"] = run("nft", "list", "ruleset", netns=netns)
    state["links"] = run("ip", "-o", "link", netns=netns)
    return state


def test_a_fresh_namespace_has_nothing_and_is_left_so(
    netns: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    before = state_of(netns)
    assert doctor(capfdbinary, "--netns", netns) == []
    assert state_of(netns) == before


def test_text_for_people(netns: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--netns", netns]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith("  ok       kernel")


def test_it_takes_little_time(netns: str) -> None:
    least = min(cpu_seconds("--help") for _ in range(3))
    assert min(cpu_seconds("doctor", "--netns", netns) for _ in range(3)) < TIMES * least


def cpu_seconds(*words: str) -> float:
    """Return what `ipttrace` and the programs that it starts take."""

    def spent() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    before = spent()
    program = str(Path(sys.executable).with_name("ipttrace"))
    subprocess.run([program, *words], capture_output=True, check=True)
    return spent() - before


def test_no_such_namespace(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--netns", "ipt-there-is-none"]) == 2
    assert "ipt-there-is-none" in capsys.readouterr().err


# -- rules


def test_rules_in_both_engines(
    netns: str, family: PacketFamily, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    for engine in Backend:
        Iptables(engine)(netns, family, *ACCEPT)
    [found] = doctor(capfdbinary, "--netns", netns)
    assert (found["topic"], found["state"]) == ("rules", "problem")
    assert "both" in found["text"]
    Iptables(Backend.LEGACY)(netns, family, "-F", "INPUT")
    nft_only = doctor(capfdbinary, "--netns", netns)
    assert [each for each in nft_only if "both" in each["text"]] == []


def test_tables_are_counted_as_the_user_does(netns: str, family: PacketFamily) -> None:
    for engine in Backend:
        iptables = Iptables(engine)
        iptables(netns, family, *TAGGED, "ipttrace:dead", "-j", "TRACE")
        iptables(netns, family, "-t", "raw", *ACCEPT[:1], "PREROUTING", *ACCEPT[2:])
        iptables(netns, family, "-P", "FORWARD", "DROP")
        iptables(netns, family, "-A", "FORWARD", "-j", "ACCEPT")
    inside = interior(netns)
    for tables in map(known, (inside.legacy, inside.nft)):
        read = {table.name: table for table in tables}
        assert {name: table.rules for name, table in read.items()} == {"raw": 1, "filter": 1}
        assert read["filter"].drops == ("FORWARD",)
        assert [read[name].forwards for name in ("raw", "filter")] == [False, True]
        assert {table.family for table in tables} == {family.table_family}


def test_a_dormant_table(netns: str) -> None:
    run("nft", "add table inet fw { flags dormant; }", netns=netns)
    run(
        "nft",
        "add chain inet fw c { type filter hook input priority 0; policy drop; }",
        netns=netns,
    )
    [table] = known(interior(netns).nft)
    assert table.drops == ("c",)
    assert not table.decides


# -- leftovers and sessions


def test_a_leftover_rule_goes_as_advised(
    netns: str, iptables: Iptables, family: PacketFamily, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    iptables(netns, family, *TAGGED, "ipttrace:dead", "-j", "TRACE")
    [found] = doctor(capfdbinary, "--netns", netns)
    assert (found["topic"], found["state"]) == ("leftovers", "problem")
    assert "session dead" in found["text"]
    assert found["advice"] == f"ipttrace clean --netns {netns}"
    assert main(found["advice"].split()[1:]) == 0
    assert doctor(capfdbinary, "--netns", netns) == []


def test_leftover_tables_and_devices(netns: str) -> None:
    run("nft", "add table ip ipttrace-dead", netns=netns)
    run("ip", "link", "add", "iptt0", "type", "veth", "peer", "name", "peer0", netns=netns)
    left = interior(netns).leftovers
    assert left == ("nft table ip ipttrace-dead", "device iptt0")


def test_a_living_session_leaves_nothing(
    netns: str, guardians: Guardians, backend: Backend, family: PacketFamily
) -> None:
    wanted = request(backend, tcp_flow(family))
    guardian = guardians.start(netns, wanted.session)
    guardian.arm(wanted)
    inside = interior(netns)
    assert inside.sessions == {wanted.session: os.getpid()}
    assert inside.leftovers == ()
    Iptables(backend)(netns, family, *TAGGED, "ipttrace:dead", "-j", "TRACE")
    [left] = known(interior(netns).leftovers)
    assert "session dead" in left
    Iptables(backend)(netns, family, "-t", "raw", "-D", *TAGGED[3:], "ipttrace:dead", "-j", "TRACE")
    guardian.disarm()
    inside = interior(netns)
    assert (inside.sessions, inside.leftovers) == ({}, ())


@pytest.mark.parametrize("comment", ["ipttrace: mine", "my ipttrace:dead", "ipttraced"])
def test_what_is_not_quite_ours_is_no_leftover(
    netns: str, iptables: Iptables, comment: str
) -> None:
    iptables(netns, PacketFamily.IPV4, *TAGGED, comment, "-j", "TRACE")
    assert interior(netns).leftovers == ()


# -- another listener


@pytest.fixture
def listener(netns: str) -> Iterator[NetlinkQueue]:
    """This process holds NFLOG group 0, at a netlink port that is not its process id."""

    def port() -> socket.socket:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        opened.bind((0, 0))
        return opened

    with in_namespace(netns).run(port):
        queue = NetlinkQueue(in_namespace(netns), legacy=True)
        yield queue
        queue.close()


def test_the_holder_of_the_log_group_is_named(netns: str, listener: NetlinkQueue) -> None:
    held = known(interior(netns).listener)
    assert held is not None
    assert held.pid == os.getpid()
    assert held.port != held.pid
    assert held.name == Path("/proc/self/comm").read_text().strip()


def test_contention_matters_where_legacy_tables_are(
    netns: str, listener: NetlinkQueue, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    [found] = doctor(capfdbinary, "--netns", netns)
    assert found["text"].endswith("there are no legacy tables to need it")
    Iptables(Backend.LEGACY)(netns, PacketFamily.IPV4, "-t", "raw", "-F")
    [found] = doctor(capfdbinary, "--netns", netns)
    assert "are read from the kernel log instead" in found["text"]
    assert f"(kill {os.getpid()})" in found["advice"]


def test_a_listener_that_went_leaves_its_logger(
    netns: str, listener: NetlinkQueue, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    listener.close()
    [found] = doctor(capfdbinary, "--netns", netns)
    assert (found["topic"], found["state"]) == ("nf_log", "note")
    follow(found["advice"])
    assert doctor(capfdbinary, "--netns", netns) == []


# -- settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net/netfilter/nf_conntrack_events", "0"),
        ("net/netfilter/nf_conntrack_log_invalid", "255"),
        ("net/ipv4/conf/all/route_localnet", "1"),
        ("net/ipv4/conf/eth0/route_localnet", "1"),
    ],
)
def test_a_setting_goes_back_as_advised(
    pair: Pair, name: str, value: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    netns = pair.server.netns
    Iptables(Backend.NFT)(netns, PacketFamily.IPV4, "-A", "INPUT", "-m", "state", "--state", "NEW")
    assert doctor(capfdbinary, "--netns", netns) == []
    set_sysctl(netns, name, value)
    [found] = doctor(capfdbinary, "--netns", netns)
    assert (found["topic"], found["state"]) == ("sysctl", "note")
    assert name.rpartition("/")[2] in found["text"]
    follow(found["advice"])
    assert doctor(capfdbinary, "--netns", netns) == []


def test_forward_rules_where_nothing_is_forwarded(
    netns: str, iptables: Iptables, family: PacketFamily, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    iptables(netns, family, "-A", "FORWARD", "-j", "ACCEPT")
    found = [each for each in doctor(capfdbinary, "--netns", netns) if each["topic"] == "sysctl"]
    assert len(found) == 1
    follow(found[0]["advice"])
    after = doctor(capfdbinary, "--netns", netns)
    assert [each for each in after if each["topic"] == "sysctl"] == []


def test_strict_rp_filter(pair: Pair, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    netns = pair.server.netns
    set_sysctl(netns, "net/ipv4/conf/eth0/rp_filter", "1")
    [found] = doctor(capfdbinary, "--netns", netns)
    assert found["text"].startswith("rp_filter is strict on eth0:")
    set_sysctl(netns, "net/ipv4/conf/all/rp_filter", "2")
    assert doctor(capfdbinary, "--netns", netns) == []


def test_an_interface_that_forwards_alone(
    pair: Pair, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    netns = pair.server.netns
    set_sysctl(netns, "net/ipv4/conf/eth0/forwarding", "1")
    [found] = doctor(capfdbinary, "--netns", netns)
    assert found["text"].endswith("come in on eth0 are forwarded")
    follow(found["advice"])
    assert doctor(capfdbinary, "--netns", netns) == []


def test_a_bridge_with_a_switch_of_its_own(
    netns: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    option = ("type", "bridge", "nf_call_ip6tables", "1")
    run("ip", "link", "add", "br7", *option, netns=netns)
    for tool in ("iptables", "ip6tables"):
        set_sysctl(netns, f"net/bridge/bridge-nf-call-{tool}", "0")
    [unseen, seen] = doctor(capfdbinary, "--netns", netns)
    assert unseen["text"].endswith(" iptables does not see frames that br7 bridges")
    assert (
        seen["text"]
        == "nf_call_ip6tables is set on br7: ip6tables also sees frames that it bridges"
    )
    follow(seen["advice"])
    after = doctor(capfdbinary, "--netns", netns)
    assert after[1]["text"].endswith(" ip6tables does not see frames that br7 bridges")


def test_bridges(netns: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    run("ip", "link", "add", "br;$7", "type", "bridge", netns=netns)
    found = doctor(capfdbinary, "--netns", netns)
    assert {each["topic"] for each in found} == {"sysctl"}
    assert all("br;$7 bridges" in each["text"] for each in found)


# -- without privilege


def test_an_ordinary_user() -> None:
    found = findings_of_nobody("")
    assert [each["state"] for each in of_topic(found, "privileges")] == ["problem"]
    assert of_topic(found, "privileges")[0]["advice"].startswith("Run as root: sudo ipttrace")
    closed = [each for each in found if each["text"].startswith("cannot tell")]
    assert {each["advice"] for each in closed} <= {"To see it, run as root: sudo ipttrace doctor"}
    [tracefs] = of_topic(found, "tracefs")
    assert tracefs["advice"] == "Run as root to have them"


def test_a_mount_of_tracefs_is_not_advised_to_whom_it_stays_closed() -> None:
    if may_make_namespaces():
        [tracefs] = of_topic(findings_of_nobody("-Ur -n"), "tracefs")
        assert tracefs["advice"] == "Run as the host's root to have them"


def test_an_ordinary_user_sees_no_other_namespace(netns: str) -> None:
    found = findings_of_nobody("", "--netns", netns)
    [closed] = of_topic(found, "namespace")
    assert closed["text"].endswith("cannot enter " + f"namespace {netns}: Operation not permitted")
    assert closed["advice"].startswith("Run as root")
    assert of_topic(found, "rules") == []


def test_the_advised_namespaces_let_an_ordinary_user_trace() -> None:
    advice = of_topic(findings_of_nobody(""), "privileges")[0]["advice"]
    assert advice.endswith("unshare -Ur unshare -n") == may_make_namespaces()
    if may_make_namespaces():
        found = findings_of_nobody("-Ur -n")
        assert [each for each in found if each["text"].startswith("cannot tell")] == []
        assert of_topic(found, "privileges")[0]["state"] == "note"
        assert "iptables-legacy: no table" in [each["text"] for each in of_topic(found, "rules")]


def test_namespaces_made_at_once_hide_the_legacy_tables() -> None:
    if may_make_namespaces():
        found = findings_of_nobody("-Urn")
        closed = [each for each in found if each["text"].startswith("cannot tell")]
        assert {each["advice"].rpartition(": ")[2] for each in closed} <= {"unshare -Ur unshare -n"}
        assert "nf_tables: no table" in [each["text"] for each in of_topic(found, "rules")]


def test_a_user_namespace_alone_is_not_enough() -> None:
    if may_make_namespaces():
        [found] = of_topic(findings_of_nobody("-Ur"), "privileges")
        assert found["state"] == "problem"
        assert "nothing can be traced" in found["text"]
