"""Prints what a traced probe found: the answer at once, the rest when all is taken back."""

from __future__ import annotations

from datetime import UTC, datetime

from ipttrace.cli import output
from ipttrace.cli.writing import ResultFile
from ipttrace.decode.text import clean_text
from ipttrace.diagnose.catalogue import meets
from ipttrace.path import PacketPath, Role
from ipttrace.result import TraceResult


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


SAME = "..".rjust(len("00:00:00.000000"))
"""Stands for the time of a packet that was told in the line before, in another namespace."""


class PacketPrinter:
    """Prints packets one by one: lines for people, or JSON Lines; a file gets each as well."""

    def __init__(
        self, *, json: bool, verbose: bool, file: ResultFile, several: bool = False
    ) -> None:
        """With `several` namespaces each line names its own."""
        self._several = several
        self._journey: int | None = None
        self._printer = Printer(json=json)
        self._json = json
        self._verbose = verbose
        self._file = file
        self.unread = False
        """Whether the reader of stdout has gone."""

    def packet(self, path: PacketPath) -> None:
        """Print one packet; raises KeyboardInterrupt, once, where nobody reads it any more."""
        self._file.packet(path)
        try:
            self._print(path)
        except BrokenPipeError:
            output.hush()
            self.unread = True
            raise KeyboardInterrupt from None

    def _print(self, path: PacketPath) -> None:
        if self._json:
            from ipttrace.render.records import path_record

            output.record(path_record(path))
            return
        from ipttrace.render.text import path_lines, summary_line

        if self._verbose:
            width, color = output.width(), output.color()
            lines = path_lines(path, width=width, color=color, numbered=True, verbose=True)
            output.lines([*lines, ""])
            return
        local = datetime.fromtimestamp(path.time, tz=UTC).astimezone()
        when = SAME if path.journey == self._journey else local.strftime("%H:%M:%S.%f")
        self._journey = path.journey
        line = summary_line(path, when=when, color=output.color(), placed=self._several)
        output.lines([line])

    def summary(self, result: TraceResult) -> None:
        """Print how much was seen, and what keeps it from being the whole truth."""
        if not self._json:
            from ipttrace.render.text import counted

            totals = result.totals
            whole = ", complete" if 0 < totals.packets == totals.complete else ""
            output.note(f"{counted(totals.packets, 'packet')} shown{whole}")
        with output.unless_closed():
            self._printer.summary(result)
        self._file.finish(result)


def meets_expectation(word: str, result: TraceResult) -> bool:
    """Tell whether the outcome or cause of every probe is `word`, on its last leg."""
    ends = {path.journey: path for path in _probes(result)}
    return bool(ends) and all(
        meets(word, path.outcome, path.diagnosis.cause if path.diagnosis else None)
        for path in ends.values()
    )


def _probes(result: TraceResult) -> list[PacketPath]:
    return [path for path in result.paths if path.role is Role.PROBE]
