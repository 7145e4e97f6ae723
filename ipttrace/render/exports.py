"""A run as the bytes of a file that can be kept and shown elsewhere, by the file's ending."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from ipttrace.errors import UsageError
from ipttrace.render.about import About
from ipttrace.result import TraceResult

__all__ = ["KINDS", "About", "Kind", "export", "suffix_of"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of file."""

    what: str
    """In a few words, for help and errors."""
    make: Callable[[TraceResult, About], bytes]


def _records(result: TraceResult, _: About) -> bytes:
    from ipttrace.render.records import path_record, summary_record

    lines = [*map(path_record, result.paths), summary_record(result)]
    return b"".join(line + b"\n" for line in lines)


def _text(result: TraceResult, about: About) -> bytes:
    from ipttrace.render.text import answer_lines, note_lines

    lines = answer_lines(result, width=None, color=False, verbose=about.verbose)
    lines += note_lines(result, width=None, color=False)
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def _picture(result: TraceResult, about: About) -> bytes:
    from ipttrace.render.svg import svg_file

    return svg_file(result, about)


def _page(result: TraceResult, about: About) -> bytes:
    from ipttrace.render.report_html import html_file

    return html_file(result, about)


def _packets(result: TraceResult, about: About) -> bytes:
    from ipttrace.render.pcapng import pcapng_file

    return pcapng_file(result, about)


KINDS: Mapping[str, Kind] = {
    ".jsonl": Kind("JSON Lines, schema ipttrace/1", _records),
    ".txt": Kind("the hops as text", _text),
    ".svg": Kind("the flow picture", _picture),
    ".html": Kind("a report", _page),
    ".pcapng": Kind("the packets, with their hops as comments, for Wireshark", _packets),
}
"""By suffix, in the order in which they are offered."""


def suffix_of(name: str) -> str:
    """Return the suffix that says what is to be written; raises UsageError."""
    suffix = PurePath(name).suffix.lower()
    if suffix not in KINDS:
        known = ", ".join(f"{each} ({kind.what})" for each, kind in KINDS.items())
        raise UsageError(
            f"cannot tell what to write to {name!r}: its name has no known ending",
            f"Let it end in {known}.",
        )
    return suffix


def export(suffix: str, result: TraceResult, about: About) -> bytes:
    """Return the whole content of a file with this suffix, a key of `KINDS`."""
    return KINDS[suffix].make(result, about)
