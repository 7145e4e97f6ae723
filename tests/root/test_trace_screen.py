"""The trace screen in a real terminal on the real kernel: walk through a packet's hops, watch."""

from __future__ import annotations

import re
import socket
from functools import partial
from pathlib import Path

import pytest

from ipttrace.netfilter import Backend, PacketFamily
from ipttrace.system.namespaces import NAMED
from tests.root.kernel import Iptables, Listeners, Pair, in_namespace
from tests.root.sessions import nft_tables, own_rules
from tests.root.terminal import DEADLINE, Terminal
from tests.waiting import wait_until

PORT = 8445
SELECTED = re.compile(r"▸ +\d+ tcp .* ✗ dropped")


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """A home of the test's own."""
    return {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_CONFIG_HOME": str(tmp_path / "config")}


def lab_namespaces() -> set[str]:
    """Return the namespaces of labs."""
    return {path.name for path in NAMED.iterdir() if path.name.startswith("ipt-lab")}


@pytest.mark.root
@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
def test_step_through_the_hops_of_a_dropped_packet_and_see_why(
    backend: Backend, size: tuple[int, int], home: dict[str, str]
) -> None:
    words = ("tui", "--lab", "article-complete", "--backend", str(backend))
    before = lab_namespaces()
    with Terminal(*words, environment=home, size=size) as terminal:
        terminal.shows("✓ finished")
        made = lab_namespaces() - before
        terminal.press("/")
        terminal.type("dropped")
        terminal.press("Enter")
        wait_until(lambda: SELECTED.search(terminal.text()), DEADLINE, "a dropped packet")
        terminal.shows("✗ dropped at filter/INPUT 1")
        terminal.shows("chain filter INPUT")
        terminal.shows("DROP ✗")
        step_back_to(terminal, "chain mangle PREROUTING")
        terminal.shows("changed here")
        terminal.shows("-j MARK")
        terminal.press("Escape")
        # An escape and a key at once are another key to a terminal.
        wait_until(lambda: "esc ends it" not in terminal.text(), DEADLINE, "no filter")
        terminal.press("g", "m")
        terminal.shows("▸ A ")
        terminal.press("j", "j", "m", "c")
        terminal.shows("their ways part")
        terminal.press("c")
        terminal.shows("chain ")
        terminal.press("q")
        terminal.shows("status 0")
    wait_until(lambda: not made & lab_namespaces(), what="the lab is gone")


def step_back_to(terminal: Terminal, words: str) -> None:
    """Step to the hop before until the screen says so."""
    for _ in range(12):
        if words in terminal.text() and "changed here" in terminal.text():
            return
        title = hop_title(terminal)
        terminal.press("Left")
        wait_until(partial(another_hop, terminal, title), DEADLINE, "another hop")
    raise AssertionError(f"never shown: {words} in\n{terminal.text()}")


def hop_title(terminal: Terminal) -> str:
    """Return which hop of how many is looked at."""
    found = re.search(r"at hop \d+ of \d+", terminal.text())
    return found[0] if found else ""


def another_hop(terminal: Terminal, title: str) -> bool:
    """Tell whether another hop is looked at than before."""
    return hop_title(terminal) != title


@pytest.mark.root
def test_live_packets_come_while_the_list_is_frozen_and_nothing_is_left(
    pair: Pair, iptables: Iptables, backend: Backend, listen: Listeners, home: dict[str, str]
) -> None:
    server = pair.server
    listen(server.netns, server.ipv4, PORT, "udp")
    iptables(server.netns, PacketFamily.IPV4, *f"-A INPUT -p udp --dport {PORT} -j DROP".split())
    words = ("tui", "--watch", f"udp dst port {PORT}", "--netns", server.netns, "--limit", "50/s")
    with Terminal(*words, environment=home) as terminal:
        terminal.shows("● tracing")
        terminal.shows("limit 50/s")
        wait_until(lambda: state(server.netns, backend) != ([], []), DEADLINE, "a rule of ours")
        wait_until(lambda: send(pair) and "✗ dropped" in terminal.text(), DEADLINE, "a packet")
        terminal.shows("✗ dropped at filter/INPUT 1")
        terminal.shows("no kernel evidence")
        terminal.press("f")
        terminal.shows("list frozen")
        wait_until(lambda: send(pair) and "frozen +" in terminal.text(), DEADLINE, "more packets")
        wait_until(
            lambda: send(pair) and re.search(r"frozen \+[1-9]", terminal.text()),
            DEADLINE,
            "packets that came meanwhile",
        )
        iptables(server.netns, PacketFamily.IPV4, "-F", "INPUT")
        terminal.shows("rules changed since")
        terminal.press("q")
        terminal.shows("status 0")
    wait_until(lambda: state(server.netns, backend) == ([], []), what="all taken back")


def state(netns: str, backend: Backend) -> tuple[list[str], list[str]]:
    """Return what is there of a trace: rules and tables of ours."""
    tables = [name for name in nft_tables(netns) if "ipttrace" in name]
    return own_rules(netns, backend, PacketFamily.IPV4), tables


def send(pair: Pair) -> bool:
    """Send a datagram to the server."""

    def once() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", (pair.server.ipv4, PORT))

    in_namespace(pair.client.netns).run(once)
    return True
