"""Prints what a traced probe found: the answer at once, the rest when all is taken back."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Self

from ipttrace.cli import output
from ipttrace.decode.text import clean_text
from ipttrace.diagnose.catalogue import meets
from ipttrace.errors import UsageError
from ipttrace.path import PacketPath, Role, TraceResult


class Printer:
    """Text for people, or JSON Lines for programs."""

    def __init__(self, *, json: bool, verbose: bool = False) -> None:
        self._json = json
        self._verbose = verbose

    def answer(self, result: TraceResult) -> None:
        """Print the paths; what was taken back is not known yet."""
        if self._json:
            from ipttrace.render.records import path_record

            for path in result.paths:
                output.record(path_record(path))
            return
        from ipttrace.render.text import answer_lines

        width, color = output.width(), output.color()
        output.lines(answer_lines(result, width=width, color=color, verbose=self._verbose))

    def summary(self, result: TraceResult) -> None:
        """Print what keeps the answer from being the whole truth, and whether all is clean."""
        if self._json:
            from ipttrace.render.records import summary_record

            output.record(summary_record(result))
            return
        from ipttrace.render.text import note_lines

        output.lines([*note_lines(result, width=output.width(), color=output.color()), ""])

    def heading(self, text: str, *, level: int) -> None:
        """Print a heading between results; programs get none."""
        if self._json:
            return
        from ipttrace.render.style import Style, paint

        mark = "==" if level == 1 else "--"
        head = paint(f"{mark} {clean_text(text)}", Style.HEAD, output.color())
        output.lines([head, ""])


class PacketPrinter:
    """Prints packets one by one: lines for people, or JSON Lines; a file gets JSON Lines too."""

    def __init__(self, *, json: bool, verbose: bool, file: str | None) -> None:
        self._printer = Printer(json=json)
        self._json = json
        self._verbose = verbose
        self._file = _open_for_writing(file) if file is not None else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def packet(self, path: PacketPath) -> None:
        """Print one packet."""
        from ipttrace.render.text import path_lines, summary_line

        if self._file is not None or self._json:
            self._record(path)
        if self._json:
            return
        if self._verbose:
            width, color = output.width(), output.color()
            lines = path_lines(path, width=width, color=color, numbered=True, verbose=True)
            output.lines([*lines, ""])
            return
        local = datetime.fromtimestamp(path.time, tz=UTC).astimezone()
        when = local.strftime("%H:%M:%S.%f")
        output.lines([summary_line(path, when=when, color=output.color())])

    def _record(self, path: PacketPath) -> None:
        from ipttrace.render.records import path_record

        if self._json:
            output.record(path_record(path))
        if self._file is not None:
            self._file.write(path_record(path) + b"\n")
            self._file.flush()

    def summary(self, result: TraceResult) -> None:
        """Print how much was seen, and what keeps it from being the whole truth."""
        from ipttrace.render.records import summary_record

        if self._file is not None:
            self._file.write(summary_record(result) + b"\n")
        if not self._json:
            totals = result.totals
            output.note(f"{totals.packets:,} packets shown, {totals.complete:,} of them complete")
        self._printer.summary(result)


def _open_for_writing(file: str) -> BinaryIO:
    try:
        return Path(file).open("wb")
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}") from error


def meets_expectation(word: str, result: TraceResult) -> bool:
    """Tell whether the outcome or cause of every probe is `word`, on its last leg."""
    ends = {path.journey: path for path in _probes(result)}
    return bool(ends) and all(
        meets(word, path.outcome, path.diagnosis.cause if path.diagnosis else None)
        for path in ends.values()
    )


def _probes(result: TraceResult) -> list[PacketPath]:
    return [path for path in result.paths if path.role is Role.PROBE]
