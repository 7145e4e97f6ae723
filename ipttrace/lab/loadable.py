"""What of a save file can be loaded here, and what cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ipttrace.lab.missing import Missing
from ipttrace.lab.restoring import Attempt, TableTrial
from ipttrace.lab.save_file import SaveFile


@dataclass(frozen=True, slots=True)
class Loadable:
    """What of a save file can be loaded."""

    text: str
    missing: tuple[Missing, ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Result:
    texts: list[str] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def loadable(
    file: SaveFile, attempt: Attempt, out_of_time: Callable[[], bool] = lambda: False
) -> Loadable:
    """Return the text of `file` that iptables-restore takes, and what it lacks."""
    result = _Result(missing=list(file.missing), notes=list(file.notes))
    for each in file.tables:
        table = TableTrial(file.source, each, attempt, out_of_time)
        table.load()
        if each.number not in table.refused:
            result.texts.append(table.final())
        result.notes += table.notes
        result.missing += [
            Missing(line.text, reason, file.source, number)
            for number, (line, reason) in table.refused.items()
        ]
    missing = tuple(sorted(result.missing, key=lambda each: each.line or 0))
    return Loadable("".join(result.texts), missing, tuple(result.notes))
