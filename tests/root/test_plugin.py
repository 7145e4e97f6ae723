"""The pytest plugin, in runs of pytest of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ipttrace import pytest_plugin
from ipttrace.system.namespaces import NAMED

README = Path(__file__).parents[2] / "README.md"
HEAVY = {"scapy", "pyroute2", "iptc", "textual", "msgspec", "yaml", "rich"}
BARE = ["-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "error"]


def example() -> str:
    """Return the tests that the plugin's docstring shows."""
    blocks = re.findall(r"(?:^    .*\n|^\n)+", f"{pytest_plugin.__doc__}", re.MULTILINE)
    [code] = [block for block in blocks if "def test" in block]
    return textwrap.dedent(code).strip() + "\n"


def run_pytest(
    folder: Path, text: str, *words: str, command: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(text)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    kept.pop("IPTTRACE_REQUIRE_ROOT", None)
    return subprocess.run(
        [*command, sys.executable, "-m", "pytest", *BARE, *words, "test_it.py"],
        cwd=folder,
        env=kept | {"PYTHONDONTWRITEBYTECODE": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def test_the_documented_examples_pass(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "\n".join([example(), *readme_examples()]), "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout
    assert "warning" not in done.stdout


def readme_examples() -> list[str]:
    """Return the tests that README shows."""
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in blocks if "ipttrace_lab" in block]


FAILING = """
def test_outcome(ipttrace_lab):
    lab = ipttrace_lab("article-complete", backend="BACKEND")
    answer = lab.probe("tcp 198.51.100.1:8443", in_="eth0", src="198.51.100.2")
    assert answer.outcome == "delivered"

def test_expect(ipttrace_lab):
    lab = ipttrace_lab("article-complete", backend="BACKEND")
    lab.probe("tcp 198.51.100.1:8445", in_="eth0", src="198.51.100.2").expect(
        outcome="delivered", crosses=["mangle/PREROUTING 1"])
"""


def test_a_failure_shows_the_hops(tmp_path: Path, backend: str) -> None:
    done = run_pytest(tmp_path, FAILING.replace("BACKEND", backend), "-q")
    assert done.returncode == 1, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["E", "-", "delivered"] in lines
    assert any("ipttrace: tcp 198.51.100.1:8443" in line for line in done.stdout.splitlines())
    assert "-m mark --mark 0x1 -j DROP" in done.stdout
    assert "[mark-drop]" in done.stdout
    beside = ["!", "mangle/PREROUTING", "1", "mangle", "PREROUTING", "policy", "ACCEPT"]
    assert ["E", *beside] in lines, "expect shows both ways side by side"
    assert "testing.py" not in done.stdout, "the traceback ends in the user's own test"


OWN = '''
from pathlib import Path

import pytest

LAB = """
name: own
title: One host
namespaces:
  server:
    iptables: ["-A INPUT -i lo -p tcp --dport 81 -j REJECT"]
    services: [{port: 80}]
"""

def test_text(ipttrace_lab):
    lab = ipttrace_lab(LAB)
    answer = lab.probe("tcp 127.0.0.1:80")
    assert (answer.outcome, answer.client, answer.netns) == ("delivered", "CONNECTED", "server")
    assert answer.cause == "delivered"
    assert "filter/INPUT policy" in answer.hops
    assert repr(answer).startswith("<tcp 127.0.0.1:80 in server: delivered")
    rejected = lab.probe("tcp 127.0.0.1:81").expect(rule="filter/INPUT 1", client="ECONNREFUSED")
    assert rejected.outcome == "rejected"
    assert repr(lab) == "<lab own on legacy>"
    Path("name").write_text(lab.namespaces["server"])

def test_a_text_needs_no_name(ipttrace_lab):
    lab = ipttrace_lab("namespaces:\\n  a: {}\\n")
    lab.probe("tcp 127.0.0.1:80").expect(outcome="refused", crosses_not="filter/INPUT 1")

def test_change(ipttrace_lab):
    lab = ipttrace_lab(LAB)
    lab.change("server", iptables=["-I INPUT -p tcp --dport 80 -j DROP"])
    lab.probe("tcp 127.0.0.1:80", wait=0.5).expect(outcome="dropped", rule="filter/INPUT 1")

def test_two_labs(ipttrace_lab):
    assert ipttrace_lab(LAB, "nft").namespaces != ipttrace_lab(LAB, "legacy").namespaces

def test_mistakes(ipttrace_lab):
    from ipttrace.errors import UsageError

    lab = ipttrace_lab(LAB)
    answer = lab.probe("tcp 127.0.0.1:80")
    for use in (
        lambda: ipttrace_lab("no-such-lab"),
        lambda: ipttrace_lab(LAB, "both"),
        lambda: ipttrace_lab(LAB, "iptables"),
        lambda: lab.probe("127.0.0.1:80"),
        lambda: lab.probe("tcp 127.0.0.1:80", netns="nowhere"),
        lambda: lab.probe("tcp 127.0.0.1:80", colour="red"),
        lambda: lab.probe("tcp 127.0.0.1:80", expect={"outcome": "dropped"}),
        lambda: lab.probe("tcp 127.0.0.1"),
        lambda: lab.change("server"),
        lambda: lab.change("nowhere", sysctls={"net.ipv4.ip_forward": 1}),
        lambda: answer.expect(outcome="happy"),
        lambda: answer.expect(),
    ):
        with pytest.raises(UsageError):
            use()
'''


def test_labs_from_text_and_mistakes(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, OWN, "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout
    name = (tmp_path / "name").read_text()
    assert name.startswith("ipt-lab-")
    assert not (NAMED / name).exists(), "it went down with its test"


WRONG = """
import pytest

@pytest.fixture
def lab(ipttrace_lab):
    return ipttrace_lab("article-complete")

def test_lab(ipttrace_lab):
    ipttrace_lab("article-complte")

def test_text(ipttrace_lab):
    ipttrace_lab("namespaces: {}\\nlinks: 1")

def test_rule(lab):
    lab.change("server", iptables=["-A INPUT -j NOPE"])

def test_netns(lab):
    lab.probe("tcp 198.51.100.1:80", netns="serv")

def test_expect(lab):
    lab.probe("tcp 198.51.100.1:80").expect(outcom="dropped")
"""


def test_a_mistake_is_told_where_it_is_made(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, WRONG, "-q")
    assert len(re.findall(r"^test_it\.py:\d+: ", done.stdout, re.MULTILINE)) == 5, done.stdout
    told = [line.removeprefix("E       ") for line in done.stdout.splitlines() if line[:1] == "E"]
    assert len(told) == 5, "no error of a library stands before ours"
    assert "do you mean article-complete" in told[0]
    assert "cannot run iptables '-A INPUT -j NOPE' in server: " in told[2], "it is in no file"
    assert told[3].endswith("namespace 'serv' is not there: there are client, server")
    assert "cannot expect outcom: there is no such word. Known are outcome," in told[4]
    assert "site-packages" not in done.stdout
    assert "ipttrace/lab" not in done.stdout, "the way through the package helps nobody"


def test_without_root_it_is_skipped_with_a_reason(tmp_path: Path) -> None:
    command = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    done = run_pytest(tmp_path, example(), "-rs", command=command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 skipped" in done.stdout
    assert "ipttrace_lab: cannot bring up a lab: this process lacks CAP_NET_ADMIN" in done.stdout
    required = run_pytest(tmp_path, example(), command=command, IPTTRACE_REQUIRE_ROOT="1")
    assert required.returncode == 1
    assert "IPTTRACE_REQUIRE_ROOT=1 forbids to skip it" in required.stdout


QUIET = """
import sys

def test_nothing():
    assert "ipttrace.pytest_plugin" in sys.modules
    print("loaded:", *sorted(name for name in sys.modules if name.startswith("ipttrace")))
    print("heavy:", *sorted({name.split(".")[0] for name in sys.modules} & HEAVY))
"""


def test_a_run_that_does_not_use_it_notices_nothing(tmp_path: Path) -> None:
    text = QUIET.replace("HEAVY", repr(HEAVY))
    off = ["-p", "no:inline_snapshot", "-p", "no:hypothesispytest", "-p", "no:timeout"]
    done = run_pytest(tmp_path, text, "-s", *off)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loaded: ipttrace ipttrace.pytest_plugin\n" in done.stdout
    assert "heavy:\n" in done.stdout
    assert "warning" not in done.stdout


@pytest.mark.parametrize("words", [["--strict-markers"], ["--strict-config"], ["--markers"]])
def test_it_fits_strict_projects(tmp_path: Path, words: list[str]) -> None:
    assert run_pytest(tmp_path, "def test_a(): pass\n", *words).returncode == 0
