"""The namespaces of this host, as the screen lists them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipttrace.inventory import Place, PlaceKind
from ipttrace.system.namespaces import HERE
from ipttrace.system.places import read_places
from tests.root.kernel import Pair, run
from tests.waiting import wait_until

pytestmark = pytest.mark.root


def place_of(name: str | None, labs: dict[str, tuple[str, str]] | None = None) -> Place | None:
    return next((each for each in read_places(labs) if each.name == name), None)


def test_first_line_is_this_namespace() -> None:
    here = read_places()[0]
    assert (here.name, here.kind) == (None, PlaceKind.HERE)
    assert "lo" in [link.name for link in here.interfaces]


def test_named_namespace_has_its_interfaces_and_addresses(pair: Pair) -> None:
    place = place_of(pair.server.netns)
    assert place is not None
    assert place.kind is PlaceKind.NAMED
    link = next(each for each in place.interfaces if each.name == pair.server.interface)
    assert link.kind == "veth"
    assert link.up
    assert f"{pair.server.ipv4}/24" in link.addresses
    assert pair.server.ipv6 in place.addresses
    run("ip", "link", "set", pair.server.interface, "down", netns=pair.server.netns)
    place = place_of(pair.server.netns)
    assert place is not None
    assert not next(e for e in place.interfaces if e.name == pair.server.interface).up


def test_namespace_of_a_lab_is_called_as_the_lab_calls_it(pair: Pair) -> None:
    place = place_of(pair.server.netns, {pair.server.netns: ("two", "server")})
    assert place is not None
    assert (place.kind, place.title, place.about) == (PlaceKind.LAB, "server", "lab two")


@pytest.fixture
def nameless() -> Iterator[int]:
    """A process in a namespace that nobody named."""
    with subprocess.Popen(["unshare", "-n", "sleep", "60"]) as process:
        wait_until(lambda: not _is_here(process.pid), what="its namespace")
        yield process.pid
        process.kill()


def _is_here(pid: int) -> bool:
    return Path(f"/proc/{pid}/ns/net").stat().st_ino == HERE.path.stat().st_ino


def test_namespace_of_a_process_is_called_by_it(nameless: int) -> None:
    place = place_of(str(nameless))
    assert place is not None
    assert place.kind is PlaceKind.PROCESS
    assert place.about == "sleep"
    assert [link.name for link in place.interfaces if link.name == "lo"] == ["lo"]


def test_looking_changes_nobody_s_namespace(pair: Pair) -> None:
    before = Path("/proc/thread-self/ns/net").stat().st_ino
    read_places()
    assert Path("/proc/thread-self/ns/net").stat().st_ino == before
