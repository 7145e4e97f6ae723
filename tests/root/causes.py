"""What the tests of causes have in common: a probe, its path, its cause, and what is checked."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import jsonschema

from ipttrace.cli.compose import trace_probe
from ipttrace.path import Diagnosis, Hop, Outcome, PacketPath, Role
from ipttrace.probe import ProbeSpec, validate
from ipttrace.render.records import path_record, summary_record
from ipttrace.render.schema import SHIPPED
from ipttrace.render.text import answer_lines
from ipttrace.result import TraceResult
from tests.waiting import SLOW

SCHEMA = jsonschema.Draft202012Validator(json.loads(SHIPPED.read_text(encoding="utf-8")))
KERNEL = tuple(int(number) for number in os.uname().release.split(".")[:2])
TELLS_ROUTING = KERNEL >= (6, 13)
"""Whether the kernel says why it routes a packet of a wrong source, or to 127.0.0.0/8, no further:
6.18 does, 6.1 does not."""
TELLS_RESETS = KERNEL >= (6, 10)
"""Whether tcp_send_reset tells of every reset, and why; before that of open connections' alone."""


@dataclass
class Probed:
    """One traced probe, and what was said meanwhile."""

    result: TraceResult
    seconds: float
    """From the start to the answer."""
    notes: list[str] = field(default_factory=list)

    @property
    def path(self) -> PacketPath:
        """The probe's last leg."""
        return [path for path in self.result.paths if path.role is Role.PROBE][-1]

    @property
    def replies(self) -> list[PacketPath]:
        """The answers."""
        return [path for path in self.result.paths if path.role is Role.REPLY]

    @property
    def diagnosis(self) -> Diagnosis:
        """The diagnosis of the probe's last leg."""
        assert self.path.diagnosis is not None
        return self.path.diagnosis

    @property
    def cause(self) -> str:
        """Its code."""
        return self.diagnosis.cause

    @property
    def text(self) -> str:
        """What the user reads."""
        return "\n".join(answer_lines(self.result, width=None, color=False, verbose=True))

    def hops(self, kind: type[Hop]) -> list[Hop]:
        """The hops of one kind."""
        return [hop for hop in self.path.hops if isinstance(hop, kind)]

    def evidence(self) -> str:
        """All evidence, a line each, with its strength."""
        return "\n".join(f"{each.text} ({each.strength})" for each in self.diagnosis.evidence)

    def check(self, cause: str, outcome: Outcome, *, within: float | None = None) -> None:
        """Fail unless cause and outcome are these, the records are valid, and all is clean.

        `within` are seconds: a cause that is proved early is told early.
        """
        assert (self.cause, self.path.outcome) == (cause, outcome), self.text
        for path in self.result.paths:
            SCHEMA.validate(json.loads(path_record(path)))
        SCHEMA.validate(json.loads(summary_record(self.result)))
        totals = self.result.totals
        assert (totals.lost_events, totals.undecoded, self.result.clean) == (0, 0, True)
        if within is not None:
            assert self.seconds < within * SLOW, f"{self.seconds:.1f} s\n{self.text}"


def probe(spec: ProbeSpec, *netns: str, **words: object) -> Probed:
    """Send and trace a probe in the namespaces; `words` are fields of the spec."""
    notes: list[str] = []
    answers: list[float] = []
    spec = replace(spec, netns=netns or spec.netns, **words)  # type: ignore[arg-type]
    began = time.monotonic()
    result = trace_probe(
        validate(spec), answer=lambda _: answers.append(time.monotonic()), note=notes.append
    )
    return Probed(result, answers[0] - began, notes)


def rule_numbers(probed: Probed) -> Sequence[str]:
    """Return the rules that the diagnosis names, as the user reads them."""
    return [str(ref) for ref in probed.diagnosis.rules]
