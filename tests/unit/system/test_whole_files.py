"""A file is written as a whole or not at all."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from ipttrace.errors import UsageError
from ipttrace.system.whole_files import check_writable, write_whole


def test_new_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "report.xml"
    for content in (b"one", b"two"):
        check_writable(str(file))
        write_whole(str(file), content)
        assert file.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["report.xml"]


def test_others_may_read_it_as_the_umask_says(tmp_path: Path) -> None:
    file = tmp_path / "report.xml"
    before = os.umask(0o022)
    try:
        write_whole(str(file), b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    file, link = tmp_path / "report.xml", tmp_path / "link"
    link.symlink_to(file)
    write_whole(str(link), b"x")
    assert link.is_symlink()
    assert file.read_bytes() == b"x"


def test_a_pipe_is_written_to_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_whole(str(pipe), b"x")
    reader.join()
    assert read == [b"x"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_pipe_behind_a_link(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        file = tmp_path / "stdout"
        file.symlink_to(f"/proc/self/fd/{writing}")
        check_writable(str(file))
        write_whole(str(file), b"x")
        assert os.read(reading, 10) == b"x"
        assert file.is_symlink()
    finally:
        os.close(reading)
        os.close(writing)


def test_what_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "report.xml"
    write_whole(str(file), b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UsageError, match=r"cannot write .*report\.xml: No space left on device"):
        write_whole(str(file), b"new")
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.xml"]


@pytest.mark.parametrize("name", ["nowhere/report.xml", ".", "report\0.xml", "file/report.xml"])
def test_places_that_cannot_be(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        check_writable(f"{tmp_path}/{name}")
