"""Twins of hosts on the real kernel: quick, alike, honest about what they lack, and gone after."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ipttrace.cli.compose import trace_probe
from ipttrace.cli.lab_twin import probe_of
from ipttrace.lab.host_state import Snapshot
from ipttrace.lab.scenario import parse_scenario
from ipttrace.lab.snapshot_file import (
    decode_snapshot,
    encode_snapshot,
    one_liner,
    read_sections,
    snapshot_of_sections,
)
from ipttrace.netfilter import Backend, PacketFamily
from ipttrace.path import ChainHop, Role
from ipttrace.probe import ProbeSpec
from ipttrace.render.schema import SHIPPED
from ipttrace.result import TraceResult
from ipttrace.system.host_state import listeners_in_proc, read_host
from ipttrace.system.lab_builder import Lab, LabBuilder
from ipttrace.system.lab_records import Record, records, sweep
from ipttrace.system.namespaces import NAMED
from ipttrace.system.twins import Twin, read_twin
from tests.root.expected import hits, told
from tests.root.footprint import look
from tests.root.kernel import Iptables, Listeners, Namespaces, in_namespace, run, unique_name
from tests.root.oracle import Monitor, Rules, monitored
from tests.save_files import GENERATORS, SaveSample
from tests.waiting import wait_until

UP_IN = 2.0
"""Seconds; of 5,000 rules."""

DEFAULT = ("docker", "fail2ban")
CASES = [
    pytest.param(
        make,
        backend,
        id=f"{make.__name__}-{backend}",
        marks=[] if make.__name__ in DEFAULT else [pytest.mark.full],
    )
    for make in GENERATORS
    for backend in Backend
]

SCHEMA = jsonschema.Draft202012Validator(json.loads(SHIPPED.read_text(encoding="utf-8")))
SLOW_MACHINE = pytest.mark.timeout(240)
"""5,000 rules are read before and after each probe, while others work."""

Build = Callable[[Path, str], tuple[Twin, Lab]]


@pytest.fixture
def build() -> Iterator[Build]:
    """Builds the twin of a file: `build(path, backend)`; takes all of them down."""
    labs: list[Lab] = []
    builder = LabBuilder(unique_name("twin"))

    def made(path: Path, backend: str = "as-is") -> tuple[Twin, Lab]:
        twin = read_twin(str(path), backend)
        labs.append(builder.up(twin.topology, twin.backend))
        return twin, labs[-1]

    yield made
    for lab in labs:
        lab.down()


def ipttrace(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the program; its exit status is the caller's to judge."""
    command = [sys.executable, "-m", "ipttrace.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def left() -> set[str]:
    """Return the twins that are up; other tests' may be among them for a while."""
    return {path.name for path in NAMED.iterdir() if path.name.endswith(("-twin", "-wire"))}


def nothing_more(before: set[str]) -> bool:
    return left() <= before


# ---------------------------------------------------------------- 5,000 rules


@SLOW_MACHINE
@pytest.mark.parametrize(("make", "backend"), CASES)
def test_the_kernels_own_trace_names_the_same_rules(
    build: Build, tmp_path: Path, make: Callable[[int], SaveSample], backend: Backend
) -> None:
    sample = make(5000)
    path = tmp_path / f"{sample.name}.v4"
    path.write_text(sample.text)
    twin, lab = build(path, str(backend))
    assert twin.missing == ()
    netns = lab.namespaces["twin"]
    for words in sample.probes:
        check = check_monitor if backend is Backend.NFT else check_counters
        result = check(netns, words)
        [probe] = [each for each in result.paths if each.role is Role.PROBE]
        assert any(hop.number for hop in probe.chain_hops), f"{words} met no rule"


def probe(netns: str, words: str, answer: Callable[[TraceResult], None]) -> TraceResult:
    spec = replace(probe_of(words), netns=(netns,))
    return trace_probe(spec, answer=answer, note=lambda _: None, follows=False)


def check_monitor(netns: str, words: str) -> TraceResult:
    """Compare every hop with what `nft monitor trace` says of the very same packets."""
    known = Rules(netns, "ip")
    with Monitor(netns) as monitor:
        result = probe(netns, words, lambda _: None)
        ours = [
            place_of(one.hop) for one in told(result.paths) if one.hop.chain.backend is Backend.NFT
        ]
        wait_until(lambda: len(monitored(list(monitor.lines), known)) >= len(ours))
        heard = monitored(list(monitor.lines), known)
    theirs = [
        f"{each.spot.table}/{each.spot.chain} {each.spot.number or each.spot.event}"
        for each in heard
        if each.spot
    ]
    assert ours == theirs
    return result


def place_of(hop: ChainHop) -> str:
    return f"{hop.chain.table}/{hop.chain.chain} {hop.number or hop.event}"


def check_counters(netns: str, words: str) -> TraceResult:
    """Compare with the counters: those of the rules that were met rose, by one a packet."""
    before = look(netns, PacketFamily.IPV4, [Backend.LEGACY])
    rises = {}

    def count(_: TraceResult) -> None:
        later = look(netns, PacketFamily.IPV4, [Backend.LEGACY])
        rises.update(before.rises(later))

    result = probe(netns, words, count)
    met = hits(result.paths)
    rules = {at: rise for at, rise in rises.items() if rise and at[1] != "raw"}
    assert rules == {at: count for at, count in met.items() if at[1] != "raw"}
    return result


@SLOW_MACHINE
@pytest.mark.parametrize(("make", "backend"), CASES)
def test_a_twin_of_5000_rules_is_up_in_two_seconds(
    tmp_path: Path, make: Callable[[int], SaveSample], backend: Backend
) -> None:
    sample = make(5000)
    path = tmp_path / f"{sample.name}.v4"
    path.write_text(sample.text)
    name = f"t{os.getpid()}-{make.__name__.replace('_', '-')[:8]}"
    took = []
    for _ in range(3):
        took.append(time_of("lab", "twin", str(path), "--backend", str(backend), "--name", name))
        assert ipttrace("lab", "down", name).returncode == 0
        if took[-1].passed <= UP_IN or others_work():
            break
    assert min(each.worked for each in took) <= UP_IN, took
    assert others_work() or min(each.passed for each in took) <= UP_IN, took


def others_work() -> bool:
    return os.getloadavg()[0] > (os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds of a command."""

    passed: float
    worked: float
    """By a processor, for it and for the programs that it waited for."""


def time_of(*words: str) -> Took:
    """Run the program to its end; it must succeed and lack nothing."""
    begun = time.monotonic()
    command = [sys.executable, "-m", "ipttrace.cli.main", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        said = process.stdout.read().decode()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, said
    assert "not reproduced" not in said
    return Took(time.monotonic() - begun, used.ru_utime + used.ru_stime)


# ---------------------------------------------------------------- what is refused


REFUSED = """\
# Generated by iptables-save v1.3.8
*nosuch
:A - [0:0]
-A A -j ACCEPT
COMMIT
*filter
:INPUT DROP [0:0]
:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa - [0:0]
-A INPUT -i eth0 -d ! 192.0.2.9 -p tcp --dport 81 -j ACCEPT
-A INPUT -m nosuch -j ACCEPT
-A INPUT -m nosuch --word -j DROP
-A INPUT -p tcp -m tcp --dport 99922 -j ACCEPT
-A INPUT -j NOTHERE
-A INPUT -j ULOG
-A INPUT -m set --match-set names src -j ACCEPT
-A INPUT -p tcp -j TPROXY --on-port 3
-A INPUT -p tcp -M /bin/true -j ACCEPT
-A INPUT -m comment --comment "\x1b[31mred\x07" -p tcp --dport 82 -j ACCEPT
-A aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa -j ACCEPT
-A UNDECLARED -j ACCEPT
no rule at all
-A INPUT -i an-interface-with-a-long-name -j ACCEPT
-A INPUT -p tcp --dport 83 -j ACCEPT
COMMT
*nat
-A POSTROUTING -o eth0 -j MASQUERADE
-A PREROUTING -j MASQUERADE
-A POSTROUTING -j DROP
COMMIT
"""
BAD_LINES = [2, 3, 4, 8, 10, 11, 12, 13, 14, 15, 16, 17, 19, 20, 21, 22, 24, 27, 28]


def test_each_refused_line_is_named_and_the_rest_is_loaded(
    build: Build, tmp_path: Path, backend: Backend
) -> None:
    path = tmp_path / "rules.v4"
    path.write_text(REFUSED.replace("\n", "\r\n"))
    twin, lab = build(path, str(backend))
    assert [each.line for each in twin.missing] == BAD_LINES
    assert all(each.reason and str(each).isprintable() for each in twin.missing)
    assert any("old syntax" in note and "! -d 192.0.2.9" in note for note in twin.notes)
    assert any("CRLF" in note for note in twin.notes)
    assert any("no COMMIT" in note for note in twin.notes)
    saved = Iptables(backend).save(lab.namespaces["twin"], PacketFamily.IPV4)
    rules = [line for line in saved.splitlines() if " -A INPUT " in line]
    assert [place for place, rule in enumerate(rules, 1) if "not-reproduced" not in rule] == [
        1,
        10,
        12,
    ], "the numbers of the rules are those of the file"


def test_rules_with_the_same_fault_are_found_quickly(build: Build, tmp_path: Path) -> None:
    lines = ["*filter", ":INPUT ACCEPT [0:0]"]
    for number in range(5000):
        lines.append(f"-A INPUT -s 10.1.{number // 250}.{number % 250}/32 -j ACCEPT")
        if number % 10 == 0:
            lines.append(f"-A INPUT -p tcp -j TPROXY --on-port {number + 1}")
            lines.append(f"-A INPUT -p tcp --dport {number + 70000} -j ACCEPT")
    path = tmp_path / "rules.v4"
    path.write_text("\n".join([*lines, "COMMIT", ""]))
    for backend in Backend:
        begun = time.monotonic()
        twin = read_twin(str(path), str(backend))
        assert len(twin.missing) == 1000
        assert time.monotonic() - begun < 30, "one or two seconds where nobody else works"


@SLOW_MACHINE
@pytest.mark.full
def test_50000_rules(build: Build, tmp_path: Path, backend: Backend) -> None:
    path = tmp_path / "rules.v4"
    path.write_text(GENERATORS[2](50000).text)
    begun = time.monotonic()
    twin, _ = build(path, str(backend))
    assert twin.missing == ()
    assert time.monotonic() - begun < 120, "a few seconds where nobody else works"


WITH_SETS = """\
### iptables-save -c
*filter
:INPUT ACCEPT [0:0]
-A INPUT -i eth0 -m set --match-set bad src -j DROP
-A INPUT -i eth0 -m set --match-set ports src,dst -j REJECT
-A INPUT -i eth0 -m set --match-set odd dst -j DROP
-A INPUT -i eth0 -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
### ipset save
create bad hash:net family inet hashsize 1024 maxelem 65536
add bad 203.0.113.0/24
create ports hash:net,port family inet
add ports 198.18.0.0/15,tcp:22
create odd bitmap:port range 1-9
### end
"""


def test_ipsets_are_built_without_that_program(
    build: Build, tmp_path: Path, backend: Backend
) -> None:
    path = tmp_path / "host.txt"
    path.write_text(WITH_SETS)
    twin, lab = build(path, str(backend))
    assert [(each.source, each.line) for each in twin.missing] == [("ipset", 5), ("iptables", 5)]
    for source, rule in (("203.0.113.9", 1), ("198.18.0.9", 2), ("198.51.100.9", 4)):
        words = f"tcp 192.0.2.1:22 --in eth0 --src {source}"
        result = probe(lab.namespaces["twin"], words, lambda _: None)
        [path_of] = [each for each in result.paths if each.role is Role.PROBE]
        met = [hop.number for hop in path_of.chain_hops if hop.chain.table == "filter"]
        assert met[-1] == rule, words


# ---------------------------------------------------------------- snapshots


HOST = """\
link set lo up
link add eth0 mtu 1400 type veth peer name far0
link set eth0 up
link set far0 up
link add br0 type bridge
link add vnet0 type veth peer name far1
link set br0 up
link set vnet0 master br0 up
link set far1 up
link add docker0 type bridge
link set docker0 up
link add eth9 type veth peer name far9
link add ifb7 type ifb
address add 192.0.2.10/24 dev eth0
address add 10.9.9.1 peer 10.9.9.2/32 dev eth0
address add 2001:db8::10/64 dev eth0 nodad
address add 203.0.113.1/32 dev lo
address add 192.168.122.1/24 dev br0
address add 172.17.0.1/16 dev docker0
route add default via 192.0.2.1 metric 100
route add 10.8.0.0/16 via 192.0.2.2 mtu 1300
route add blackhole 10.99.0.0/16
route add 100.64.0.1/32 via 198.51.100.7 dev eth0 onlink
route add default via 192.0.2.3 table 100
route add 10.7.0.0/16 dev eth0 src 203.0.113.1
route add default via 2001:db8::1
rule add from 10.1.0.0/16 lookup 100 priority 500
rule add fwmark 0x1/0xff iif eth0 lookup 100 priority 501
rule add to 10.66.0.0/16 prohibit priority 504
rule add not fwmark 0xca6c lookup 51820 priority 700
rule add lookup main suppress_prefixlength 0 priority 699
rule add uidrange 1000-1999 lookup 100 priority 505
rule add tos 0x10 lookup 100 priority 506
rule add ipproto tcp sport 1024-65000 dport 443 prohibit priority 507
rule add oif eth0 ipproto icmp lookup 100 priority 508
"""
POLICY_6 = "-6 rule add from 2001:db8:1::/48 lookup 100 priority 600"
NATIVE = """\
table inet native {
	set names {
		type ipv4_addr
		elements = { 10.0.0.1, 10.0.0.2 }
	}
	chain input {
		type filter hook input priority 0; policy accept;
		ip saddr @names counter drop
	}
}
table netdev early {
	chain ingress {
		type filter hook ingress device "eth0" priority 0; policy accept;
		ip saddr 203.0.113.99 counter drop
	}
}
"""


@pytest.fixture
def host(namespaces: Namespaces, listen: Listeners) -> str:
    """A namespace with some of everything; returns its name."""
    netns = namespaces.add("host")
    run("ip", "-batch", "-", netns=netns, stdin=HOST)
    run("ip", *POLICY_6.split(), netns=netns)
    run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.eth0.rp_filter=2", netns=netns)
    v4, v6 = PacketFamily.IPV4, PacketFamily.IPV6
    legacy, nft = Iptables(Backend.LEGACY), Iptables(Backend.NFT)
    legacy(netns, v4, "-A", "INPUT", "-p", "tcp", "--dport", "23", "-j", "DROP")
    legacy(netns, v6, "-A", "INPUT", "-p", "tcp", "--dport", "23", "-j", "DROP")
    nft(netns, v4, "-A", "FORWARD", "-m", "comment", "--comment", "two words", "-j", "ACCEPT")
    nft(netns, v6, "-P", "FORWARD", "DROP")
    run("nft", "-f", "-", netns=netns, stdin=NATIVE)
    listen(netns, "0.0.0.0", 22)
    listen(netns, "::", 8080)
    listen(netns, "127.0.0.1", 3306)
    listen(netns, "192.0.2.10", 53, "udp")
    return netns


def state(netns: str) -> Snapshot:
    return read_host(in_namespace(netns), time.time())


def test_a_twin_of_a_snapshot_is_like_the_host(build: Build, host: str, tmp_path: Path) -> None:
    before = state(host)
    assert before.unread == ()
    path = tmp_path / "host.json"
    path.write_bytes(encode_snapshot(before))
    twin, lab = build(path, "as-is")
    assert [str(each) for each in twin.missing] == []
    after = state(lab.namespaces["twin"])
    assert {comparable(link) for link in after.links} == {comparable(link) for link in before.links}
    assert routes(after) == routes(before)
    assert after.policy == before.policy
    assert set(words(after)) == set(words(before))
    assert after.sysctls["net.ipv4.conf.eth0.rp_filter"] == "2"
    assert after.sysctls["net.ipv4.ip_forward"] == "1"
    for program in ("iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft"):
        assert rules_of(after, program) == rules_of(before, program), program
    native = [snapshot.saved("nft").partition("table inet")[2] for snapshot in (after, before)]
    assert native[0] == native[1] != ""


SMALL = """\
link add eth0 type veth peer name far
address add 192.0.2.1/24 dev eth0
link set eth0 up
link set far up
"""
DROP_23 = ("-A", "INPUT", "-p", "tcp", "--dport", "23", "-j", "DROP")
IN_BOTH = """table inet native {
  chain input { type filter hook input priority 0; tcp dport 23 drop; }
}"""


@pytest.mark.parametrize("native_first", [True, False], ids=["native first", "iptables first"])
def test_chains_at_one_priority_are_asked_in_the_order_of_the_host(
    build: Build, namespaces: Namespaces, native_first: Any, tmp_path: Path
) -> None:
    netns = namespaces.add("host")
    run("ip", "-batch", "-", netns=netns, stdin=SMALL)
    for native in (native_first, not native_first):
        if native:
            run("nft", "-f", "-", netns=netns, stdin=IN_BOTH)
        else:
            Iptables(Backend.NFT)(netns, PacketFamily.IPV4, *DROP_23)
    path = tmp_path / "host.json"
    path.write_bytes(encode_snapshot(state(netns)))
    _, lab = build(path, "as-is")
    words = "tcp 192.0.2.1:23 --in eth0 --src 192.0.2.7"
    on_host, on_twin = (
        [str(hop.chain) for hop in probe(where, words, lambda _: None).paths[0].chain_hops]
        for where in (netns, lab.namespaces["twin"])
    )
    assert on_twin[-1] == on_host[-1] == ("filter/INPUT" if native_first else "native/input")


def comparable(link: object) -> tuple[object, ...]:
    """A link without what a stand-in cannot have."""
    from ipttrace.lab.host_state import LinkState

    assert isinstance(link, LinkState)
    addresses = frozenset(text for text in link.addresses if not text.startswith("fe80:"))
    return link.name, link.up, link.mtu, link.mac if link.name != "ifb7" else "", addresses


def routes(snapshot: Snapshot) -> set[tuple[object, ...]]:
    return {
        (
            each.to,
            each.via,
            each.interface,
            each.table,
            each.type,
            each.source,
            each.metric,
            each.mtu,
        )
        for each in snapshot.routes
        if not each.to.startswith(("fe80", "10.9.9.2"))
    }


def words(snapshot: Snapshot) -> Iterator[tuple[str, str, int]]:
    """Yield the sockets; one for both families as two, as a lab has them."""
    for each in snapshot.listeners:
        for address in ("0.0.0.0", "::") if each.address == "*" else (each.address,):
            yield each.protocol, address, each.port


def rules_of(snapshot: Snapshot, program: str) -> list[str]:
    lines = snapshot.saved(program).splitlines()
    return [
        line.partition(" [")[0].rpartition("] ")[2] for line in lines if not line.startswith("#")
    ]


def test_a_snapshot_changes_nothing(namespaces: Namespaces) -> None:
    netns = namespaces.add("empty")
    names = [Path(f"/proc/thread-self/net/{name}_tables_names") for name in ("ip", "ip6")]
    before = [in_namespace(netns).run(name.read_text) for name in names]
    snapshot = state(netns)
    assert [in_namespace(netns).run(name.read_text) for name in names] == before == ["", ""]
    assert run("nft", "list", "ruleset", netns=netns) == ""
    assert snapshot.rules == ()
    assert [link.name for link in snapshot.links] == ["lo"]


def test_the_line_of_shell_says_the_same(host: str, tmp_path: Path) -> None:
    line = one_liner().replace("host.txt", str(tmp_path / "host.txt"))
    run("sh", "-c", line, netns=host)
    theirs = snapshot_of_sections(read_sections((tmp_path / "host.txt").read_text()))
    ours = state(host)
    assert theirs.unread == ()
    assert theirs.links == ours.links
    assert theirs.routes == ours.routes
    assert theirs.policy == ours.policy
    assert set(words(theirs)) == set(words(ours))
    assert theirs.sysctls.items() >= {
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.conf.eth0.rp_filter", "2"),
    }
    for program in ("iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft"):
        assert rules_of(theirs, program) == rules_of(ours, program)


def test_sockets_are_found_without_ss(host: str) -> None:
    found = in_namespace(host).run(listeners_in_proc)
    assert {(each.protocol, each.address, each.port) for each in found} == {
        (each.protocol, each.address, each.port) for each in state(host).listeners
    }


def test_the_line_of_shell_makes_a_twin(host: str, tmp_path: Path) -> None:
    line = one_liner().replace("host.txt", str(tmp_path / "host.txt"))
    run("sh", "-c", line, netns=host)
    done = ipttrace(
        "lab",
        "twin",
        str(tmp_path / "host.txt"),
        "--probe",
        "tcp 192.0.2.10:23 --in eth0",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert "not reproduced" not in done.stderr
    records = [json.loads(text) for text in done.stdout.splitlines()]
    for record in records:
        SCHEMA.validate(record)
    assert [each["record"] for each in records] == ["twin", "path", "summary"]
    path = next(each for each in records if each["record"] == "path")
    assert path["outcome"] == "dropped"
    assert path["diagnosis"]["rules"][0]["number"] == 1


def test_the_file_is_private_and_whole_or_not_there(host: str, tmp_path: Path) -> None:
    path = tmp_path / "host.json"
    path.write_text("older")
    path.chmod(0o644)
    done = ipttrace("lab", "snapshot", "--netns", host, "-o", str(path))
    assert done.returncode == 0, done.stderr
    assert path.stat().st_mode & 0o777 == 0o600
    assert decode_snapshot(path.read_text(), "host.json").links
    done = ipttrace("lab", "snapshot", "--netns", host, "-o", str(tmp_path / "no" / "host.json"))
    assert (done.returncode, "no directory" in done.stderr) == (2, True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["host.json"]


# ---------------------------------------------------------------- the command


def test_probes_are_answered_and_the_twin_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "rules.v4"
    path.write_text(REFUSED)
    before = left()
    words = ("--probe", "tcp 192.0.2.1:83 --in eth0", "--probe", "tcp 192.0.2.1:84 --in eth0")
    done = ipttrace("lab", "twin", str(path), *words)
    assert done.returncode == 0, done.stderr
    assert "-p tcp -m tcp --dport 83 -j ACCEPT" in done.stdout
    assert "dropped at filter/INPUT policy" in done.stdout
    assert "rules.v4 line 14: -A INPUT -j ULOG: the kernel has no extension ULOG" in done.stderr
    wait_until(lambda: nothing_more(before), what="the twin gone")


def test_a_twin_needs_no_root(backend: Backend) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder, "rules.v4")
        path.write_text(REFUSED)
        nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        program = Path(sys.executable).with_name("ipttrace")
        words = ("--backend", str(backend), "--probe", "tcp 192.0.2.1:83 --in eth0", "--json")
        done = subprocess.run(
            (*nobody, program, "lab", "twin", path, *words),
            cwd=folder,
            env=os.environ | {"HOME": folder},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    path_record = json.loads(done.stdout.splitlines()[1])
    assert (path_record["record"], path_record["outcome"]) == ("path", "delivered")
    assert "rules.v4 line 14: -A INPUT -j ULOG: " in done.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda each: each.name)
def test_a_killed_twin_is_gone(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "rules.v4"
    path.write_text(REFUSED)
    command = [sys.executable, "-m", "ipttrace.cli.main", "lab", "twin", str(path)]
    silent = ["--probe", "tcp 198.51.100.77:9 --wait 60"]

    def up() -> list[Record]:
        return [each for each in records() if str(path) in each.title]

    with subprocess.Popen([*command, *silent], stderr=subprocess.DEVNULL) as process:
        wait_until(up, 20, what="the twin")
        [record] = up()
        wait_until(lambda: all((NAMED / each).exists() for each in record.namespaces.values()), 20)
        process.send_signal(number)
        process.wait(20)
    wait_until(lambda: not any((NAMED / each).exists() for each in record.namespaces.values()), 20)
    sweep()
    assert up() == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "neither a snapshot"),
        ("\x00\x01\x02", "neither a snapshot"),
        ("{", "holds neither interfaces nor rules"),
        ('{"ipttrace-snapshot": 99, "links": [{"name": "eth0"}]}', "format 99"),
        ('{"links": 3}', "Expected `array`, got `int`"),
    ],
)
def test_a_bad_file_is_one_clear_message(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "host.json"
    path.write_text(text)
    before = left()
    done = ipttrace("lab", "twin", str(path))
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    wait_until(lambda: nothing_more(before), what="the twin gone")


HOSTILE = {
    "links": [
        {"name": "lo", "kind": "loopback", "addresses": ["127.0.0.1/8", "nope", "10.0.0.3"]},
        {"name": "eth0", "addresses": ["192.0.2.1/24", "192.0.2.1", "x/y"], "mtu": -1},
        {"name": "p0", "master": "br0", "addresses": ["10.0.0.1"], "mac": "zz"},
        {"name": "br0", "kind": "bridge", "mtu": 99999999},
        {"name": "br1", "kind": "bridge", "master": "br0"},
        {"name": "\x1b[31mevil"},
        {"name": "../x"},
        {"name": "a" * 40},
    ],
    "routes": [
        {"to": "default", "via": "nope", "interface": "eth0"},
        {"to": "10.0.0.0/8", "via": "2001:db8::1", "interface": "eth0"},
        {"to": "10.0.0.0/8", "interface": "eth0", "metric": -5},
        {"to": "10.1.0.0/16", "interface": "eth0", "table": "99999999999999999"},
    ],
    "policy": [{"priority": -1, "table": "main"}, {"priority": 5, "mark": "zz", "table": "7"}],
    "sysctls": {
        "kernel.core_pattern": "|/bin/false",
        "net.ipv4.ip_forward": "1\nx",
        "net.ipv4.conf.eth0.rp_filter": "7777777777777777",
        "net.netfilter.nf_log_all_netns": "1",
        "net.ipv4.conf.../.././x.rp_filter": "1",
    },
    "listeners": [
        {"protocol": "tcp", "address": "::1", "port": 0},
        {"protocol": "tcp", "address": "::1", "port": 80},
        {"protocol": "tcp", "address": "0::1", "port": 80},
        {"protocol": "tcp", "address": "zz", "port": 70000},
    ],
    "rules": [
        {
            "program": "iptables-legacy",
            "lines": [
                "*filter",
                '-A INPUT -m comment --comment "x -M y --modprobe" -j ACCEPT',
                "-A INPUT -p tcp --dport 80 -j ACCEPT",
                "COMMIT",
            ],
        },
        {
            "program": "nft",
            "lines": [
                "table inet a {",
                "  flags owner",
                '  include "/etc/hostname"',
                "  chain c {",
                '    tcp dport 1 accept; include "/etc/hostname"',
                "  }",
                "}",
            ],
        },
        {"program": "unheard-of", "lines": ["x"]},
    ],
}


def test_a_hostile_snapshot_does_nothing_but_what_it_may(build: Build, tmp_path: Path) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern")
    before = pattern.read_text()
    path = tmp_path / "host.json"
    path.write_text(json.dumps(HOSTILE))
    twin, lab = build(path, "as-is")
    assert pattern.read_text() == before
    lacks = [str(each) for each in twin.missing]
    assert all(text.isprintable() for text in lacks)
    assert len(lacks) == 32
    saved = Iptables(Backend.LEGACY).save(lab.namespaces["twin"], PacketFamily.IPV4)
    assert "--dport 80 -j ACCEPT" in saved


def test_a_snapshot_that_is_cut_off_gives_what_is_whole(
    build: Build, host: str, tmp_path: Path
) -> None:
    content = encode_snapshot(state(host))
    path = tmp_path / "host.json"
    path.write_bytes(content[: content.index(b'"sysctls"') + 100])
    twin, _ = build(path, "as-is")
    assert "cut off" in str(twin.missing[0])
    assert {end.interface for end in twin.topology.ends_in("twin")} >= {"eth0", "vnet0"}


def test_rules_of_both_backends_do_not_fit_into_one(host: str, tmp_path: Path) -> None:
    path = tmp_path / "host.json"
    path.write_bytes(encode_snapshot(state(host)))
    done = ipttrace("lab", "twin", str(path), "--backend", "nft")
    assert done.returncode == 2
    assert "some of both backends" in done.stderr


# ---------------------------------------------------------------- in a lab


LAB = """
name: with-twin
title: A client before the twin of a host
namespaces:
  client: {routes: [{to: default, via: 192.0.2.10}]}
  server: {twin: host.json}
links:
  - - {namespace: client, addresses: [192.0.2.77/24]}
    - {namespace: server, interface: eth0}
"""


def test_a_namespace_of_a_lab_can_be_a_twin(host: str, tmp_path: Path, backend: Backend) -> None:
    (tmp_path / "host.json").write_bytes(encode_snapshot(state(host)))
    scenario = parse_scenario(LAB, str(tmp_path / "with-twin.yaml"))
    said: list[str] = []
    builder = LabBuilder(unique_name("twin"), note=said.append)
    lab = builder.up(scenario.topology, str(backend))
    assert not any("not reproduced" in text for text in said)
    try:
        server = lab.namespaces["server"]
        assert "192.0.2.10/24" in run("ip", "address", "show", "eth0", netns=server)
        assert "dport 23 -j DROP" in run("iptables-legacy-save", netns=server)
        spec = ProbeSpec("icmp", "192.0.2.10", netns=(server,), from_netns=lab.namespaces["client"])
        result = trace_probe(spec, answer=lambda _: None, note=lambda _: None, follows=False)
        assert [each.outcome for each in result.paths if each.role is Role.PROBE] == ["delivered"]
    finally:
        lab.down()


CHECK = """
twin: rules.v4
probes:
  - {name: ssh, send: "tcp 192.0.2.1:83", in: eth0, expect: {outcome: delivered}}
  - {name: closed, send: "tcp 192.0.2.1:84", in: eth0, expect: {rule: filter/INPUT policy}}
"""


def test_a_check_can_be_made_against_a_twin(tmp_path: Path) -> None:
    (tmp_path / "rules.v4").write_text(REFUSED)
    (tmp_path / "check.yaml").write_text(CHECK)
    done = ipttrace("check", str(tmp_path / "check.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not reproduced: rules.v4 line 14" in done.stderr
