"""The mouse and the clipboard in a real terminal, on a lab of the real kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipttrace.netfilter import Backend
from tests.root.terminal import DEADLINE, Terminal
from tests.waiting import wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def lab(tmp_path: Path, backend: Backend) -> Iterator[Terminal]:
    """The screen after the lab whose third packet is dropped for its mark."""
    home = {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    words = ("tui", "--lab", "article-complete", "--backend", str(backend))
    with Terminal(*words, environment=home) as terminal:
        terminal.shows("✓ finished")
        yield terminal
        terminal.press("q")
        terminal.shows("status 0")


def choose_dropped(terminal: Terminal) -> None:
    terminal.click(*terminal.find("3 tcp"))
    terminal.shows("way of packet 3 ")
    terminal.shows("✗ dropped at filter/INPUT 1")


def test_a_click_selects_a_packet_and_a_hop(lab: Terminal) -> None:
    choose_dropped(lab)
    lab.shows("▸ 3 tcp")
    lab.shows("chain filter INPUT")
    column, row = lab.find("nat    PREROUTING policy")
    lab.click(column + 40, row)
    lab.shows("▸ nat    PREROUTING policy")
    lab.shows("chain nat PREROUTING")
    lab.shows("━ hops ━")
    column, row = lab.find(" why ")
    lab.click(column, row)
    lab.shows("━ why ━")


def test_the_wheel_scrolls_what_is_under_it_and_moves_no_cursor(lab: Terminal) -> None:
    choose_dropped(lab)
    fate = "✗ dropped at filter/INPUT 1"
    column, row = lab.find(fate)
    lab.wheel(column, row)
    wait_until(lambda: fate not in lab.text(), DEADLINE, "the lines below")
    lab.wheel(column, row, down=False)
    lab.shows(fate)
    first = "wire   eth0"
    column, row = lab.find("filter INPUT", after=" hops ")
    assert first not in lab.text()
    lab.wheel(column, row, down=False)
    lab.wheel(column, row, down=False)
    lab.shows(first)
    assert re.search(r"at hop \d+ of \d+", lab.text())
    lab.shows("chain filter INPUT")


def test_keys_of_the_bar_can_be_clicked(lab: Terminal) -> None:
    lab.click(*lab.find("? help"))
    lab.shows("━ help ━")
    lab.press("q")
    lab.click(*lab.find("1-5 screens"))
    lab.shows("way of packet")
    lab.click(*lab.find("i inject"))
    lab.shows("send a probe")
    lab.click(*lab.find("○ udp"))
    lab.shows("● udp")
    lab.press("Escape")
    lab.shows("way of packet")


def test_hops_and_commands_come_to_the_clipboard_of_the_terminal(
    lab: Terminal, backend: Backend
) -> None:
    assert not lab.clipboard()
    choose_dropped(lab)
    lab.press("y")
    wait_until(lab.clipboard, DEADLINE, "a text in the clipboard")
    hops = lab.clipboard()
    assert re.search(r"mangle +PREROUTING 1 +-p tcp -m tcp --dport 8443 -j MARK", hops)
    assert "x dropped at filter/INPUT 1: it drops mark 0x1" in hops
    assert hops.endswith("\n")
    lab.click(*lab.find("✗ dropped at filter/INPUT 1"))
    lab.shows("━ why ━")
    lab.press("y")
    program = f"iptables-{backend} "
    wait_until(lambda: lab.clipboard().startswith(program), DEADLINE, "the first command")
    assert re.fullmatch(
        program + r"-t mangle -I PREROUTING 1 -s 198\.51\.100\.2 -p tcp --dport 8443 -j ACCEPT",
        lab.clipboard(),
    )
    lab.press("y")
    wait_until(lambda: lab.clipboard() == f"{program}-D INPUT 1", DEADLINE, "the second command")
