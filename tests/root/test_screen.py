"""The screen in a real terminal on the real kernel: inject, look, save, leave, nothing left."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipttrace.netfilter import Backend, PacketFamily
from ipttrace.system.namespaces import NAMED
from tests.root.kernel import Iptables, Listeners, Pair
from tests.root.sessions import nft_tables, own_rules
from tests.root.terminal import DEADLINE, Terminal
from tests.waiting import wait_until

PORT = 8445


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """A home of the test's own."""
    return {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_CONFIG_HOME": str(tmp_path / "config")}


@pytest.fixture
def dropping(pair: Pair, iptables: Iptables, listen: Listeners) -> Pair:
    """A server that drops what comes to a port that somebody listens on."""
    server = pair.server
    listen(server.netns, server.ipv4, PORT)
    iptables(server.netns, PacketFamily.IPV4, *f"-A INPUT -p tcp --dport {PORT} -j DROP".split())
    return pair


@pytest.fixture
def untouched(pair: Pair, backend: Backend, dropping: Pair) -> Iterator[None]:
    """Fail if the screen left a rule, a table or a lab behind."""
    yield
    wait_until(lambda: state(pair.server.netns, backend) == ([], []), what="all taken back")


def state(netns: str, backend: Backend) -> tuple[list[str], list[str]]:
    """Return what is there of a trace: rules and tables of ours."""
    tables = [name for name in nft_tables(netns) if "ipttrace" in name]
    return own_rules(netns, backend, PacketFamily.IPV4), tables


def fill_in(terminal: Terminal, pair: Pair) -> None:
    """Describe a packet to the port of the server, injected on its interface."""
    terminal.press("i")
    terminal.shows("send a probe")
    terminal.shows("there are:")
    terminal.type(f"{pair.server.ipv4}:{PORT}")
    terminal.shows(f"{pair.server.ipv4}:{PORT}")
    terminal.press("Tab", "Tab", "Tab", "Right")
    terminal.shows("comes in on")
    # Keys go to the field that has the focus as they come: each one is waited for.
    terminal.press("Tab")
    terminal.shows("there are: eth0")
    terminal.type("eth0")
    terminal.press("Tab")
    wait_until(lambda: "there are: eth0" not in terminal.text(), DEADLINE, "the next field")
    terminal.type(pair.server.netns)
    terminal.shows(f"trace in       {pair.server.netns}")


@pytest.mark.root
def test_inject_look_at_the_hop_save_and_leave(
    dropping: Pair, untouched: None, home: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "seen.jsonl"
    with Terminal("tui", environment=home) as terminal:
        terminal.shows("i sends a probe")
        fill_in(terminal, dropping)
        terminal.press("Enter")
        terminal.shows("✗ dropped")
        terminal.shows("✓ finished")
        terminal.shows("DROP ✗")
        terminal.press("2")
        terminal.shows("[2 rules]")
        terminal.shows("✗ hop")
        terminal.press("m", "1")
        terminal.press("s")
        terminal.shows("save as")
        terminal.clear("ipttrace-1.jsonl")
        terminal.type(str(file))
        terminal.shows(file.name)
        terminal.press("Enter")
        terminal.shows("saved")
        terminal.press("q")
        terminal.shows("status 0")
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert records[0]["outcome"] == "dropped"
    assert records[0]["diagnosis"]["cause"]
    assert (tmp_path / "state" / "ipttrace" / "history.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_leave_nothing_while_a_probe_runs(
    number: signal.Signals, dropping: Pair, untouched: None, home: dict[str, str], backend: Backend
) -> None:
    server = dropping.server
    words = f"tui --in eth0 --src 198.51.100.77 --wait 60 --netns {server.netns} tcp"
    with Terminal(*words.split(), f"{server.ipv4}:{PORT}", environment=home) as terminal:
        terminal.shows("● tracing")
        wait_until(lambda: state(server.netns, backend) != ([], []), 20, "a rule of ours")
        os.kill(terminal.pid(), number)
        terminal.shows("status ")


@pytest.mark.root
def test_screen_whose_terminal_vanishes_ends_and_leaves_nothing(
    dropping: Pair, untouched: None, home: dict[str, str], backend: Backend
) -> None:
    netns = dropping.server.netns
    with Terminal("tui", "--watch", "--netns", netns, environment=home) as terminal:
        terminal.shows("● tracing")
        wait_until(lambda: state(netns, backend) != ([], []), 20, "a rule of ours")
        process = Path("/proc", str(terminal.pid()))
        terminal.vanish()
    wait_until(lambda: not process.exists(), DEADLINE, "the end of the program")


@pytest.mark.root
@pytest.mark.parametrize("way", ["q", "TERM", "KILL"])
def test_lab_started_on_the_screen_stays_up_and_goes_with_it(
    way: str, home: dict[str, str]
) -> None:
    before = {path.name for path in NAMED.iterdir()}
    with Terminal("tui", environment=home) as terminal:
        terminal.shows("i sends a probe")
        terminal.press("3")
        terminal.shows("accept-queue-full")
        terminal.press("/")
        terminal.shows("a word of the lab's name")
        terminal.type("all four rules of")
        wait_until(lambda: "accept-queue-full" not in terminal.text(), DEADLINE, "the lab alone")
        terminal.press("Enter")
        terminal.shows("━ labs")
        terminal.press("Home", "Enter")
        terminal.shows("the lab is up")
        mine = our_namespaces(terminal) - before
        assert mine
        if way == "q":
            terminal.press("q")
        else:
            os.kill(terminal.pid(), getattr(signal, f"SIG{way}"))
        terminal.shows("status ")
    wait_until(lambda: not any((NAMED / name).exists() for name in mine), what="no lab")


def our_namespaces(terminal: Terminal) -> set[str]:
    """Return the namespaces of the lab that the screen shows: it names them in full."""
    terminal.press("3")
    terminal.shows("article-complete is up")
    terminal.shows("lab       client")
    terminal.press("BTab", "Home", "j")
    terminal.shows("its real name: ")
    word = terminal.text().partition("its real name: ")[2].split()[0]
    return {path.name for path in NAMED.iterdir() if path.name.startswith(word[: word.rindex("-")])}
