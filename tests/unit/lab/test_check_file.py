"""Check files: a lab, or probes against a lab, a twin or the live host; mistakes are placed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ipttrace.errors import UsageError
from ipttrace.lab.check_file import load_check, parse_check

PROBE = "{name: ssh, send: 'tcp 198.51.100.1:22', in: eth0, expect: {outcome: dropped}}"
LIVE = f"live: true\nprobes:\n  - {PROBE}\n"
TWIN = f"twin: host.json\nprobes:\n  - {PROBE}\n"
AGAINST = f"lab: article-complete\nprobes:\n  - {PROBE}\n"


def test_a_name_of_the_library_is_a_check() -> None:
    check = load_check("article-complete")
    assert (check.file, check.target) == ("article-complete", "article-complete")
    assert check.scenario is not None
    assert check.probes == check.scenario.probes
    assert check.backends == ("legacy", "nft")


def test_live_has_no_lab_and_needs_no_namespace() -> None:
    check = parse_check(LIVE, "live.yaml")
    assert check.live
    assert (check.target, check.backends, check.probes[0].netns) == ("live", (), ())


def test_a_twin_is_relative_to_its_check() -> None:
    check = parse_check(TWIN, "/there/check.yaml")
    assert (check.twin, check.target) == (Path("/there/host.json"), "host.json")
    assert not check.live


def test_a_lab_without_probes_of_the_check_has_its_own() -> None:
    check = parse_check("lab: article-complete\nbackends: [nft]\n", "x.yaml")
    assert len(check.probes) == 3
    assert check.backends == ("nft",)


def test_a_lab_beside_the_check(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "name: own\ntitle: One\nnamespaces: {only: {}}\nprobes: []\n"
    )
    check = parse_check(AGAINST.replace("article-complete", "own.yaml"), f"{tmp_path}/c.yaml")
    assert check.target == "own"
    assert check.probes[0].netns == ("only",), "the only namespace needs no name"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Expected `object`"),
        ("[]", "Expected `object`"),
        ("title: x", "give one of `lab`, `twin` and `live: true`"),
        ("live: false\ntwin: ''", "give one of `lab`, `twin` and `live: true`"),
        (LIVE + "twin: x\n", "give one of `lab`, `twin` and `live: true`"),
        ("live: true", "probes: nothing is probed"),
        (LIVE + "backends: [nft]\n", "a live host has the rules that it has"),
        (LIVE.replace("in: eth0", "ni: eth0"), "line 3, probes[0].ni: "),
        (LIVE.replace("tcp 198", "xyz 198"), "line 3, probes[0]: cannot send protocol 'xyz'"),
        (LIVE.replace("expect", "netns: ['\\e[1m'], expect").replace("'", '"'),
         "probes[0].netns[0]"),
        (
            LIVE.replace("expect", "change: [{namespace: a, sysctls: {net.x: 1}}], expect"),
            "line 3, probes[0].change: a live host is never changed",
        ),
        (LIVE.replace("outcome: ", "netns: web, outcome: "), "is not traced in 'web'"),
        (LIVE + f"  - {PROBE}\n", "there are two probes 'ssh'"),
        (AGAINST, "line 3, probes[0]: `netns` is missing: lab article-complete has several"),
        (
            AGAINST.replace("in: eth0", "in: eth0, netns: [serber]"),
            "line 3, probes[0].netns[0]: namespace 'serber' is not there",
        ),
        (AGAINST + "backends: [both]\n", "line 4, backends[0]: lab article-complete is not run on"),
        (TWIN + "backends: [both]\n", "line 4, backends[0]: a twin is built on legacy or nft"),
        ("lab: no-such-lab", "cannot read lab no-such-lab: No such file or directory"),
        ("name: x\ntitle: x\nnamespaces: {a: {}}", "it has no probes"),
        ("name: x\ntitle: x\nnamespaces: {a: {}}\nlive: true", "unknown field"),
    ],
)  # fmt: skip
def test_mistakes(text: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_check(text, "x.yaml")
    assert words in str(refused.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(UsageError, match=r"cannot read check nowhere\.yaml: No such file"):
        load_check("nowhere.yaml")


def test_checks_in_readme_can_be_read() -> None:
    text = (Path(__file__).parents[3] / "README.md").read_text()
    for block in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if "expect:" in block:
            assert parse_check(block, "README.md").probes
