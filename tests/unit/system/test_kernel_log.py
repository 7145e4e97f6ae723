"""The reader of /dev/kmsg, where the kernel says what it says seldom."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ipttrace.decode.kernel_log import OVERWRITTEN
from ipttrace.errors import IptTraceError, NotPermittedError, NotSupportedError
from ipttrace.system import kernel_log
from ipttrace.system.kernel_log import LogReader


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in place of /dev/kmsg."""
    path = tmp_path / "kmsg"
    path.touch()
    monkeypatch.setattr(kernel_log, "DEVICE", path)
    return path


@pytest.mark.usefixtures("device")
def test_records_that_were_overwritten_are_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """read() says EPIPE once, and goes on with the oldest record that there is (devkmsg_read)."""
    said: list[bytes | int] = [b"4,1,1,-;a\n", errno.EPIPE, b"4,90,1,-;b\n", errno.EAGAIN]
    answers = iter(said)

    def read(descriptor: int, size: int) -> bytes:
        answer = next(answers)
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer))
        return answer

    reader = LogReader()
    monkeypatch.setattr(os, "read", read)
    found = [record.data for record in reader.drain()]
    monkeypatch.undo()
    reader.close()
    assert found == [b"4,1,1,-;a\n", OVERWRITTEN, b"4,90,1,-;b\n"]


@pytest.mark.usefixtures("device")
def test_what_else_goes_wrong_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(descriptor: int, size: int) -> bytes:
        raise OSError(errno.EINVAL, "the buffer is too small")

    reader = LogReader()
    monkeypatch.setattr(os, "read", read)
    with pytest.raises(OSError, match="too small"):
        reader.drain()
    monkeypatch.undo()
    reader.close()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EPERM, NotPermittedError),
        (errno.EACCES, NotPermittedError),
        (errno.ENOENT, NotSupportedError),
    ],
)
def test_a_log_that_cannot_be_read_is_one_clear_line(
    device: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[IptTraceError]
) -> None:
    def refuse(path: Path, flags: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(kind) as refused:
        LogReader()
    monkeypatch.undo()
    assert str(refused.value) == (
        f"cannot read the kernel log ({device}): {os.strerror(number)}. "
        "Stop the program that listens to NFLOG group 0, and try again."
    )
