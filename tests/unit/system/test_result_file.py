"""Files of results: whole or not at all, never over another in silence."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from ipttrace.errors import KernelError, UsageError
from ipttrace.system.result_file import FileExistsAlready, check_writable, open_new, write_whole


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / "a.svg"
    write_whole(file, b"whole", replace=False)
    assert file.read_bytes() == b"whole"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_another_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "a.svg"
    file.write_bytes(b"old")
    with pytest.raises(FileExistsAlready, match="--force"):
        check_writable(str(file), replace=False)
    with pytest.raises(FileExistsAlready):
        write_whole(file, b"new", replace=False)
    with pytest.raises(FileExistsAlready):
        open_new(file, replace=False)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_it_is_replaced_on_demand(tmp_path: Path) -> None:
    file = tmp_path / "a.svg"
    file.write_bytes(b"old")
    assert check_writable(str(file), replace=True) == file
    write_whole(file, b"new", replace=True)
    assert file.read_bytes() == b"new"
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "a.svg"
    target.write_bytes(b"precious")
    link.symlink_to(target)
    write_whole(link, b"new", replace=True)
    assert target.read_bytes() == b"precious"
    assert not link.is_symlink()
    os.close(open_new(link, replace=True))
    assert target.read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["", "no/a.svg", "file/a.svg"])
def test_what_cannot_work_is_said_before(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        check_writable(str(tmp_path / name), replace=False)


def test_no_device_is_replaced() -> None:
    with pytest.raises(UsageError, match="no regular file"):
        check_writable("/dev/null", replace=True)


def test_what_cannot_be_written_whole_leaves_nothing(tmp_path: Path) -> None:
    """Python ignores SIGXFSZ: a file that grows too large is an error, as on a full disk."""
    file = tmp_path / "a.svg"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(KernelError, match="File too large") as caught:
            write_whole(file, bytes(1000), replace=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []
