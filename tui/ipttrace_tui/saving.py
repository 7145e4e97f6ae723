"""What can be saved from the screen, chosen by the ending of the file's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ipttrace import __version__
from ipttrace.errors import UsageError
from ipttrace.path import PacketPath
from ipttrace.render.exports import About, export, suffix_of
from ipttrace.result import TraceResult
from ipttrace_tui.feed import Snapshot

KINDS: Mapping[str, str] = {
    ".jsonl": "the whole trace, for programs",
    ".html": "the whole trace, a report to read",
    ".svg": "the picture of this packet",
    ".txt": "the hops of this packet, as text",
    ".pcapng": "this packet with its hops as comments, for Wireshark",
}
"""What is saved under a name with that ending, in the order in which it is offered."""

MOST = 20_000
"""Packets of a trace that are saved, the newest ones; `ipttrace watch --write` has no bound."""

OF_ONE_PACKET = frozenset({".svg", ".txt", ".pcapng"})


@dataclass(frozen=True, slots=True)
class Shown:
    """What the user looks at."""

    title: str
    snapshot: Snapshot
    path: PacketPath | None
    hop: int | None

    def result(self, *, whole: bool) -> TraceResult:
        """Return the trace, or of it the selected packet alone; raises UsageError."""
        known, warnings = self.snapshot, self.snapshot.warnings
        if whole:
            paths = tuple(known.paths[-MOST:])
            if (older := len(known.paths) - len(paths)) > 0:
                cut = f"the {older} oldest packets are not in this file: it holds {MOST} at most"
                warnings = (*warnings, cut)
        elif self.path is not None:
            paths = (self.path,)
        else:
            raise UsageError("cannot save a packet: none is selected")
        return TraceResult(
            paths,
            known.totals,
            trigger=known.trigger,
            backends=known.backends,
            warnings=warnings,
        )


def content(name: str, shown: Shown, now: datetime | None = None) -> bytes:
    """Return what is to be written under a name; raises UsageError."""
    suffix = suffix_of(name)
    when = now or datetime.now(tz=UTC).astimezone()
    about = About(when, f"ipttrace {__version__}", shown.title, verbose=True, hop=shown.hop)
    return export(suffix, shown.result(whole=suffix not in OF_ONE_PACKET), about)


def save(name: str, shown: Shown, *, overwrite: bool) -> Path:
    """Make what the name asks for and write it, whole or not at all; return where it is.

    Raises UsageError, KernelError and result_file.FileExistsAlready.
    """
    from ipttrace.system.result_file import check_writable, write_whole

    suffix_of(name)
    path = check_writable(name, replace=overwrite)
    write_whole(path, content(name, shown), replace=overwrite)
    return path.absolute()


def hop_text(path: PacketPath) -> str:
    """Return a packet's hops, its fate and why, as text."""
    from ipttrace.render.text import path_lines

    lines = path_lines(path, width=None, color=False, numbered=True, verbose=True)
    return "\n".join(lines) + "\n"
