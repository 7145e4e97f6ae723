"""`ipttrace check` on the real kernel: labs, the live host, failures, JUnit and coverage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from ipttrace.lab.scenario import LIBRARY
from ipttrace.netfilter import Backend, PacketFamily
from ipttrace.system import lab_records
from ipttrace.system.namespaces import NAMED
from tests.root.kernel import Iptables, Listeners, Pair, run
from tests.waiting import wait_until

IPTTRACE = Path(sys.executable).with_name("ipttrace")
ARTICLE = (LIBRARY / "article-complete.yaml").read_text()
MARKS = "--dport 8443 -j MARK --set-mark 1"


def check(*words: str | Path, netns: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command, in a namespace where one is named."""
    inside = ("ip", "netns", "exec", netns) if netns else ()
    return subprocess.run(
        (*inside, IPTTRACE, "check", *words),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=50,
    )


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """The lab of the article with one rule changed: it marks another port."""
    assert ARTICLE.count(MARKS) == 1
    file = tmp_path / "changed.yaml"
    file.write_text(ARTICLE.replace(MARKS, MARKS.replace("8443", "8444")))
    return file


def test_a_lab_that_is_as_it_says(backend: Backend) -> None:
    done = check("article-complete", "--backend", str(backend))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 file, 3 cases: 3 as expected, 0 not" in done.stdout
    assert done.stdout.startswith("== in short")


def test_one_changed_rule_is_a_readable_difference(changed: Path, backend: Backend) -> None:
    done = check(changed, "--backend", str(backend))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "! outcome: expected dropped, got delivered" in done.stdout
    assert "! crosses: expected mangle/PREROUTING 1, which was not met" in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    policy = ["policy", "ACCEPT"]
    assert ["!", "mangle/PREROUTING", "1", "mangle", "PREROUTING", *policy] in lines
    assert ["!", "filter/INPUT", "1", "decides", "filter", "INPUT", *policy] in lines
    assert ["!", "dropped", "outcome", "delivered"] in lines
    assert ["!", "mark-drop", "cause", "delivered"] in lines


def test_all_files_run_and_one_table_tells_all(changed: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    done = check(changed, "article-complete", "--backend", "nft", "--junit", report)
    assert done.returncode == 1
    assert "2 files, 6 cases: 4 as expected, 2 not" in done.stdout
    assert done.stdout.count("== in short") == 1
    root = ET.fromstring(report.read_bytes())
    assert (root.get("tests"), root.get("failures")) == ("6", "2")
    failure = next(root.iter("failure"))
    assert "expected mangle/PREROUTING 1" in (failure.text or "")
    assert "delivered to" in (failure.text or "")


def test_coverage_names_the_rules_by_number(changed: Path, backend: Backend) -> None:
    done = check(changed, "--backend", str(backend), "--coverage")
    shown = done.stdout.partition("== rules that no probe met")[2]
    assert "namespace server: 2 of 4 rules met" in shown
    rows = [line.split()[1:4] for line in shown.splitlines() if line.startswith("  ")]
    assert sorted(rows) == [["filter", "INPUT", "1"], ["mangle", "PREROUTING", "1"]]
    full = check("article-complete", "--backend", str(backend), "--coverage")
    assert "namespace server: 4 of 4 rules met" in full.stdout


def test_records_for_programs(changed: Path, backend: Backend) -> None:
    done = check(changed, "--backend", str(backend), "--json", "--coverage")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    cases = [each for each in records if each["record"] == "check"]
    assert [each["state"] for each in cases] == ["passed", "failed", "failed"]
    fields = {each["field"] for each in cases[1]["differences"]}
    assert fields == {"outcome", "cause", "rule", "crosses"}
    ids = [each["id"] for each in records if each["record"] == "path"]
    assert ids == sorted(set(ids))
    [covered] = [each for each in records if each["record"] == "coverage"]
    assert (covered["rules"], covered["met"]) == (4, 2)


LIVE = """
live: true
probes:
  - name: open
    send: tcp 198.51.100.1:8443
    in: eth0
    src: 198.51.100.2
    expect: {outcome: delivered}
  - name: closed
    send: tcp 198.51.100.1:22
    in: eth0
    src: 198.51.100.2
    expect: {outcome: dropped, cause: rule-drop, rule: filter/INPUT 1}
"""


def test_a_live_host_is_probed_and_not_changed(
    pair: Pair, iptables: Iptables, listen: Listeners, backend: Backend, tmp_path: Path
) -> None:
    server = pair.server.netns
    listen(server, "198.51.100.1", 8443)
    iptables(server, PacketFamily.IPV4, "-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "DROP")
    iptables(server, PacketFamily.IPV4, "-A", "INPUT", "-p", "tcp", "--dport", "23", "-j", "DROP")
    file = tmp_path / "live.yaml"
    file.write_text(LIVE)
    before = state(server, backend)
    done = check(file, "--coverage", netns=server)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ok  {file}  {backend}  open" in done.stdout
    assert "this namespace: 1 of 2 rules met" in done.stdout
    assert "filter  INPUT 2" in done.stdout
    assert state(server, backend) == before


def state(netns: str, backend: Backend) -> list[str]:
    """Return what a check may not change: rules, links, addresses."""
    rules = run(f"iptables-{backend}-save", netns=netns).splitlines()
    kept = [line for line in rules if not line.startswith(("#", "*", "COMMIT", ":"))]
    return [*kept, run("ip", "-o", "link", netns=netns), run("ip", "-o", "address", netns=netns)]


def test_a_lab_that_cannot_be_built_is_an_error_among_others(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(ARTICLE.replace("-j DROP", "-j NOWHERE"))
    report = tmp_path / "report.xml"
    done = check(broken, "article-complete", "--backend", "nft", "--junit", report)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "6 cases: 3 as expected, 0 not, 1 could not be run, 2 skipped" in done.stdout
    assert "NOWHERE" in done.stderr
    root = ET.fromstring(report.read_bytes())
    assert (root.get("errors"), root.get("skipped")) == ("1", "2")


def test_nothing_checked_is_no_success() -> None:
    done = check("article-complete", "--backend", "both")
    assert done.returncode == 2
    assert "every case was skipped" in done.stderr


def unprivileged(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command as a user who may do nothing."""
    return subprocess.run(
        ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", IPTTRACE, "check", *words),
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def test_labs_are_checked_without_root(backend: Backend) -> None:
    done = unprivileged("article-complete", "--backend", str(backend))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "working in a user namespace of our own" in done.stderr


def test_a_live_host_is_not_exchanged_for_an_empty_one() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        file = Path(folder, "live.yaml")
        file.write_text(LIVE)
        done = unprivileged("article-complete", file)
    assert done.returncode == 3
    assert "this process lacks CAP_NET_ADMIN" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_who_stops_it_leaves_no_lab_and_the_old_report(
    number: signal.Signals, changed: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.xml"
    report.write_text("old")
    process = subprocess.Popen(
        ("env", "--default-signal=INT", IPTTRACE, "check", changed, "--junit", report),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_until(lambda: bool(labs_of(process.pid)))
    [own] = labs_of(process.pid)
    os.kill(process.pid, number)
    assert process.wait() in (130, -signal.SIGKILL)
    wait_until(lambda: not any((NAMED / name).exists() for name in own))
    assert report.read_text() == "old"


def labs_of(pid: int) -> list[tuple[str, ...]]:
    """Return the names of the namespaces of each lab that a process has brought up."""
    owned = [each for each in lab_records.records() if each.owner and each.owner.pid == pid]
    return [tuple(each.namespaces.values()) for each in owned]


TWIN = """
twin: rules.v4
probes:
  - name: ssh
    send: tcp 192.0.2.1:22
    in: eth0
    expect: {outcome: delivered, rule: filter/INPUT 1, nft: {crosses-not: [raw/PREROUTING]}}
  - name: telnet
    send: tcp 192.0.2.1:23
    in: eth0
    expect: {outcome: dropped, cause: policy-drop, rule: filter/INPUT policy}
"""
SAVED = """\
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -d 192.0.2.1/32 -i eth0 -p tcp -m tcp --dport 22 -j ACCEPT
-A INPUT -d 192.0.2.1/32 -i eth0 -p tcp -m tcp --dport 9 -m nosuchmatch -j ACCEPT
-A FORWARD -s 192.0.2.0/24 -j ACCEPT
COMMIT
"""


def test_a_twin_of_a_save_file(backend: Backend, tmp_path: Path) -> None:
    (tmp_path / "rules.v4").write_text(SAVED)
    file = tmp_path / "twin.yaml"
    file.write_text(TWIN)
    done = check(file, "--backend", str(backend), "--coverage")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not reproduced: rules.v4 line 6: " in done.stderr
    assert "namespace twin: 1 of 3 rules met" in done.stdout
    as_is = check(file)
    assert as_is.returncode == 0, as_is.stdout + as_is.stderr
