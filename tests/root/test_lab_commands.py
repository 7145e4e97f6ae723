"""`ipttrace lab` as a user types it, and what is left when it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ipttrace.cli.lab_up import split_rest
from ipttrace.errors import UsageError
from ipttrace.render.schema import SHIPPED
from ipttrace.system import lab_records
from ipttrace.system.lab_records import Record
from ipttrace.system.namespaces import NAMED
from ipttrace.system.processes import ProcessMark, mark_of
from tests.root.kernel import in_namespace, unique_name
from tests.waiting import wait_until

PROGRAM = str(Path(sys.executable).parent / "ipttrace")
SCHEMA = jsonschema.Draft202012Validator(json.loads(SHIPPED.read_text(encoding="utf-8")))

LAB = """
name: a-lab
title: A client and a server
group: asked
claims: [{claim: the port is open, verdict: half, why: It depends.}]
namespaces:
  client: {}
  server: {services: [{port: 80}], iptables: [-A INPUT -p tcp --dport 81 -j DROP]}
links:
  - - {namespace: client, addresses: [198.51.100.2/24]}
    - {namespace: server, addresses: [198.51.100.1/24]}
refused:
  - {namespace: server, run: iptables -t nat -A PREROUTING -j DROP, says: not intended}
probes:
  - name: open
    say: The port is open.
    send: tcp 198.51.100.1:80
    from: client
    netns: [server]
    expect: {outcome: delivered, client: CONNECTED}
  - name: closed
    send: tcp 198.51.100.1:81
    in: eth0
    netns: [server]
    expect: {outcome: dropped}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A lab file."""
    path = tmp_path / "a-lab.yaml"
    path.write_text(LAB)
    return path


@pytest.fixture
def name() -> Iterator[str]:
    """A name for a lab that no other test has; it is taken down."""
    unique = unique_name("x").lower()[:40].rstrip("-")
    yield unique
    subprocess.run([PROGRAM, "lab", "down", unique], capture_output=True, check=False)
    assert [path for path in NAMED.iterdir() if unique in path.name] == []


def ipttrace(*words: object, status: int = 0) -> str:
    """Run the program; return its stdout, and after a failure its stderr."""
    done = subprocess.run([PROGRAM, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done.stdout if status in (0, 1) else done.stderr


def test_up_shell_and_down(lab: Path, name: str) -> None:
    shown = ipttrace("lab", "up", lab, "--name", name, "--backend", "nft")
    assert f"lab {name} is up (nft)" in shown
    assert "198.51.100.1/24" in shown
    server = f"lab-{name}-server"
    assert server in subprocess.check_output(["ip", "netns"], text=True)
    shell = ("lab", "shell", name)
    assert "198.51.100.1" in ipttrace(*shell, "server", "--", "ip", "address", "show", "eth0")
    assert ipttrace(*shell, "--", "printenv", "IPTTRACE_NETNS") == f"lab-{name}-client\n"
    assert ipttrace(*shell, "server", "--", "ls", "/sys/class/net").split() == ["eth0", "lo"]
    rules = ipttrace(*shell, "server", "--", "iptables-nft-save")
    assert "--dport 81 -j DROP" in rules
    assert ipttrace(*shell, "server", "--", "sh", "-c", "exit 3", status=3) == ""
    assert f"lab {name} is down" in ipttrace("lab", "down", name, name)
    assert not (NAMED / server).exists()


def test_arguments_of_a_command_are_not_interpreted(lab: Path, name: str) -> None:
    ipttrace("lab", "up", lab, "--name", name)
    words = ("$(id)", "a b", "--", "-h", "*", "`x`")
    said = ipttrace("lab", "shell", name, "--", "printf", "%s\n", *words)
    assert said.splitlines() == list(words)


def test_a_shell_of_the_user(lab: Path, name: str) -> None:
    ipttrace("lab", "up", lab, "--name", name)
    done = subprocess.run(
        [PROGRAM, "lab", "shell", name, "server"],
        input="echo $IPTTRACE_NETNS\n",
        env={**os.environ, "SHELL": "/bin/sh"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"lab-{name}-server\n")


def records(*words: object) -> list[dict[str, Any]]:
    """Return what the program prints with --json; every record is as the schema says."""
    lines = [json.loads(line) for line in ipttrace(*words, "--json").splitlines()]
    for line in lines:
        SCHEMA.validate(line)
    return lines


def test_up_as_json(lab: Path, name: str) -> None:
    (record,) = records("lab", "up", lab, "--name", name)
    assert (record["record"], record["name"], record["backend"]) == ("lab-up", name, "legacy")
    assert record["namespaces"][1] == {
        "name": "server",
        "netns": f"lab-{name}-server",
        "interfaces": [{"name": "eth0", "addresses": ["198.51.100.1/24"]}],
    }


def test_a_name_that_is_up_is_taken(lab: Path, name: str) -> None:
    ipttrace("lab", "up", lab, "--name", name)
    said = ipttrace("lab", "up", lab, "--name", name, status=2)
    assert f"cannot bring up lab {name}: one of that name is up" in said
    assert "server" in ipttrace("lab", "shell", name, "server", "--", "printenv", "IPTTRACE_NETNS")


def test_a_namespace_that_is_not_ours_is_not_touched(lab: Path, name: str) -> None:
    theirs = f"lab-{name}-server"
    subprocess.run(["ip", "netns", "add", theirs], check=True)
    try:
        said = ipttrace("lab", "up", lab, "--name", name, status=2)
        assert f"cannot make namespace {theirs}: there is one of that name" in said
        assert (NAMED / theirs).exists()
        assert not (NAMED / f"lab-{name}-client").exists()
        assert name not in ipttrace("lab", "list")
    finally:
        subprocess.run(["ip", "netns", "del", theirs], check=True)


WRONG = [
    (("up", "{lab}", "--name", "a/b"), "cannot call a lab 'a/b'"),
    (("up", "no-such-lab"), "cannot read lab no-such-lab: No such file or directory"),
    (("up", "/dev/null"), "cannot use lab /dev/null: Expected `object`, got `null`"),
    (("down",), "cannot tell which labs to take down"),
    (("down", "no-such-lab"), "no lab 'no-such-lab' is up"),
    (("shell", "no-such-lab", "x"), "no lab 'no-such-lab' is up"),
    (("run",), "cannot tell which labs to run"),
    (("run", "--all", "--jobs", "0"), "cannot run 0 labs at the same time"),
    (("run", "--all", "{lab}"), "cannot tell which labs to run"),
    (("run", "{lab}", "--backend", "both"), "cannot run lab a-lab on both: it is not made for it"),
    (("show", "no\x1b[1mlab"), r"cannot read lab no\x1b[1mlab"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[" ".join(each[0]) for each in WRONG])
def test_one_clear_message(lab: Path, words: tuple[str, ...], message: str) -> None:
    said = ipttrace("lab", *(word.format(lab=lab) for word in words), status=2)
    assert message in said
    assert said.count("\n") == 1


def test_words_of_the_shell_command() -> None:
    assert split_rest([]) == (None, [])
    assert split_rest(["server"]) == ("server", [])
    assert split_rest(["--", "ls", "--", "-h"]) == (None, ["ls", "--", "-h"])
    for wrong in (["server", "ls"], ["--"], ["server", "--"]):
        with pytest.raises(UsageError):
            split_rest(wrong)


# ---------------------------------------------------------------- run


def test_run_one_lab(lab: Path) -> None:
    shown = ipttrace("lab", "run", lab)
    assert "== A client and a server (nft)" in shown
    assert "-- open: The port is open." in shown
    assert "it says: iptables v" in shown
    table = shown[shown.index("== in short") :]
    assert table.count("as expected") == 6


@pytest.mark.parametrize("jobs", [1, 3])
def test_run_several_labs(lab: Path, tmp_path: Path, jobs: int) -> None:
    other = tmp_path / "other.yaml"
    wrong = LAB.replace("outcome: dropped", "outcome: delivered").replace("not intended", "nosuch")
    other.write_text(wrong.replace("a-lab", "other"))
    broken = tmp_path / "broken.yaml"
    broken.write_text(LAB.replace("a-lab", "broken").replace("-j DROP]", "-j NOWHERE]"))
    options = ("--backend", "nft", "--jobs", jobs)
    shown = ipttrace("lab", "run", lab, other, broken, *options, status=1)
    rows = shown.splitlines()
    assert rows[0].split()[:5] == ["a-lab", "nft", "3", "of", "3"]
    assert rows[1].split()[:5] == ["other", "nft", "1", "of", "3"]
    assert "NOT AS EXPECTED" in rows[1]
    assert "expected a refusal that says 'nosuch'" in rows[2]
    assert "closed: outcome: expected delivered, got dropped" in shown
    assert "(" + str(broken) + " line 8)" in shown
    assert rows[-1].startswith("1 of 3 runs as expected")


def test_run_as_json(lab: Path) -> None:
    lines = records("lab", "run", lab)
    runs = [line for line in lines if line["record"] == "lab-run"]
    assert [(run["backend"], run["as_expected"]) for run in runs] == [
        ("legacy", True),
        ("nft", True),
    ]
    assert [probe["name"] for probe in runs[0]["probes"]] == ["open", "closed"]
    assert sum(line["record"] == "summary" for line in lines) == 4


def test_kept_labs(lab: Path, tmp_path: Path) -> None:
    unique = f"k{os.getpid()}"
    lab.write_text(LAB.replace("name: a-lab", f"name: {unique}"))
    ipttrace("lab", "run", lab, "--keep", "--backend", "legacy")
    try:
        listed = ipttrace("lab", "list")
        assert f"{unique}-legacy (legacy): lab-{unique}-legacy-client" in listed
        assert "eth0" in ipttrace("lab", "shell", f"{unique}-legacy", "--", "ip", "link")
    finally:
        ipttrace("lab", "down", f"{unique}-legacy")
    assert unique not in ipttrace("lab", "list")


# ---------------------------------------------------------------- list and show


def test_list_and_claims() -> None:
    assert "article-complete" in ipttrace("lab", "list")
    labs = records("lab", "list")
    assert {each["record"] for each in labs} == {"lab"}
    total = sum(len(each["claims"]) for each in labs)
    assert f"{total} claims: " in ipttrace("lab", "list", "--claims")


def test_show(lab: Path) -> None:
    shown = ipttrace("lab", "show", lab)
    assert "│ 198.51.100.2/24 eth0 ├───────┤ eth0 198.51.100.1/24 │" in shown
    assert "half   the port is open" in shown
    assert "iptables -A INPUT -p tcp --dport 81 -j DROP" in shown
    assert "open  client ==> [server]: tcp 198.51.100.1:80 -> delivered, CONNECTED" in shown
    assert "must be refused in server: iptables -t nat -A PREROUTING -j DROP" in shown
    assert [each["name"] for each in records("lab", "show", lab)] == ["a-lab"]


# ---------------------------------------------------------------- killed


def labs_of(file: Path) -> list[Record]:
    return [record for record in lab_records.records() if record.file == str(file)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_whatever_ends_a_run_the_lab_goes(lab: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [PROGRAM, "lab", "run", str(lab)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    while "-- open" not in process.stdout.readline():
        assert process.poll() is None
    (record,) = labs_of(lab)
    process.send_signal(number)
    process.stdout.close()
    process.wait()
    real = record.namespaces.values()
    wait_until(lambda: not any((NAMED / name).exists() for name in real), what="no namespaces")
    wait_until(lambda: not labs_of(lab), what="no record")
    keeper = record.keeper
    assert keeper is not None
    wait_until(lambda: not keeper.alive, what="no keeper")


def test_ctrl_c_ends_all_runs_at_the_same_time(lab: Path, tmp_path: Path) -> None:
    slow = LAB.replace("expect: {outcome: dropped}", "expect: {outcome: dropped}\n    wait: 60")
    lab.write_text(slow)
    process = subprocess.Popen(
        ["env", "--default-signal=INT", PROGRAM, "lab", "run", str(lab), "--jobs", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: len(labs_of(lab)) == 2, what="two labs up")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said == "ipttrace: interrupted; everything was taken back\n"
    assert labs_of(lab) == []


UP_AND_DIE = """
import os, signal, sys
from ipttrace.lab.scenario import load_scenario
from ipttrace.system.lab_builder import LabBuilder

lab = LabBuilder(sys.argv[2]).up(load_scenario(sys.argv[1]).topology, "legacy")
os.kill(lab.keeper.pid, signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("command", [("lab", "down", "--all"), ("clean",), ("lab", "run")])
def test_the_next_command_removes_what_two_kills_left(lab: Path, command: tuple[str, ...]) -> None:
    """All labs that are up on this machine are others': none of them is taken down."""
    killed = [sys.executable, "-c", UP_AND_DIE, str(lab), unique_name("killed")]
    done = subprocess.run(killed, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    (record,) = labs_of(lab)
    assert all((NAMED / name).exists() for name in record.namespaces.values())
    if command == ("lab", "down", "--all"):
        command = ("lab", "down", "no-such-lab")
    words = [*command, str(lab)] if command == ("lab", "run") else list(command)
    status = 2 if "down" in command else 0
    ipttrace(*words, status=status)
    assert not any((NAMED / name).exists() for name in record.namespaces.values())
    assert labs_of(lab) == []


def test_a_lab_that_stays_survives_its_command_and_others(lab: Path, name: str) -> None:
    ipttrace("lab", "up", lab, "--name", name)
    assert not [line for line in lab_records.sweep() if name in line]
    record = lab_records.find(name)
    assert record.stays
    keeper = record.keeper
    assert keeper is not None
    assert keeper.alive
    os.kill(keeper.pid, signal.SIGKILL)
    wait_until(lambda: not keeper.alive, what="the keeper dead")
    ipttrace("lab", "down", name)
    assert not any((NAMED / each).exists() for each in record.namespaces.values())


def test_who_still_works_inside_is_named(lab: Path, name: str) -> None:
    ipttrace("lab", "up", lab, "--name", name)
    inside = in_namespace(f"lab-{name}-server")
    with inside.run(lambda: subprocess.Popen(["cat"], stdin=subprocess.PIPE)) as process:
        done = subprocess.run(
            [PROGRAM, "lab", "down", name], capture_output=True, text=True, check=True
        )
        assert f"cat (pid {process.pid}) still runs in lab-{name}-server" in done.stderr
        assert process.poll() is None
        assert process.stdin is not None
        process.stdin.close()


def test_another_process_of_the_same_id_is_never_ended() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        mark = mark_of(process.pid)
        other = ProcessMark(process.pid, mark.started - 1)
        assert [mark.alive, other.alive] == [True, False]
        assert other.end(1.0)
        assert process.poll() is None
        assert mark.end(5.0)
        assert process.wait() == -signal.SIGTERM
    assert mark.end(1.0)
    assert mark_of(process.pid).started != mark.started


def test_a_half_written_record_is_passed_over_and_removed_when_it_is_old() -> None:
    path = lab_records.folder() / f"{unique_name('torn')}.json"
    path.write_text('{"name": "x')
    try:
        lab_records.sweep()
        assert path.exists()
        os.utime(path, (0, 0))
        lab_records.sweep()
        assert not path.exists()
    finally:
        path.unlink(missing_ok=True)
