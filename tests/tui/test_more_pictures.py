"""The screens beside the trace screen, as the user sees them at each size."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace_tui.history import History
from ipttrace_tui.probe_form import INJECTED, FormValues
from tests.tui.bench import FakeBench
from tests.tui.builders import ListFeed, article, travelled
from tests.tui.conftest import Check
from tests.tui.driving import Stage, play

SIZES = {"80": (80, 24), "120": (120, 40)}

SENT = (
    FormValues(to="198.51.100.1", port="8443", way=INJECTED, interface="eth0", netns="server"),
    FormValues(protocol="icmp", to="198.51.100.1"),
    FormValues(protocol="udp", to="2001:db8:1::1", port="53", count="3"),
)

CASES: dict[str, tuple[tuple[str, ...], str]] = {
    "rules": (("j", "2"), "-j REDIRECT"),
    "rules-search": (("j", "2", "slash", *"8445", "enter"), "»"),
    "places": (("3", "j"), "a namespace of ip netns"),
    "labs": (("3", "tab"), "topology"),
    "doctor": (("4", "j", "j"), "nf_log_all_netns"),
    "journey": (("5",), "leg 2"),
    "inject": (("i",), "there are"),
    "inject-errors": (
        ("i", "ctrl+u", *"x", "tab", "ctrl+u", *"99999", "enter"),
        "not a number from 1",
    ),
    "save": (("s",), ".jsonl"),
}


@pytest.mark.parametrize("width", SIZES)
@pytest.mark.parametrize("name", CASES)
def test_screen_looks_as_reviewed(name: str, width: str, same_picture: Check) -> None:
    keys, sign = CASES[name]
    if name.startswith("inject"):
        history = History()
        for each in reversed(SENT):
            history.add(each)
        history.save()
    snapshot = travelled() if name == "journey" else article()
    snapshot = replace(
        snapshot, paths=tuple(replace(p, netns=p.netns or "server") for p in snapshot.paths)
    )

    async def act(stage: Stage) -> None:
        await stage.ended()
        await stage.press(*keys)
        await stage.shows(sign)
        same_picture(stage.app, f"{name}-{width}")

    play(ListFeed([snapshot]), act, SIZES[width], FakeBench())
