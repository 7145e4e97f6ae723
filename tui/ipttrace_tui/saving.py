"""What can be saved, chosen by the name of the file, and how it is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ipttrace.errors import IptTraceError, KernelError, UsageError
from ipttrace.path import PacketPath, TraceResult
from ipttrace_tui.feed import Snapshot

TEXT_WIDTH = 120


@dataclass(frozen=True, slots=True)
class Shown:
    """What the user looks at."""

    snapshot: Snapshot
    path: PacketPath | None
    hop: int | None

    @property
    def result(self) -> TraceResult:
        """The trace as the core's value."""
        known = self.snapshot
        return TraceResult(
            known.paths,
            known.totals,
            trigger=known.trigger,
            backends=known.backends,
            warnings=known.warnings,
        )

    @property
    def packet(self) -> PacketPath:
        """The selected packet; raises UsageError."""
        if self.path is None:
            raise UsageError("cannot save a packet: none is selected")
        return self.path


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of file."""

    what: str
    make: Callable[[Shown], bytes]


def hop_text(path: PacketPath) -> str:
    """Return a packet's hops, its fate and why, as text."""
    from ipttrace.render.text import path_lines

    lines = path_lines(path, width=None, color=False, numbered=True, verbose=True)
    return "\n".join(lines) + "\n"


def _text(shown: Shown) -> bytes:
    return hop_text(shown.packet).encode("utf-8", "replace")


def _records(shown: Shown) -> bytes:
    from ipttrace.render.records import path_record, summary_record

    result = shown.result
    lines = [*map(path_record, result.paths), summary_record(result)]
    return b"".join(line + b"\n" for line in lines)


KINDS: Mapping[str, Kind] = {
    ".jsonl": Kind("the whole trace, for programs", _records),
    ".txt": Kind("the hops of the packet, as text", _text),
}
"""Suffix to kind, in the order in which they are offered."""


def kind_of(name: str) -> Kind:
    """Return the kind that a file's name asks for; raises UsageError."""
    suffix = Path(name).suffix.lower()
    if suffix not in KINDS:
        raise UsageError(
            f"cannot tell what to save in {name!r}: its ending says nothing",
            f"Let it end in {', '.join(KINDS)}.",
        )
    return KINDS[suffix]


class FileExistsAlready(IptTraceError):  # noqa: N818
    """The user has to say whether a file is to be replaced."""


def save(name: str, shown: Shown, *, overwrite: bool) -> Path:
    """Make what the name asks for and write it, whole or not at all; return where it is.

    Raises UsageError, FileExistsAlready and KernelError.
    """
    path = Path(name).expanduser()
    kind = kind_of(name)
    if path.is_dir():
        raise UsageError(f"cannot write {name}: it is a directory")
    if not overwrite and (path.exists() or path.is_symlink()):
        raise FileExistsAlready(f"{path} exists")
    content = kind.make(shown)
    try:
        _write(path, content, overwrite=overwrite)
    except FileExistsError as error:
        raise FileExistsAlready(f"{path} exists") from error
    except OSError as error:
        raise KernelError(f"cannot write {path}: {error.strerror}") from error
    return path.absolute()


def _write(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Write beside the file and then give it its name, so that it is never half there.

    A new name is given by link(2), which fails where the name is taken meanwhile.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(part, flags, 0o644), "wb") as file:
            file.write(content)
        if overwrite:
            part.replace(path)
        else:
            path.hardlink_to(part)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
