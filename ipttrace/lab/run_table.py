"""The table at the end of `lab run`: a line a lab and backend, and what was not as expected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ipttrace.decode.text import clean_text
from ipttrace.lab.runner import LabRun, ProbeRun
from ipttrace.path import Role
from ipttrace.render.style import Style, paint
from ipttrace.render.table import GAP, pad


def probe_lines(runs: Sequence[LabRun], *, color: bool) -> Iterator[str]:
    """Yield a line a probe: the backend, its name, what became of it, and whether it should."""
    names = max((len(probe.probe.name) for run in runs for probe in run.probes), default=0)
    ends = max((len(_fate(probe)) for run in runs for probe in run.probes), default=0)
    for run in runs:
        lead = pad(run.backend, 6)
        for refusal in run.refusals:
            words = _words(refusal.differences, color)
            yield clean_text(f"{lead}{GAP}refused: {refusal.refusal.run}") + GAP + words
            if refusal.complaint:
                yield clean_text(f"{pad('', 6)}{GAP}{GAP}it says: {refusal.complaint}")
        for probe in run.probes:
            row = f"{lead}{GAP}{pad(probe.probe.name, names)}{GAP}{pad(_fate(probe), ends)}"
            yield clean_text(row) + GAP + _words(probe.differences, color)


def lab_lines(runs: Sequence[LabRun], *, color: bool) -> Iterator[str]:
    """Yield a line a lab and backend, each thing that is not as expected below it, and the sum."""
    names = max((len(run.scenario.name) for run in runs), default=0)
    for run in runs:
        tried = len(run.probes) + len(run.refusals)
        good = sum(probe.as_expected for probe in run.probes)
        good += sum(refusal.as_expected for refusal in run.refusals)
        word, style = ("ok", Style.GOOD) if run.as_expected else ("NOT AS EXPECTED", Style.BAD)
        yield (
            f"{pad(run.scenario.name, names)}{GAP}{pad(run.backend, 6)}{GAP}"
            f"{good:2} of {tried:2}{GAP}{run.seconds:5.1f} s{GAP}{paint(word, style, color)}"
        )
        if run.error is not None:
            yield from _below("", (run.error,))
        for refusal in run.refusals:
            yield from _below("", refusal.differences)
        for probe in run.probes:
            yield from _below(f"{probe.probe.name}: ", probe.differences)
    good = sum(run.as_expected for run in runs)
    yield ""
    yield f"{good} of {len(runs)} runs as expected, {sum(run.seconds for run in runs):.1f} s"


def _below(lead: str, differences: Sequence[str]) -> Iterator[str]:
    """Yield differences in lines of their own; each may have several."""
    for said in differences:
        for number, line in enumerate(said.splitlines()):
            front = pad("", len(lead)) if number else lead
            yield GAP * 2 + clean_text(front + line)


def _fate(probe: ProbeRun) -> str:
    paths = [path for path in probe.result.paths if path.role is Role.PROBE]
    return ", ".join(sorted({str(path.outcome) for path in paths})) or "not seen"


def _words(differences: Sequence[str], color: bool) -> str:
    if not differences:
        return paint("as expected", Style.GOOD, color)
    return paint(
        clean_text("; ".join(said.partition("\n")[0] for said in differences)), Style.BAD, color
    )
