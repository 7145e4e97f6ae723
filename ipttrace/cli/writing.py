"""The file that `--write` names: checked before anything is done, written when all is known."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from ipttrace import __version__
from ipttrace.cli import output
from ipttrace.errors import IptTraceError, KernelError
from ipttrace.path import PacketPath
from ipttrace.result import TraceResult

WRITE_FAILED = 3
HELP = "write it to FILE as well: .jsonl, .txt, .svg, .html or .pcapng"


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """Add --write and --force."""
    parser.add_argument("--write", metavar="FILE", help=HELP)
    parser.add_argument("--force", action="store_true", help="let --write replace a file")


class ResultFile(Protocol):
    """Takes packets as they come, and the result at the end; says itself what goes wrong."""

    failed: bool
    """Whether the file is not as it should be."""

    def packet(self, path: PacketPath) -> None:
        """Take one packet."""
        ...

    def finish(self, result: TraceResult) -> None:
        """Write what is left."""
        ...


class NoFile:
    """Where nothing is to be written."""

    failed = False

    def packet(self, path: PacketPath) -> None:
        """Take nothing."""

    def finish(self, result: TraceResult) -> None:
        """Write nothing."""


class WholeFile:
    """A file that is made of all packets at once."""

    def __init__(self, args: argparse.Namespace, suffix: str, path: Path) -> None:
        self.failed = False
        self._args = args
        self._suffix = suffix
        self._path = path
        self._packets: list[PacketPath] = []

    def packet(self, path: PacketPath) -> None:
        """Keep the packet."""
        self._packets.append(path)

    def finish(self, result: TraceResult) -> None:
        """Write the file; the packets are those of the result, or those that were taken."""
        from dataclasses import replace

        from ipttrace.render.exports import About, export
        from ipttrace.system.result_file import write_whole

        if self._packets:
            result = replace(result, paths=tuple(self._packets))
        about = About(
            datetime.now(UTC).astimezone(),
            f"ipttrace {__version__}",
            _title(getattr(self._args, "words", ())),
            verbose=self._args.verbose,
        )
        try:
            content = export(self._suffix, result, about)
            write_whole(self._path, content, replace=self._args.force)
            output.note(f"wrote {self._path}")
        except IptTraceError as error:
            self.failed = True
            output.error(error)


class StreamFile:
    """JSON Lines, a line as soon as its packet is known; there is no file before the first."""

    def __init__(self, args: argparse.Namespace, path: Path) -> None:
        self.failed = False
        self._replace = args.force
        self._path = path
        self._descriptor: int | None = None

    def packet(self, path: PacketPath) -> None:
        """Write the packet's line."""
        from ipttrace.render.records import path_record

        self._write(lambda: path_record(path))

    def finish(self, result: TraceResult) -> None:
        """Write the last line."""
        from ipttrace.render.records import summary_record

        self._write(lambda: summary_record(result))
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _write(self, line: Callable[[], bytes]) -> None:
        from ipttrace.system.result_file import open_new, write_all

        if self.failed:
            return
        try:
            if self._descriptor is None:
                self._descriptor = open_new(self._path, replace=self._replace)
            write_all(self._descriptor, line() + b"\n")
        except IptTraceError as error:
            self._give_up(error)
        except OSError as error:
            reason = f"cannot write on to {self._path}: {error.strerror}"
            self._give_up(KernelError(reason, "It ends there; what follows is only shown."))

    def _give_up(self, error: IptTraceError) -> None:
        self.failed = True
        output.error(error)


def _title(words: Sequence[str]) -> str:
    """Return the command as it was given, but for what says where it is written."""
    kept: list[str] = []
    for before, word in pairwise(["ipttrace", *words]):
        if before != "--write" and word not in ("--write", "--force"):
            kept += [] if word.startswith("--write=") else [word]
    return shlex.join(["ipttrace", *kept])


def open_file(args: argparse.Namespace, *, stream: bool = False) -> ResultFile:
    """Return what `--write` names; with `stream` JSON Lines are written one by one.

    Raises UsageError where it cannot be written, while nothing is done yet.
    """
    if args.write is None:
        return NoFile()
    from ipttrace.render.exports import suffix_of
    from ipttrace.system.result_file import check_writable

    suffix = suffix_of(args.write)
    path = check_writable(args.write, replace=args.force)
    if stream and suffix == ".jsonl":
        return StreamFile(args, path)
    return WholeFile(args, suffix, path)
