"""Medians of interleaved runs, and the ratio to each peer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

OURS = "ipttrace"


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured of us and of our peers, run by run in turn."""

    name: str
    unit: str
    samples: Mapping[str, Sequence[float]]
    """By program; ours is `OURS`."""
    target: float | None = None
    """What ours is to stay below, in the same unit."""

    def median(self, program: str) -> float:
        """Return the median of one program's runs."""
        return median(self.samples[program])

    def ratio(self, program: str) -> float:
        """Return our median divided by that of `program`."""
        return self.median(OURS) / self.median(program)

    def as_record(self) -> dict[str, object]:
        """Return the figure as a JSON object."""
        return {
            "name": self.name,
            "unit": self.unit,
            "target": self.target,
            "programs": {
                program: {
                    "median": round(self.median(program), 3),
                    "ratio": round(self.ratio(program), 3),
                    "runs": [round(sample, 3) for sample in samples],
                }
                for program, samples in self.samples.items()
            },
        }

    def lines(self) -> list[str]:
        """Return the figure as a table for people."""
        target = f"  (target: {self.target:g})" if self.target is not None else ""
        rows = [f"{self.name}, {self.unit}{target}"]
        for program in self.samples:
            runs = self.samples[program]
            spread = f"{min(runs):.2f}..{max(runs):.2f}"
            ratio = "" if program == OURS else f"  ours is {self.ratio(program):.2f} of it"
            rows.append(f"  {program:24} {self.median(program):8.2f}  {spread:>16}{ratio}")
        return rows
