"""Container ids in control groups, as docker, containerd, podman, CRI-O and kubelet write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipttrace.errors import UsageError
from ipttrace.system.containers import container_id, find_container, may_be_id

ONE = "3f29a1c4e5b60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90"
TWO = "3f2ab7d0" + "0" * 56
POD = "pod1b2c3d4e-5f60-7182-93a4-b5c6d7e8f901"

GROUPS = {
    "docker, version 1": f"12:pids:/docker/{ONE}\n1:name=systemd:/docker/{ONE}\n",
    "docker, version 2 and systemd": f"0::/system.slice/docker-{ONE}.scope\n",
    "docker, rootless": (
        f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ONE}.scope\n"
    ),
    "docker in docker": f"0::/docker/{TWO}/docker/{ONE}\n",
    "docker, below it a group of its own": f"0::/docker/{ONE}/system.slice/ssh.service\n",
    "podman": f"0::/machine.slice/libpod-{ONE}.scope/container\n",
    "podman, cgroupfs": f"4:memory:/libpod_parent/libpod-{ONE}\n",
    "CRI-O": (
        f"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-{POD}.slice/"
        f"crio-{ONE}.scope\n"
    ),
    "containerd and systemd": (
        f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{POD}.slice/"
        f"cri-containerd-{ONE}.scope\n"
    ),
    "containerd, no slices": (
        f"2:cpu:/system.slice/containerd.service/kubepods-{POD}.slice:cri-containerd:{ONE}\n"
    ),
    "kubelet, cgroupfs": f"11:memory:/kubepods/burstable/{POD}/{ONE}\n",
    "nerdctl": f"0::/system.slice/nerdctl-{ONE}.scope\n",
    "version 1 beside version 2": f"5:pids:/docker/{ONE}\n0::/\n",
}

OTHERS = {
    "nothing": "",
    "the host": "0::/user.slice/user-1000.slice/session-3.scope\n",
    "the host, version 1": "9:name=systemd:/\n4:memory:/\n0::/\n",
    "podman's monitor": f"0::/machine.slice/libpod-conmon-{ONE}.scope\n",
    "CRI-O's monitor": f"0::/kubepods.slice/crio-conmon-{ONE}.scope\n",
    "a shorter number": f"0::/docker/{ONE[:63]}\n",
    "a longer number": f"0::/docker/{ONE}0\n",
    "another word": f"0::/docker/x{ONE}\n",
    "no control group line": "\x1b[2J\n",
}


@pytest.mark.parametrize("cgroup", GROUPS.values(), ids=GROUPS)
def test_a_container_is_known_by_its_control_group(cgroup: str) -> None:
    assert container_id(cgroup) == ONE


@pytest.mark.parametrize("cgroup", OTHERS.values(), ids=OTHERS)
def test_what_is_no_container_is_not_taken_for_one(cgroup: str) -> None:
    assert container_id(cgroup) is None


@pytest.mark.parametrize("text", ["3f29", ONE[:12], ONE])
def test_the_start_of_an_id(text: str) -> None:
    assert may_be_id(text)


@pytest.mark.parametrize("text", ["", "3f2", "web1", "3F29", ONE + "0", "3f29\n"])
def test_what_cannot_start_an_id(text: str) -> None:
    assert not may_be_id(text)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with init, two containers, a process that has gone, and no process."""
    groups = {
        "1": "0::/init.scope\n",
        "812": f"0::/system.slice/docker-{ONE}.scope\n",
        "90": f"0::/system.slice/docker-{TWO}.scope\n",
        "1200": f"0::/system.slice/docker-{ONE}.scope\n",
    }
    for pid, cgroup in groups.items():
        (tmp_path / pid / "ns").mkdir(parents=True)
        (tmp_path / pid / "ns" / "net").touch()
        (tmp_path / pid / "cgroup").write_text(cgroup)
    (tmp_path / "811").mkdir()
    (tmp_path / "811" / "cgroup").write_text(groups["812"])
    (tmp_path / "sys").mkdir()
    return tmp_path


def test_the_first_process_of_the_container_stands_for_it(proc: Path) -> None:
    assert find_container("3f29", proc) == 812
    assert find_container(TWO, proc) == 90


def test_no_container_begins_so(proc: Path) -> None:
    assert find_container("abcd", proc) is None


def test_several_containers_that_begin_so_are_named(proc: Path) -> None:
    with pytest.raises(UsageError, match=r"3f29a1c4e5b6, 3f2ab7d00000 begin so.*more characters"):
        find_container("3f2", proc)
