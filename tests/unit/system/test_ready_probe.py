"""The probe in place of sk_data_ready, by what Linux 6.1 wrote of one (session `recorded1`)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipttrace.decode.tracepoint import parse_format
from ipttrace.system import ready_probe

RECORDED = json.loads(
    (Path(__file__).parents[2] / "data/tracepoints-6.1.json").read_text(encoding="utf-8")
)
OTHERS = "p:kprobes/mine do_sys_open\nr4:ipttrace/ready_x f\np:ipttrace/ready_UP f a=$arg1\n"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """A folder with the files that all probes share."""
    (tmp_path / "kprobe_events").write_text(OTHERS + RECORDED["kprobe_events"])
    other = "  mine                 7              3\n"
    (tmp_path / "kprobe_profile").write_text(other + RECORDED["kprobe_profile"])
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_whose_probes_there_are(root: int, tmp_path: Path) -> None:
    assert ready_probe.sessions(root) == {"recorded1"}
    (tmp_path / "kprobe_events").unlink()
    assert ready_probe.sessions(root) == set()


def test_what_it_missed_is_told_once(root: int, tmp_path: Path) -> None:
    probe = ready_probe.ReadyProbe(root, "recorded1", "instance")
    assert probe.missed() == 0
    text = RECORDED["kprobe_profile"].rstrip()
    assert text.endswith(" 0")
    (tmp_path / "kprobe_profile").write_text(text[:-1] + "4\n")
    assert (probe.missed(), probe.missed()) == (4, 0)


def test_what_is_let_through(root: int, tmp_path: Path) -> None:
    folder = tmp_path / "instance/events/ipttrace/ready_recorded1"
    folder.mkdir(parents=True)
    for name in ("filter", "enable"):
        (folder / name).touch()
    probe = ready_probe.ReadyProbe(root, "recorded1", "instance")
    assert probe.listen(77)
    assert (folder / "filter").read_text() == "common_pid == 77"
    assert (folder / "enable").read_text() == "1"
    assert probe.keep(0xFFFF888012345678)
    assert (folder / "filter").read_text() == "skaddr == 0xffff888012345678"
    assert probe.listen(77)
    assert (folder / "filter").read_text() == "skaddr == 0xffff888012345678 || common_pid == 77"


def test_what_the_kernel_refuses_is_not_there(root: int) -> None:
    probe = ready_probe.ReadyProbe(root, "recorded1", "gone")
    assert not probe.listen(77)
    assert not probe.keep(1)


def test_the_event_has_the_sockets_address() -> None:
    known = parse_format(RECORDED["formats"][0])
    assert known is not None
    assert known.name == "ready_recorded1"
    assert {"common_pid", "skaddr"} <= set(known.names)
