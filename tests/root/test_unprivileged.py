"""An ordinary user: what only reads needs no rights, and in namespaces of one's own all else works.

`unshare -Urn` makes both namespaces at once; `unshare -Ur unshare -n` one after the other, and only
then may their owner read which tables ip_tables has (xt_proto_init in net/netfilter/x_tables.c).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

NOBODY = "65534"
PROGRAM = str(Path(sys.executable).parent / "ipttrace")
AS_NOBODY = (
    "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all",
)  # fmt: skip
EVERYBODYS_RUN = (
    "unshare", "--mount", "sh", "-ec", 'mount -t tmpfs -o mode=1777 run /run; exec "$@"', "sh",
)  # fmt: skip
AT_ONCE = ("unshare", "-Urn")
ONE_BY_ONE = ("unshare", "-Ur", "unshare", "-n")

ACCEPT = ("-A", "INPUT", "-p", "udp", "--dport", "9", "-m", "comment", "--comment", "mine")
PROBE = (PROGRAM, "probe", "--json", "udp", "127.0.0.1:9")
WATCH = (PROGRAM, "watch", "--json", "--count", "1", "--for", "20s", "udp dst port 9")

RUN_ALL = """
import json, socket, subprocess, sys

def sending(process):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        while True:
            sender.sendto(b"watched", ("127.0.0.1", 9))
            try:
                return process.communicate(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue

results = []
for words in json.loads(sys.argv[1]):
    with subprocess.Popen(words, stdout=-1, stderr=-1, text=True) as process:
        out, err = sending(process) if "watch" in words else process.communicate()
    results.append([process.returncode, out, err])
print(json.dumps(results))
"""
"""Runs commands one after the other; while one watches, packets are sent."""


@dataclass(frozen=True, slots=True)
class Done:
    """What one command left."""

    status: int
    out: str
    err: str

    def records(self, kind: str) -> list[dict[str, object]]:
        """Return its JSON records of one kind."""
        assert self.status == 0, self.err
        lines = map(json.loads, self.out.splitlines())
        return [line for line in lines if line["record"] == kind]


def as_nobody(
    unshare: tuple[str, ...],
    *commands: tuple[str, ...],
    lock: Path | None = None,
    run_is_everybodys: bool = False,
) -> list[Done]:
    """Run commands as an ordinary user, in the namespaces that `unshare` makes."""
    lock_file = [f"XTABLES_LOCKFILE={lock}"] if lock else []
    environment = ("env", "-u", "XTABLES_LOCKFILE", "HOME=/nonexistent", *lock_file)
    up = [("ip", "link", "set", "lo", "up")] if unshare else []
    words = json.dumps([*up, *commands])
    before = EVERYBODYS_RUN if run_is_everybodys else ()
    whole = [*before, *AS_NOBODY, *environment, *unshare, sys.executable, "-c", RUN_ALL, words]
    done = subprocess.run(whole, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"an ordinary user cannot run {sys.executable}: {done.stderr}"
    return [Done(*each) for each in json.loads(done.stdout)][len(up) :]


@pytest.fixture
def lock() -> Iterator[Path]:
    """A lock file that everybody may write, where iptables has its own that nobody may."""
    with TemporaryDirectory(prefix="ipttrace-") as directory:
        Path(directory).chmod(0o755)
        path = Path(directory, "xtables.lock")
        path.touch()
        path.chmod(0o666)
        yield path


def rules_met(path: dict[str, object]) -> list[object]:
    hops = path["hops"]
    assert isinstance(hops, list)
    return [hop["rule"] for hop in hops if hop.get("event") == "rule"]


# ------------------------------------------------------------------ without any rights


@pytest.mark.parametrize(
    "words", [("--help",), ("probe", "--help"), ("doctor",), ("lab", "list")], ids=" ".join
)
def test_what_only_looks_needs_no_rights(words: tuple[str, ...]) -> None:
    (done,) = as_nobody((), (PROGRAM, *words))
    assert (done.status, done.err) == (0, "")
    assert done.out


@pytest.mark.parametrize(
    ("words", "aim"),
    [
        (("probe", "udp", "127.0.0.1:9"), "trace packets"),
        (("watch", "--for", "1s"), "trace packets"),
        (("rules",), "read rules"),
        (("clean",), "clean up"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_what_needs_rights_says_which_in_one_line(words: tuple[str, ...], aim: str) -> None:
    (done,) = as_nobody((), (PROGRAM, *words))
    assert (done.status, done.out) == (3, "")
    assert done.err == (
        f"ipttrace: cannot {aim}: this process lacks CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN. "
        "Run as root: sudo ipttrace ...\n"
    )


# ------------------------------------------------------------------ in namespaces of one's own


@pytest.mark.parametrize("unshare", [AT_ONCE, ONE_BY_ONE], ids=["at once", "one by one"])
def test_rules_of_nft(unshare: tuple[str, ...]) -> None:
    add = ("iptables-nft", *ACCEPT)
    rules = (PROGRAM, "rules", "--json")
    _, probe, watch, listed = as_nobody(unshare, add, PROBE, WATCH, rules)
    asked = next(path for path in probe.records("path") if path["role"] == "probe")
    (seen,) = watch.records("path")
    for path in (asked, seen):
        assert [str(rule).partition(" -p ")[0] for rule in rules_met(path)] == ["-A INPUT"]
    (summary,) = probe.records("summary")
    assert (summary["client"], summary["clean"], summary["backends"]) == (
        "ECONNREFUSED",
        True,
        ["nft"],
    )
    assert [rule["number"] for rule in listed.records("rule")] == [1]


def test_rules_of_legacy_with_a_lock_file_of_ones_own(lock: Path) -> None:
    add = ("iptables-legacy", *ACCEPT)
    save = ("iptables-legacy-save", "-t", "raw")
    added, probe, watch, left = as_nobody(ONE_BY_ONE, add, PROBE, WATCH, save, lock=lock)
    assert added.status == 0, added.err
    asked = next(path for path in probe.records("path") if path["role"] == "probe")
    (seen,) = watch.records("path")
    for path in (asked, seen):
        assert [str(rule).partition(" -p ")[0] for rule in rules_met(path)] == ["-A INPUT"]
    (summary,) = probe.records("summary")
    assert (summary["clean"], summary["backends"]) == (True, ["legacy"])
    assert not [line for line in left.out.splitlines() if line.startswith("-A")]


def test_a_lock_that_may_not_be_opened_is_named() -> None:
    setting = ("env", "XTABLES_LOCKFILE=/dev/null")
    add = (*setting, "iptables-legacy", *ACCEPT)
    added, probe = as_nobody(ONE_BY_ONE, add, PROBE)
    assert added.status == 0, added.err
    assert (probe.status, probe.out) == (3, "")
    assert probe.err == (
        "ipttrace: cannot add TRACE rule to raw/OUTPUT (iptables-legacy): cannot open the xtables "
        "lock /run/xtables.lock: Permission denied. Name another lock file in XTABLES_LOCKFILE.\n"
    )


def test_rules_that_may_not_be_read_are_said_to_be_hidden(lock: Path) -> None:
    add = ("iptables-legacy", *ACCEPT)
    added, *others = as_nobody(AT_ONCE, add, (PROGRAM, "rules"), PROBE, lock=lock)
    assert added.status == 0, added.err
    for done in others:
        assert done.status == 0
        assert done.err.startswith(
            "ipttrace: rules of iptables-legacy in this namespace are not shown: cannot read "
        )
        assert "unshare -Ur unshare -n" in done.err


def test_packets_are_injected_without_a_tap(lock: Path) -> None:
    """Only root may open /dev/net/tun here: a pair of devices stands in."""
    link = ("ip", "link", "add", "d0", "type", "veth", "peer", "name", "d1")
    address = ("ip", "address", "add", "198.51.100.1/24", "dev", "d0")
    up = ("sh", "-c", "ip link set d1 up && ip link set d0 up")
    add = ("iptables-nft", *ACCEPT)
    inject = (PROGRAM, "probe", "--json", "--in", "d0", "udp", "198.51.100.1:9")
    links = ("ip", "-o", "link")
    *_, done, left = as_nobody(ONE_BY_ONE, link, address, up, add, inject, links, lock=lock)
    (asked,) = (path for path in done.records("path") if path["role"] == "probe")
    assert [str(rule).partition(" -p ")[0] for rule in rules_met(asked)] == ["-A INPUT"]
    assert "iptt" not in left.out


# ------------------------------------------------------------------ labs


@pytest.mark.parametrize(
    "unshare", [(), AT_ONCE, ONE_BY_ONE], ids=["user", "at once", "one by one"]
)
def test_a_lab_runs_without_root(unshare: tuple[str, ...]) -> None:
    command = (PROGRAM, "lab", "run", "article-complete", "--json")
    *_, done = as_nobody(unshare, command)
    runs = done.records("lab-run")
    assert [(run["backend"], run["as_expected"]) for run in runs] == [
        ("legacy", True),
        ("nft", True),
    ]
    assert "not root: working in a user namespace of our own" in done.err


def test_a_run_where_everybody_may_write_is_not_ours() -> None:
    """As in virtme-ng's machine: whose lab registry it is was decided before we came."""
    command = (PROGRAM, "lab", "run", "article-complete", "--backend", "nft", "--json")
    *_, done = as_nobody(AT_ONCE, command, run_is_everybodys=True)
    assert [run["as_expected"] for run in done.records("lab-run")] == [True]


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory below /run that belongs to the ordinary user, as systemd makes one."""
    with TemporaryDirectory(dir="/run", prefix="ipttrace-test-") as path:
        os.chown(path, int(NOBODY), int(NOBODY))
        monkeypatch.setenv("XDG_RUNTIME_DIR", path)
        yield Path(path)


def test_a_lab_whose_keeper_is_killed_is_gone(runtime: Path) -> None:
    lab = (PROGRAM, "lab")
    up, listed = as_nobody((), (*lab, "up", "article-complete"), (*lab, "list"))
    assert up.status == 0, up.err
    assert "up now:" in listed.out
    (path,) = (runtime / "ipttrace/labs").glob("*.json")
    os.kill(json.loads(path.read_text())["keeper"]["pid"], signal.SIGKILL)
    listed, down = as_nobody((), (*lab, "list"), (*lab, "down", "article-complete"))
    assert "up now:" not in listed.out
    assert "removed lab All four rules" in down.err
    assert not path.exists()


def test_a_lab_stays_up_without_root(runtime: Path) -> None:
    name = f"u{os.getpid()}"
    lab = (PROGRAM, "lab")
    shell = (*lab, "shell", name, "server", "--")
    up, listed, address, probe, down, again, left = as_nobody(
        (),
        (*lab, "up", "article-complete", "--name", name, "--json"),
        (*lab, "list"),
        (*shell, "ip", "-br", "address", "show", "eth0"),
        (*shell, PROGRAM, "probe", "--json", "--in", "eth0", "tcp", "198.51.100.1:8443"),
        (*lab, "down", name),
        (*lab, "down", name),
        ("ls", "-A", str(runtime / "ipttrace/labs")),
    )
    (record,) = up.records("lab-up")
    assert record["name"] == name
    assert f"lab-{name}-server" in listed.out
    assert "198.51.100.1/24" in address.out
    (asked,) = (path for path in probe.records("path") if path["role"] == "probe")
    assert asked["outcome"] == "dropped"
    assert (down.status, down.out) == (0, f"lab {name} is down\n")
    assert again.status == 2
    assert name not in left.out


@pytest.mark.parametrize("setting", ["user.max_user_namespaces"])
def test_what_forbids_user_namespaces_is_named(setting: str) -> None:
    """In a user namespace the limit of it and of those inside can be set by its root."""
    forbid = f"/proc/sys/{setting.replace('.', '/')}"
    inner = (
        f"echo 0 >{forbid}; exec setpriv --inh-caps=-all --bounding-set=-all {PROGRAM} lab run x"
    )
    (done,) = as_nobody(
        (), ("unshare", "-Ur", "sh", "-c", inner.replace("run x", "run article-complete"))
    )
    assert done.status == 3
    assert f"user namespaces are off here ({setting} is 0)" in done.err
