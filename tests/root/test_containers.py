"""Naming a namespace by a container's id, with control groups of the real kernel."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ipttrace.errors import UsageError
from ipttrace.system.namespaces import NAMED, find_namespace
from tests.root.kernel import Namespaces, in_namespace, run
from tests.waiting import wait_until

Contain = Callable[[str, str], subprocess.Popen[bytes]]


@pytest.fixture
def hierarchy(tmp_path: Path) -> Iterator[Path]:
    """The machine's control groups, version 2, mounted at a place of our own."""
    mount = tmp_path / "cgroup"
    mount.mkdir()
    run("mount", "-t", "cgroup2", "none", str(mount))
    yield mount
    run("umount", str(mount))


@pytest.fixture
def contain(hierarchy: Path) -> Iterator[Contain]:
    """Starts a process in a namespace and in a container's group: `contain(netns, id)`."""
    with ExitStack() as stack:

        def start(netns: str, identity: str) -> subprocess.Popen[bytes]:
            group = hierarchy / f"docker-{identity}.scope"
            if not group.exists():
                group.mkdir()
                stack.callback(_remove, group)
            process = in_namespace(netns).run(
                lambda: subprocess.Popen(["cat"], stdin=subprocess.PIPE)
            )
            stack.callback(_end, process)
            (group / "cgroup.procs").write_text(str(process.pid))
            return process

        yield start


def _end(process: subprocess.Popen[bytes]) -> None:
    process.communicate()


def _remove(group: Path) -> None:
    wait_until(lambda: "populated 0" in (group / "cgroup.events").read_text())
    group.rmdir()


def new_identity(start: str = "") -> str:
    return start + secrets.token_hex(32)[len(start) :]


def inode(netns: str) -> int:
    return (NAMED / netns).stat().st_ino


def test_a_container_is_found_by_the_start_of_its_id(
    namespaces: Namespaces, contain: Contain
) -> None:
    netns, identity = namespaces.add("web"), new_identity()
    contain(netns, identity)
    contain(netns, identity)
    for text in (identity[:12], identity):
        found = find_namespace(text)
        assert found.name == text
        assert found.run(lambda: Path("/proc/thread-self/ns/net").stat().st_ino) == inode(netns)


def test_an_id_that_begins_like_two_containers_is_refused(
    namespaces: Namespaces, contain: Contain
) -> None:
    start = secrets.token_hex(8)
    one, two = new_identity(start + "a"), new_identity(start + "b")
    for identity in (one, two):
        contain(namespaces.add("web"), identity)
    with pytest.raises(UsageError, match=f"{start[:12]}.*{start[:12]}.*begin so"):
        find_namespace(start)
    assert find_namespace(one).name == one


def test_a_container_that_is_gone_is_no_namespace(namespaces: Namespaces, contain: Contain) -> None:
    identity = new_identity()
    process = contain(namespaces.add("web"), identity)
    _end(process)
    with pytest.raises(UsageError, match=f"no namespace '{identity}'.*container"):
        find_namespace(identity)


def test_a_process_comes_before_a_container(namespaces: Namespaces, contain: Contain) -> None:
    pid = str(os.getpid())
    identity = new_identity(pid) if len(pid) >= 4 else new_identity()
    contain(namespaces.add("web"), identity)
    found = find_namespace(pid)
    assert found.path == Path(f"/proc/{pid}/ns/net")
