"""What a stranger sees of the labs: nothing runs off the screen, nothing acts on the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipttrace.cli.main import main
from ipttrace.errors import UsageError
from ipttrace.lab.listing import about_lines, claims_lines, list_lines, show_lines
from ipttrace.lab.scenario import Scenario, library, load_scenario
from ipttrace.render.table import columns

LABS = {name: load_scenario(name) for name in library()}
TO_COPY = re.compile(
    r"\s*(first in \S+: )?"
    r"(ip6?tables(-legacy|-nft)?(-restore:)?|nft:|sysctl|must be refused in) "
)
"""Lines that a reader may want to copy: these are never broken."""
NEIGHBOUR = re.compile(r"Not to be confused with: (?P<names>.*)", re.DOTALL)
COPIED = re.compile(r"`ipttrace lab (?:run|show) ([a-z0-9-]+)")

every_lab = pytest.mark.parametrize("lab", LABS.values(), ids=LABS)
screens = pytest.mark.parametrize("width", [60, 80, 100])


def too_wide(lines: Iterator[str], width: int) -> list[str]:
    return [line for line in lines if columns(line) > width and not TO_COPY.match(line)]


@screens
@every_lab
def test_a_lab_fits_the_screen(lab: Scenario, width: int) -> None:
    assert too_wide(show_lines(lab, width=width, color=False), width) == []


@every_lab
def test_a_lab_says_nothing_that_acts_on_a_terminal(lab: Scenario) -> None:
    for line in show_lines(lab, width=100, color=False):
        assert line.isprintable() or not line, line
        assert line == line.rstrip()


@pytest.mark.parametrize("width", [80, 100])
def test_the_lists_fit_the_screen(width: int) -> None:
    labs = list(LABS.values())
    assert too_wide(list_lines(labs, (), width=width, color=False), width) == []
    assert too_wide(claims_lines(labs, width=width, color=False), width) == []


@every_lab
def test_a_text_that_fits_is_shown_as_it_was_written(lab: Scenario) -> None:
    assert list(about_lines(lab.about, width=None)) == lab.about.splitlines()


def test_a_narrow_screen_gets_the_paragraphs_anew() -> None:
    about = "One two three four\nfive six.\n\nSeven.\n"
    assert list(about_lines(about, width=20)) == about.splitlines()
    about = "One two three four five\nsix.\n\nSeven.\n"
    assert list(about_lines(about, width=20)) == ["One two three four", "five six.", "", "Seven."]


@every_lab
def test_rules_are_shown_whole(lab: Scenario) -> None:
    shown = list(show_lines(lab, width=60, color=False))
    for host in lab.namespaces.values():
        rules = host.iptables
        for rule in rules.splitlines() if isinstance(rules, str) else rules:
            assert not rule.strip() or any(rule.strip() in line for line in shown), rule


@every_lab
def test_what_is_named_as_alike_exists(lab: Scenario) -> None:
    """A hyphenated word in that paragraph is a lab or a cause; one that is neither misleads."""
    from ipttrace.diagnose.catalogue import Cause

    found = NEIGHBOUR.search(lab.about)
    for word in re.findall(r"\b[a-z]+(?:-[a-z]+)+\b", found["names"]) if found else ():
        known = {*LABS, *Cause, *WORDS}
        assert word in known, word


WORDS = frozenset({"icmp-host-prohibited", "icmp-net-unreachable", "tcp-reset", "iptables-legacy"})
"""Hyphenated words of iptables' and of the language."""


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "no-such-lab", "a\x1b[2Jb", ""]
)
@pytest.mark.parametrize("command", ["show", "run"])
def test_a_name_that_is_no_lab_is_one_clear_error(
    command: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lab", command, name]) == 2
    said = capsys.readouterr()
    assert "cannot read lab" in said.err or "cannot use lab" in said.err
    assert "\x1b" not in said.out + said.err


def test_a_misspelt_name_is_guessed_at_and_the_list_is_not_poured_out() -> None:
    with pytest.raises(UsageError) as caught:
        load_scenario("rp-filtre")
    assert "do you mean rp-filter or" in (caught.value.hint or "")
    with pytest.raises(UsageError) as caught:
        load_scenario("xyzzy")
    assert len(caught.value.hint or "") < 80


def test_labs_read_no_file_but_their_own() -> None:
    for name, lab in LABS.items():
        for host in lab.namespaces.values():
            assert host.twin is None, name
            assert host.rules_file is None, name
    folder = {path.name for path in Path(next(iter(library().values()))).parent.iterdir()}
    assert {each for each in folder if not each.endswith(".yaml")} <= {"__pycache__"}
